"""Explain why a record was kept or dropped, and list the clusters of near-duplicates."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from dataprep.common.errors import InputError
from dataprep.common.funnel import STAGES
from dataprep.common.text import excerpt, nearest
from dataprep.contract import Build
from dataprep.store.fates import read_duplicates, read_fates
from dataprep.tables import KEPT


def explain(build: Build, record: str) -> list[dict[str, Any]]:
    """Explain why a record was kept or dropped.

    Args:
        build: an opened build.
        record: the id of a conversation, message or tree, or FILE:LINE of a source.

    Returns: one dict for each fate of that record: the columns of `tables.FATES`; `passed`, the stages that it passed;
        `survivors`, the chain of conversations that it is a duplicate of; for a near-duplicate, `messages` and
        `survivor_messages`.

    Raises:
        InputError: the build has no such record.
    """
    fates = read_fates(build.path)
    pairs = read_duplicates(build.path)
    explained = []
    for fate in _matching(build, fates, record).to_dicts():
        fate = fate | {"passed": stages_before(fate["stage"]), "survivors": _survivors(fates, fate)}
        if pairs is not None and fate["rule"] == "near_duplicate":
            pair = pairs.filter(pl.col("id") == fate["id"]).select("messages", "survivor_messages").head(1)
            fate |= next(iter(pair.to_dicts()), {})
        explained.append(fate)
    return explained


def records_of_rule(build: Build, rule: str) -> pl.DataFrame:
    """Return the records that a rule dropped, did not sample, or repaired: `id, kind, source, line, detail`, as read.

    Raises:
        InputError: the rule did nothing in this build; names those that did.
    """
    fates = read_fates(build.path, ["row", "id", "kind", "source", "line", "fate", "rule", "detail", "repairs"])
    dropped = fates.filter((pl.col("rule") == rule) & (pl.col("fate") != KEPT))
    repairs = fates.explode("repairs", empty_as_null=False, keep_nulls=False).unnest("repairs", separator="_")
    repaired = repairs.filter(pl.col("repairs_rule") == rule).with_columns(detail=pl.col("repairs_detail"))
    columns = ["row", "id", "kind", "source", "line", "detail"]
    records = pl.concat([dropped.select(columns), repaired.select(columns)]).sort("row", maintain_order=True)
    if records.is_empty():
        known = {*fates.filter(pl.col("fate") != KEPT)["rule"], *repairs["repairs_rule"]}
        raise InputError(f"The rule '{excerpt(rule, 60)}' did nothing in {build.path}. {nearest(rule[:60], known)}")
    return records.drop("row")


def _matching(build: Build, fates: pl.DataFrame, record: str) -> pl.DataFrame:
    """Return the fates of the first of these that exists: a record of that id, the records at FILE:LINE, the kept
    conversations that contain a message of that id, the records of a tree of that id."""
    file, _, line = record.rpartition(":")
    conditions: list[Callable[[], pl.Expr]] = [
        lambda: pl.col("id") == record,
        lambda: (pl.col("source") == file) & (pl.col("line").cast(pl.String) == line),
        lambda: pl.col("id").is_in(_conversations_with(build, record)),
        lambda: pl.col("tree_id") == record,
    ]
    for condition in conditions:
        matches = fates.filter(condition())
        if not matches.is_empty():
            # A message on a path has the fate of its conversation.
            conversations = matches.filter(pl.col("rule") == "on_path")["survivor"]
            is_conversation = pl.col("id").is_in(conversations.implode()) & (pl.col("kind") == "conversation")
            return fates.filter(pl.col("row").is_in(matches["row"].implode()) | is_conversation)
    raise InputError(
        f"No record '{excerpt(record, 100)}' is in the fates of {build.path}: give the id of a conversation, a message or "
        "a tree, or FILE:LINE of a source."
    )


def _conversations_with(build: Build, message: str) -> list[str]:
    """Return the ids of the kept conversations that contain a message."""
    rows = pl.concat(pl.DataFrame(table.select(["id", "message_ids"])) for table in build.splits.values())
    return rows.filter(pl.col("message_ids").list.contains(message))["id"].to_list()


def _survivors(fates: pl.DataFrame, fate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the fates of a duplicate's survivor, of that one's survivor, and so on."""
    if fate["rule"] not in ("exact_duplicate", "near_duplicate"):
        return []
    conversations = fates.filter(pl.col("kind") == "conversation")
    chain: list[dict[str, Any]] = []
    known = {fate["id"]}
    # A survivor always precedes its duplicate in the order of preference, so a cycle means a forged file.
    while fate["survivor"] is not None and fate["survivor"] not in known:
        match = conversations.filter(pl.col("id") == fate["survivor"])
        if match.is_empty():
            break
        fate = match.row(0, named=True)
        known.add(fate["id"])
        chain.append({name: fate[name] for name in ("id", "fate", "stage", "rule", "survivor", "similarity")})
    return chain


def stages_before(stage: str | None) -> list[str]:
    """Return the stages before the one that assigned a fate; all of them for a kept record."""
    return list(STAGES[: STAGES.index(stage)] if stage in STAGES else STAGES)


def duplicate_clusters(build: Build) -> list[dict[str, Any]]:
    """Return the clusters of near-duplicates, largest first: `survivor, why, opening, members` (`id, similarity`)."""
    pairs = read_duplicates(build.path)
    if pairs is None:
        return []
    opening = pl.col("survivor_messages").list.first().struct.field("content").str.head(80)
    clusters = pairs.group_by("survivor", maintain_order=True).agg(
        why=pl.col("detail").str.extract(r"(kept for its .+)\.$", 1).unique(maintain_order=True).str.join("; "),
        opening=opening.first(),
        members=pl.struct("id", "similarity").sort_by("similarity", "id", descending=[True, False]),
    )
    return clusters.sort(pl.col("members").list.len(), "survivor", descending=[True, False]).to_dicts()
