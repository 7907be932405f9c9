"""Look into a build: `show`, `why`, `duplicates`, `verify`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from dataprep.cli.common import DEFAULT_STORE, BuildName, Json, Store, app, locate_build, open_named, print_json
from dataprep.common.errors import InputError
from dataprep.common.text import excerpt, nearest, plural, visible


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


@app.command
def why(
    reference: BuildName,
    record: Annotated[str, Parameter(name="id")],
    *,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Explain why a record was kept or dropped: the stages that it passed, its repairs, and the rule that decided.

    Parameters
    ----------
    record
        The id of a conversation, message or tree, or FILE:LINE of a source.
    """
    from dataprep.cli.views import fate, side_by_side, survivor_chain
    from dataprep.common.terminal import stdout_console
    from dataprep.store.explain import explain

    fates = explain(open_named(store, reference), record)
    if as_json:
        print_json({"id": record, "fates": fates})
        return
    console = stdout_console()
    for entry in fates:
        console.print(fate(entry), soft_wrap=True)
        console.print(survivor_chain(entry["survivors"]), soft_wrap=True, end="")
        if "messages" in entry:
            messages = entry["messages"], entry["survivor_messages"]
            console.print(side_by_side(*messages, entry["id"], entry["survivor"], plain=not console.is_terminal))


@app.command
def duplicates(
    reference: BuildName,
    *,
    limit: Annotated[int, Parameter(validator=Number(gte=0))] = 20,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """List the clusters of near-duplicates, largest first, with the survivor of each and why it was chosen.

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
