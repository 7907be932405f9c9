"""The three tables that the stages of a build pass on, and the terms used in them.

* **messages**: one row for each message of a tree (OASST), before threads are chosen;
* **conversations**: one row for each conversation, from the threads stage to the shards;
* **fates**: one row for each conversation, and for each record that never became part of one.

Schemas are constants, and every stage casts its result with `conform`. Conversations have further message fields
(`MESSAGE_FIELDS`) and columns (`OPTIONAL_COLUMNS`) only where some record of the build has a value there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Generic, NamedTuple, TypeVar

import polars as pl

USER = "user"
ASSISTANT = "assistant"
SYSTEM = "system"
TOOL = "tool"
ROLES = (SYSTEM, USER, ASSISTANT)  # of a plain conversation; TOOL gives the result of a call

# OASST's labels: means of reviewers' votes, 0 to 1. A conversation has the worst value of its messages: the minimum of a
# wanted label (over its answers) and the maximum of an unwanted one (over all its messages).
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

# The fields of a message, in order. Every conversation has `role` and `content`; each other field exists only if some
# record of the build has a value there. Names and values are those that chat templates read.
MESSAGE_FIELDS: dict[str, pl.DataType] = {
    "role": pl.String(),  # one of ROLES, or TOOL
    "content": pl.String(),  # never null once read; "" for a turn that only calls tools
    "reasoning_content": pl.String(),
    "tool_calls": pl.String(),  # JSON: [{"type": "function", "id": …, "function": {"name": …, "arguments": {…}}}, …]
    "name": pl.String(),
    "tool_call_id": pl.String(),  # of a tool's result
    "trained": pl.Boolean(),  # false: an answer that is context only; null: the default, answers are trained
}
REQUIRED_FIELDS = ("role", "content")


def turns_type(fields: Iterable[str]) -> pl.List:
    """The type of the column `messages` with these of `MESSAGE_FIELDS`, put in their order.

    Raises:
        ValueError: names a field that messages cannot have.
    """
    wanted = {*REQUIRED_FIELDS, *fields}
    if unknown := wanted - set(MESSAGE_FIELDS):
        raise ValueError(f"messages have no field {', '.join(sorted(unknown))}; known are {', '.join(MESSAGE_FIELDS)}")
    return pl.List(pl.Struct({name: kind for name, kind in MESSAGE_FIELDS.items() if name in wanted}))


TURNS = turns_type(REQUIRED_FIELDS)
REPAIRS = pl.List(pl.Struct({"rule": pl.String, "detail": pl.String}))

# `file` counts the source files from 0 and `line` the records of a file from 1 (line of a JSONL, element
# of a JSON array, row of a Parquet or Arrow file); `source` is the name of the file for people.
MESSAGES: dict[str, pl.DataType] = {
    "file": pl.Int32(),
    "source": pl.String(),
    "line": pl.Int64(),
    "tree_id": pl.String(),
    "tree_state": pl.String(),  # null: unknown
    "message_id": pl.String(),
    "parent_id": pl.String(),  # null: the root
    "role": pl.String(),  # user, assistant, or any other text that the source has
    "content": pl.String(),
    "lang": pl.String(),
    "rank": pl.Int32(),  # 0 is best; null: an only child, a prompt, or an old export
    "deleted": pl.Boolean(),  # null: unknown
    "review_result": pl.Boolean(),  # null: not reviewed
    "review_count": pl.Int32(),
    **_LABEL_COLUMNS,  # null: no votes
}

CONVERSATIONS: dict[str, pl.DataType] = {
    "row": pl.Int64(),  # unique; the position among all conversations read
    "id": pl.String(),  # unique among conversations
    "tree_id": pl.String(),  # its tree; its own id where the format has no trees
    "file": pl.Int32(),
    "source": pl.String(),
    "line": pl.Int64(),
    "lang": pl.String(),
    "messages": TURNS,  # with the further fields that are present
    "message_ids": pl.List(pl.String),  # every source message, in order; empty where the format has none
    "rank": pl.Int32(),  # of the last answer; null: unknown
    "review_count": pl.Int32(),  # minimum over its messages; null: unknown
    "accepted": pl.Boolean(),  # whether every message passed review; null: unknown for one of them
    **_LABEL_COLUMNS,
    "repairs": REPAIRS,
}

# Columns of conversations that exist only if some record has a value there.
OPTIONAL_COLUMNS: dict[str, pl.DataType] = {
    "tools": pl.String(),  # JSON: [{"type": "function", "function": {…}}, …], the tools that the model may call
    "split": pl.String(),  # the source's own split, with --split keep
}

FATES: dict[str, pl.DataType] = {
    "row": pl.Int64(),  # unique
    "id": pl.String(),  # of the conversation, message or tree; null for a line that has none
    "kind": pl.String(),  # conversation, tree, message or line
    "source": pl.String(),
    "line": pl.Int64(),
    "tree_id": pl.String(),
    "fate": pl.String(),  # kept, dropped or not_sampled
    "stage": pl.String(),  # read, threads, rules, dedup, render, select or kept
    "rule": pl.String(),
    "detail": pl.String(),
    "survivor": pl.String(),  # id of the conversation kept in its place; for `on_path`, the one that it is part of
    "similarity": pl.Float64(),  # exact, 0 to 1
    "repairs": REPAIRS,
}

KEPT = "kept"
DROPPED = "dropped"
NOT_SAMPLED = "not_sampled"

R = TypeVar("R")


class StageResult(NamedTuple, Generic[R]):
    """What a stage of the pipeline returns: every conversation that it was given is in `kept` or in `fates`."""

    kept: pl.DataFrame  # CONVERSATIONS
    fates: pl.DataFrame = pl.DataFrame(schema=FATES)  # frames are never changed in place
    notes: Sequence[str] = ()  # sentences for the readers of the report
    report: R = None  # type: ignore[assignment]  # figures for the manifest, of the stages that have any


def conform(frame: pl.DataFrame, schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """Return `frame` with exactly the columns of `schema`, in its order and types; missing ones are null.

    Conversations keep the message fields and optional columns that they have.

    Raises:
        ValueError: messages have a field that is not one of `MESSAGE_FIELDS`.
    """
    present = frame.schema
    if schema is CONVERSATIONS:
        schema = _conversations_schema(message_fields(frame), OPTIONAL_COLUMNS.keys() & present.keys())
    return frame.select(
        (pl.col(name).cast(kind) if name in present else pl.lit(None, dtype=kind).alias(name))
        for name, kind in schema.items()
    )


def message_fields(frame: pl.DataFrame) -> tuple[str, ...]:
    """The fields that the messages of a conversations frame have, in the order of `MESSAGE_FIELDS`.

    Raises:
        ValueError: a field that messages cannot have.
    """
    kind = frame.schema.get("messages")
    inner = kind.inner if isinstance(kind, pl.List) else None
    names = [field.name for field in inner.fields] if isinstance(inner, pl.Struct) else REQUIRED_FIELDS
    turn = turns_type(names).inner
    assert isinstance(turn, pl.Struct)
    return tuple(field.name for field in turn.fields)


def concat_conversations(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate conversations frames that may have different message fields and optional columns; absent ones are null."""
    fields = {field for frame in frames for field in message_fields(frame)}
    columns = {name for frame in frames for name in OPTIONAL_COLUMNS if name in frame.columns}
    schema = _conversations_schema(fields, columns)
    return pl.concat([conform(frame, schema) for frame in frames]) if frames else pl.DataFrame(schema=schema)


def without_absent_fields(conversations: pl.DataFrame) -> pl.DataFrame:
    """Remove the message fields and optional columns in which no conversation of the frame has a value.

    A build then depends on the conversations that it keeps only, not on those that were dropped.
    """
    fields = message_fields(conversations)
    extra = fields[len(REQUIRED_FIELDS) :]
    if extra:
        turns = conversations["messages"].explode(empty_as_null=False, keep_nulls=False).struct
        extra = tuple(name for name in extra if turns.field(name).null_count() < len(turns.field(name)))
    columns = [
        name for name in OPTIONAL_COLUMNS if name in conversations.columns and conversations[name].is_not_null().any()
    ]
    return conform(conversations, _conversations_schema(extra, columns))


def _conversations_schema(fields: Iterable[str], columns: Iterable[str]) -> dict[str, pl.DataType]:
    wanted = set(columns)
    return {
        **CONVERSATIONS,
        "messages": turns_type(fields),
        **{name: kind for name, kind in OPTIONAL_COLUMNS.items() if name in wanted},
    }


def no_fates() -> pl.DataFrame:
    """An empty fates frame."""
    return pl.DataFrame(schema=FATES)


def fated(frame: pl.DataFrame, kind: str, fate: str, stage: str, rule: str | None = None) -> pl.DataFrame:
    """Return the fates of all rows of `frame`.

    Args:
        frame: has any of the columns of `FATES`.
        kind: conversation, tree, message or line.
        fate: kept, dropped or not_sampled.
        stage: the stage that assigns the fates.
        rule: holds for all rows; None if `frame` has the column `rule`.
    """
    constants = [pl.lit(kind).alias("kind"), pl.lit(fate).alias("fate"), pl.lit(stage).alias("stage")]
    if rule is not None:
        constants.append(pl.lit(rule).alias("rule"))
    return conform(frame.with_columns(constants), FATES)


def dropped(frame: pl.DataFrame, kind: str, stage: str, rule: str | None = None) -> pl.DataFrame:
    """Return the fates of all rows of `frame`, dropped at `stage`; arguments as for `fated`."""
    return fated(frame, kind, DROPPED, stage, rule)
