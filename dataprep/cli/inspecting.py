"""Look into a build: `show`, `why`, `duplicates`, `verify`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from dataprep.cli.common import BuildName, Json, Store, app, locate_build, open_named, print_json
from dataprep.common.errors import InputError
from dataprep.common.lookup import DEFAULT_STORE
from dataprep.common.text import excerpt, nearest, plural, visible

if TYPE_CHECKING:
    from dataprep.contract import Build

Limit = Annotated[int, Parameter(validator=Number(gte=0))]


@app.command
def show(
    reference: BuildName,
    *,
    row: int = 0,
    split: str = "train",
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Show a rendered conversation: what is trained, what is context, and the template's control tokens.

    Parameters
    ----------
    row
        Which row of the split, from 0.
    split
        train or test.
    """
    from dataprep.cli.views import conversation, plain_conversation
    from dataprep.common.terminal import stdout_console

    build = open_named(store, reference)
    if split not in build.splits:
        raise InputError(f"There is no split '{excerpt(split, 100)}' in {build.path}. {nearest(split, build.splits)}")
    table = build.splits[split]
    if not 0 <= row < table.num_rows:
        rows = f"its rows are 0 to {table.num_rows - 1}" if table.num_rows else "it has no rows"
        raise InputError(f"There is no row {row} in {split} of {build.path}: {rows}.")
    record = table.slice(row, 1).to_pylist()[0]
    if as_json:
        print_json(record)
        return
    console = stdout_console()
    trained = sum(span["end"] - span["start"] for span in record["spans"])
    share = f"{trained:,} of {len(record['text']):,} characters are trained"
    head = visible(f"{record['id']}  {record['lang'] or ''}  {share}")
    if console.is_terminal:
        console.print(f"{head}: in green", style="bold")
        console.print(conversation(record["text"], record["spans"], record["controls"]), soft_wrap=True)
    else:
        print(f"{head}: between ⟦ and ⟧")
        print(plain_conversation(record["text"], record["spans"]))


@app.command(usage="Usage: dataprep why BUILD [ID] [OPTIONS]")
def why(
    reference: BuildName,
    record: Annotated[str | None, Parameter(name="id")] = None,
    *,
    rule: str | None = None,
    limit: Limit = 20,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Explain why records were kept or dropped: one record, the records of a rule, or all rules with their counts.

    Parameters
    ----------
    record
        The id of a conversation, message or tree, or FILE:LINE of a source.
    rule
        List the records that this rule dropped, did not sample or repaired.
    limit
        Maximum number of records to list.
    """
    from dataprep.store.explain import explain, records_of_rule

    build = open_named(store, reference)
    if record is not None and rule is not None:
        raise InputError("why takes an id or --rule, not both.")
    if rule is not None:
        records = records_of_rule(build, rule)
        if as_json:
            print_json({"rule": rule, "records": records.to_dicts()})
        else:
            _print_records(records.head(limit).to_dicts(), records.height)
    elif record is not None:
        fates = explain(build, record)
        if as_json:
            print_json({"id": record, "fates": fates})
        else:
            _print_fates(fates)
    else:
        _print_funnel(build, as_json)


def _print_fates(fates: Sequence[Mapping[str, Any]]) -> None:
    from dataprep.cli.views import fate, side_by_side, survivor_chain
    from dataprep.common.terminal import stdout_console

    console = stdout_console()
    for entry in fates:
        console.print(fate(entry), soft_wrap=True)
        console.print(survivor_chain(entry["survivors"]), soft_wrap=True, end="")
        if "messages" in entry:
            messages = entry["messages"], entry["survivor_messages"]
            console.print(side_by_side(*messages, entry["id"], entry["survivor"], plain=not console.is_terminal))


def _print_records(records: Sequence[Mapping[str, Any]], total: int) -> None:
    from dataprep.cli.views import record_line
    from dataprep.common.terminal import stdout_console

    console = stdout_console()
    for record in records:
        console.print(record_line(record), soft_wrap=True)
    if total > len(records):
        console.print(f"… and {total - len(records):,} more: --limit {total} shows all, --json has all.")


def _print_funnel(build: Build, as_json: bool) -> None:
    from dataprep.cli.views import funnel_lines
    from dataprep.common.terminal import stdout_console

    manifest = build.manifest.complete()
    if as_json:
        print_json({key: manifest[key] for key in ("fates", "repairs", "funnel")})
    else:
        console = stdout_console()
        console.print(funnel_lines(manifest, console.width))


@app.command
def duplicates(
    reference: BuildName,
    *,
    limit: Limit = 20,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """List the clusters of near-duplicates: the largest first, each with its survivor and why that was chosen.

    Parameters
    ----------
    limit
        Maximum number of clusters to show.
    """
    from dataprep.cli.views import cluster_lines
    from dataprep.common.terminal import stdout_console
    from dataprep.store.explain import duplicate_clusters

    clusters = duplicate_clusters(open_named(store, reference))
    if as_json:
        print_json({"clusters": len(clusters), "largest": clusters[:limit]})
        return
    console = stdout_console()
    dropped = sum(len(cluster["members"]) for cluster in clusters)
    end = "" if clusters else "."
    console.print(f"{plural(dropped, 'near-duplicate')} in {plural(len(clusters), 'cluster')}{end}")
    for cluster in clusters[:limit]:
        console.print(cluster_lines(cluster), soft_wrap=True)
    if len(clusters) > limit:
        console.print(f"… and {len(clusters) - limit} more: --limit shows them.")


@app.command
def verify(reference: BuildName, *, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """Check a build: the checksum of every file, the content of the shards, and the sum of the fates."""
    from dataprep.common.terminal import stdout_console
    from dataprep.store.verification import verify_build

    verified = verify_build(locate_build(store, reference))
    if as_json:
        print_json(verified)
        return
    stdout_console().print(
        f"{verified['name']}@{verified['version']} is whole: {plural(verified['rows'], 'row')}, "
        f"{plural(verified['files'], 'file')}, {plural(verified['fates'], 'fate')}.",
        soft_wrap=True,
    )
