"""Records of a prompt and its completion, each a text or a list of messages, as trl names them."""

from __future__ import annotations

from typing import Any

import polars as pl

from dataprep.sources.alpaca import convert_pairs, history_pairs, messages_of
from dataprep.sources.chat import decode_turns
from dataprep.sources.coercion import CoercionError
from dataprep.sources.options import ReadOptions
from dataprep.sources.records import text_of
from dataprep.sources.rows import ParsedRows
from dataprep.sources.schema import Column, Kind, Record, RecordSchema
from dataprep.sources.turns import CONTEXT_COLUMNS, RECORD_COLUMNS
from dataprep.tables import ASSISTANT, USER

SCHEMA = RecordSchema(
    (
        *RECORD_COLUMNS,
        *CONTEXT_COLUMNS,
        Column("prompt", required=True),
        Column("completion", required=True),
        Column("history", content=True, optional=True, kind=Kind.LINE),
    )
)


def is_completion(record: Record) -> bool:
    """Whether `record` has a prompt and a completion."""
    return all(isinstance(record.get(name), str | list) for name in ("prompt", "completion"))


def convert(rows: ParsedRows, options: ReadOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert rows of `SCHEMA` to conversations (as `turns.to_conversations` returns them) and rejects."""
    return convert_pairs(rows, rows.batch.column("prompt"), rows.batch.column("completion"))


def rewrite(record: Record) -> tuple[Any, dict[str, Any]]:
    """Split a record into its turns and its other keys.

    Raises:
        CoercionError: the prompt or the completion is missing, or neither a text nor a list of messages.
    """
    earlier = messages_of(history_pairs(record))
    turns = [*earlier, *turns_of(record, "prompt", USER), *turns_of(record, "completion", ASSISTANT)]
    return turns, {name: value for name, value in record.items() if name not in ("prompt", "completion", "history")}


def turns_of(record: Record, name: str, role: str) -> list[Any]:
    """Return the messages in a key of a record; a text becomes one message of `role`.

    Raises:
        CoercionError: the key is missing, or neither a text nor a list of messages.
    """
    value = decode_turns(record.get(name))
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return value
    if isinstance(value, dict) and ("role" in value or "from" in value):
        return [value]
    if isinstance(value, list) and value and len(value) > 1:
        raise CoercionError(f"has a list of {len(value)} texts in '{name}'", "unsupported_field")
    return [{"role": role, "content": text_of(record, name)}]
