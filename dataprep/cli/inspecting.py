"""Looking into a build: `show`, `why`, `duplicates`, `verify`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from dataprep.cli.common import DEFAULT_STORE, BuildName, Json, Store, app, locate_build, open_named, print_json
from dataprep.common.errors import InputError

if TYPE_CHECKING:
    import polars as pl

    from dataprep.contract import Build


@app.command
def show(
    reference: BuildName,
    *,
    row: int = 0,
    split: str = "train",
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Show a rendered conversation: what is trained, what is not, and the template's control tokens.

    Parameters
    ----------
    row
        Which row of the split, from 0.
    split
        train or test.
    """
    from dataprep.common.terminal import conversation, plain_conversation, stdout_console
    from dataprep.common.text import visible

    opened = open_named(store, reference)
    if split not in opened.splits:
        raise InputError(f"There is no split '{split}' in {opened.path}. Available: {', '.join(opened.splits)}.")
    table = opened.splits[split]
    if not 0 <= row < table.num_rows:
        raise InputError(f"There is no row {row} in {split} of {opened.path}: its rows are 0 to {table.num_rows - 1}.")
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
    """Tell the fate of a conversation, message or tree: the stages it passed, its repairs, and why it is or is not there.

    Parameters
    ----------
    record
        An id of a conversation, message or tree; or FILE:LINE, a place in a source.
    """
    import polars as pl

    from dataprep.common.terminal import fate, side_by_side, stdout_console, survivors
    from dataprep.store.shards import read_duplicates

    opened = open_named(store, reference)
    pairs = read_duplicates(opened.path)
    rows = []
    for row in _fates_of(opened, record):
        row = row | {"passed": _passed(row["stage"]), "survivors": _survivors(opened, row)}
        if pairs is not None and row["rule"] == "near_duplicate":
            pair = pairs.row(by_predicate=pl.col("id") == row["id"], named=True)
            row |= {"messages": pair["messages"], "survivor_messages": pair["survivor_messages"]}
        rows.append(row)
    if as_json:
        print_json({"id": record, "fates": rows})
        return
    console = stdout_console()
    for row in rows:
        console.print(fate(row, row["passed"]), soft_wrap=True)
        console.print(survivors(row["survivors"]), soft_wrap=True, end="")
        if "messages" in row:
            sides = row["messages"], row["survivor_messages"], row["id"], row["survivor"]
            console.print(side_by_side(*sides, plain=not console.is_terminal))


def _survivors(opened: Build, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fates of the one that stands in a duplicate's place, of the one that stands in its, and so on."""
    import polars as pl

    from dataprep.store.shards import read_fates

    chain: list[dict[str, Any]] = []
    if row["rule"] not in ("exact_duplicate", "near_duplicate"):
        return chain
    fates = read_fates(opened.path).filter(pl.col("kind") == "conversation")
    while (better := fates.filter(pl.col("id") == row["survivor"])).height:  # always a better one, so it ends
        row = better.row(0, named=True)
        chain.append({name: row[name] for name in ("id", "fate", "stage", "rule", "survivor", "similarity")})
    return chain


def _passed(last: str) -> list[str]:
    """The stages before the one that gave a record its fate; all of them where it was kept."""
    from dataprep.common.funnel import STAGES

    return list(STAGES[: STAGES.index(last)] if last in STAGES else STAGES)


@app.command
def duplicates(
    reference: BuildName,
    *,
    limit: Annotated[int, Parameter(validator=Number(gte=0))] = 20,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """List the clusters of near-duplicates, largest first, with the one that stayed and why it did.

    Parameters
    ----------
    limit
        How many clusters to show.
    """

    from dataprep.common.terminal import cluster_lines, stdout_console
    from dataprep.store.shards import read_duplicates

    pairs = read_duplicates(open_named(store, reference).path)
    clusters = [] if pairs is None else _clusters(pairs)
    if as_json:
        print_json({"clusters": len(clusters), "largest": clusters[:limit]})
        return
    console = stdout_console()
    gone = 0 if pairs is None else pairs.height
    of = "cluster" if len(clusters) == 1 else "clusters"
    console.print(f"{gone} near-duplicates in {len(clusters)} {of}" + ("" if clusters else "."))
    for cluster in clusters[:limit]:
        console.print(cluster_lines(cluster), soft_wrap=True)
    if len(clusters) > limit:
        console.print(f"… and {len(clusters) - limit} more: --limit shows them.")


def _clusters(pairs: pl.DataFrame) -> list[dict[str, Any]]:
    """survivor, why, opening and members (id, similarity) of each cluster, largest first."""
    import polars as pl

    opening = pl.col("survivor_messages").list.first().struct.field("content").str.head(80)
    members = pl.struct("id", "similarity")
    found = pairs.group_by("survivor", maintain_order=True).agg(
        why=pl.col("detail").str.extract(r"(kept for its .+)\.$", 1).unique(maintain_order=True).str.join("; "),
        opening=opening.first(),
        members=members.sort_by("similarity", "id", descending=[True, False]),
    )
    return found.sort(pl.col("members").list.len(), "survivor", descending=[True, False]).to_dicts()


def _fates_of(opened: Build, record: str) -> list[dict[str, Any]]:
    """The fates of an id, of what stands in a place `FILE:LINE`, of the conversations that a message is part of, or of
    a tree's records: the first of these that there is."""
    import polars as pl

    from dataprep.store.shards import read_fates

    fates = read_fates(opened.path)
    file, _, line = record.rpartition(":")
    ways: list[Callable[[], pl.Expr]] = [
        lambda: pl.col("id") == record,
        lambda: (pl.col("source") == file) & (pl.col("line").cast(pl.String) == line),
        lambda: pl.col("id").is_in(_holders(opened, record)),
        lambda: pl.col("tree_id") == record,
    ]
    for way in ways:
        found = fates.filter(way())
        if not found.is_empty():
            whole = found.filter(pl.col("rule") == "on_path")["survivor"]  # of a part, its conversation's fate too
            is_whole = pl.col("id").is_in(whole.implode()) & (pl.col("kind") == "conversation")
            return fates.filter(pl.col("row").is_in(found["row"].implode()) | is_whole).to_dicts()
    raise InputError(
        f"No record '{record}' is in the fates of {opened.path}: ask for the id of a conversation, a message or a tree, "
        "or for FILE:LINE of a source."
    )


def _holders(opened: Build, message: str) -> list[str]:
    """Ids of the kept conversations of which `message` is a part."""
    import polars as pl

    both = pl.concat(pl.DataFrame(table.select(["id", "message_ids"])) for table in opened.splits.values())
    return both.filter(pl.col("message_ids").list.contains(message))["id"].to_list()


@app.command
def verify(reference: BuildName, *, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """Check a build: every file's checksum, the shards' columns and rows, the sum of the fates."""
    from dataprep.common.terminal import stdout_console
    from dataprep.store.verification import verify_build

    facts = verify_build(locate_build(store, reference))
    if as_json:
        print_json(facts)
    else:
        stdout_console().print(
            f"{facts['name']}@{facts['version']} is whole: {facts['rows']:,} rows, {facts['files']} files, "
            f"{facts['fates']:,} fates.",
            soft_wrap=True,
        )
