"""The three tables that travel through a build, and the words used in them.

* **messages**: one row a message of a tree (OASST), before threads are chosen;
* **conversations**: one row a conversation, from the threads stage to the shards;
* **fates**: one row for each conversation, and for each record that is none by itself.

Schemas are constants; every stage casts at its border with `conform`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import polars as pl

USER = "user"
ASSISTANT = "assistant"
SYSTEM = "system"
ROLES = (SYSTEM, USER, ASSISTANT)

# OASST's labels, each a mean of reviewers' votes in 0..1. Of a conversation, the worst counts: the least
# of the wanted ones (over its answers) and the largest of the unwanted ones (over all its messages).
WANTED_LABELS = ("quality", "helpfulness")
UNWANTED_LABELS = (
    "toxicity",
    "spam",
    "fails_task",
    "lang_mismatch",
    "pii",
    "not_appropriate",
    "hate_speech",
    "sexual_content",
    "violence",
)
LABELS = WANTED_LABELS + UNWANTED_LABELS

_LABEL_COLUMNS: dict[str, pl.DataType] = {name: pl.Float32() for name in LABELS}

TURNS = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
REPAIRS = pl.List(pl.Struct({"rule": pl.String, "detail": pl.String}))

# `file` counts the source files from 0 and `line` the records of a file from 1 (line of a JSONL, element
# of a JSON array, row of a Parquet or Arrow file); `source` is the file's name as a person knows it.
MESSAGES: dict[str, pl.DataType] = {
    "file": pl.Int32(),
    "source": pl.String(),
    "line": pl.Int64(),
    "tree_id": pl.String(),
    "tree_state": pl.String(),  # null: not told
    "message_id": pl.String(),
    "parent_id": pl.String(),  # null: the root
    "role": pl.String(),  # user, assistant, or whatever else was found
    "content": pl.String(),
    "lang": pl.String(),
    "rank": pl.Int32(),  # 0 is best; null: an only child, a prompt, or an old export
    "deleted": pl.Boolean(),  # null: not told
    "review_result": pl.Boolean(),  # null: not reviewed
    "review_count": pl.Int32(),
    **_LABEL_COLUMNS,  # null: nobody voted
}

CONVERSATIONS: dict[str, pl.DataType] = {
    "row": pl.Int64(),  # unique; the place among all that was read
    "id": pl.String(),  # unique among conversations
    "tree_id": pl.String(),  # its tree; its own id where the format has no trees
    "file": pl.Int32(),
    "source": pl.String(),
    "line": pl.Int64(),
    "lang": pl.String(),
    "messages": TURNS,
    "message_ids": pl.List(pl.String),  # every source message, in order; empty where the format has none
    "rank": pl.Int32(),  # of the last answer; null: not told
    "review_count": pl.Int32(),  # the least over its messages; null: not told
    "accepted": pl.Boolean(),  # every message passed review; null: not told of one
    **_LABEL_COLUMNS,
    "repairs": REPAIRS,
}

FATES: dict[str, pl.DataType] = {
    "row": pl.Int64(),  # unique
    "id": pl.String(),  # the conversation's, message's or tree's id; null for a line that has none
    "kind": pl.String(),  # conversation, tree, message or line
    "source": pl.String(),
    "line": pl.Int64(),
    "tree_id": pl.String(),
    "fate": pl.String(),  # kept, dropped or not_sampled
    "stage": pl.String(),  # read, threads, rules, dedup, select, render or kept
    "rule": pl.String(),
    "detail": pl.String(),
    "survivor": pl.String(),  # id of the conversation that stays in its place; of `on_path`, that it is part of
    "similarity": pl.Float64(),  # exact, 0..1
    "repairs": REPAIRS,
}

KEPT = "kept"
DROPPED = "dropped"
NOT_SAMPLED = "not_sampled"

R = TypeVar("R")


class StageResult(NamedTuple, Generic[R]):
    """What a stage of the pipeline returns: every conversation that it was given is in `kept` or in `fates`."""

    kept: pl.DataFrame  # CONVERSATIONS
    fates: pl.DataFrame = pl.DataFrame(schema=FATES)  # a frame is never changed in place
    notes: Sequence[str] = ()  # sentences for the readers of the report
    report: R = None  # type: ignore[assignment]  # figures for the manifest, of the stages that have any


def conform(frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """`frame` with exactly the columns of `schema`, in its order and types; missing ones are null."""
    have = frame.schema
    return frame.select(
        (pl.col(name).cast(kind) if name in have else pl.lit(None, dtype=kind).alias(name))
        for name, kind in schema.items()
    )


def no_fates() -> pl.DataFrame:
    """An empty fates frame."""
    return pl.DataFrame(schema=FATES)


def fated(frame: pl.DataFrame, kind: str, fate: str, stage: str, rule: str | None = None) -> pl.DataFrame:
    """Fates of all rows of `frame`, which is at `stage`.

    `frame` has any of the columns of `FATES`; `rule`, where given, holds for all rows, else it is a column.
    """
    marks = [pl.lit(kind).alias("kind"), pl.lit(fate).alias("fate"), pl.lit(stage).alias("stage")]
    if rule is not None:
        marks.append(pl.lit(rule).alias("rule"))
    return conform(frame.with_columns(marks), FATES)


def dropped(frame: pl.DataFrame, kind: str, stage: str, rule: str | None = None) -> pl.DataFrame:
    """Fates of all rows of `frame`, dropped at `stage`; as `fated`."""
    return fated(frame, kind, DROPPED, stage, rule)
