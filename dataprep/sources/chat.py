"""Chat formats: OpenAI's `messages`, ShareGPT's `conversations`, Alpaca's `instruction, input, output`.

A turn is `{role, content}` or `{from, value}`, in either column: both are met in the wild.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import numbers, numpied, strings
from dataprep.sources.rows import CONTENT, Rows, reject
from dataprep.sources.turns import FACTS, Turns, conversations, standard_roles
from dataprep.tables import ASSISTANT, USER

_TURN = pa.struct([(name, pa.string()) for name in ("role", "content", "from", "value")])

MESSAGES_SCHEMA = pa.schema([*FACTS, pa.field("messages", pa.list_(_TURN), nullable=False)])
SHAREGPT_SCHEMA = pa.schema([*FACTS, pa.field("conversations", pa.list_(_TURN), nullable=False)])
ALPACA_SCHEMA = pa.schema(
    [
        *FACTS,
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("input", pa.string(), metadata=CONTENT),
        pa.field("output", pa.string(), nullable=False),
    ]
)


def recognise_messages(record: Mapping[str, Any]) -> bool:
    """Whether `record` has OpenAI's `messages`."""
    return _has_turns(record.get("messages"))


def recognise_sharegpt(record: Mapping[str, Any]) -> bool:
    """Whether `record` has ShareGPT's `conversations`."""
    return _has_turns(record.get("conversations"))


def recognise_alpaca(record: Mapping[str, Any]) -> bool:
    """Whether `record` has Alpaca's `instruction` and `output`."""
    return isinstance(record.get("instruction"), str) and isinstance(record.get("output"), str)


def convert_messages(rows: Rows) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Conversations (as `turns.conversations` has them) and rejects of rows of `MESSAGES_SCHEMA`."""
    return _convert(rows, "messages")


def convert_sharegpt(rows: Rows) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Conversations (as `turns.conversations` has them) and rejects of rows of `SHAREGPT_SCHEMA`."""
    return _convert(rows, "conversations")


def convert_alpaca(rows: Rows) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Conversations (as `turns.conversations` has them) and rejects of rows of `ALPACA_SCHEMA`.

    The question is the instruction, a blank line, and the input where that is not blank.
    """
    batch = rows.batch
    instruction, extra = batch.column("instruction"), pc.coalesce(batch.column("input"), "")
    blank = pc.equal(pc.utf8_trim_whitespace(extra), "")
    question = pc.if_else(blank, instruction, pc.binary_join_element_wise(instruction, extra, "\n\n"))
    count = len(batch)
    # questions first, answers behind them, then each question followed by its answer
    both = pa.concat_arrays([question, batch.column("output")])
    contents = both.take(numbers(np.arange(2 * count).reshape(2, count).T.ravel()))
    roles = strings([USER, ASSISTANT]).take(numbers(np.arange(2 * count) % 2))
    turns = Turns(roles, contents, np.arange(0, 2 * count + 1, 2, dtype=np.int32))
    return conversations(rows, turns), rows.rejects


def _convert(rows: Rows, column: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A turn without content (an assistant that only calls a tool) has an empty one, which the rules judge."""
    rows = _speaking(rows, column)
    lists = rows.batch.column(column)
    turn = lists.flatten()
    contents = pc.coalesce(pc.struct_field(turn, "content"), pc.struct_field(turn, "value"), "")
    roles = standard_roles(_role(turn))
    offsets = numpied(lists.offsets)
    return conversations(rows, Turns(roles, contents, offsets - offsets[0])), rows.rejects


def _speaking(rows: Rows, column: str) -> Rows:
    """`rows` less those with a turn that has no role: they fit no schema."""
    lists = rows.batch.column(column)
    speakerless = _role(lists.flatten()).is_null()
    bad = np.zeros(len(lists), np.bool_)
    bad[numpied(pc.list_parent_indices(lists).filter(speakerless))] = True
    return reject(rows, bad, "wrong_schema", "has a turn without a role")


def _role(turn: pa.StructArray) -> pa.StringArray:
    return pc.coalesce(*(pc.struct_field(turn, name) for name in ("role", "from")))


def _has_turns(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return not value or (isinstance(value[0], dict) and ("role" in value[0] or "from" in value[0]))
