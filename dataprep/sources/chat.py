"""Chat formats with a list of turns: OpenAI's `messages` and ShareGPT's `conversations`.

A turn is `{role, content}` or `{from, value}`; data sets use either shape in either column.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import to_numpy
from dataprep.sources.rows import ParsedRows, reject
from dataprep.sources.turns import RECORD_FIELDS, Turns, standard_roles, to_conversations

_TURN = pa.struct([(name, pa.string()) for name in ("role", "content", "from", "value")])

MESSAGES_SCHEMA = pa.schema([*RECORD_FIELDS, pa.field("messages", pa.list_(_TURN), nullable=False)])
SHAREGPT_SCHEMA = pa.schema([*RECORD_FIELDS, pa.field("conversations", pa.list_(_TURN), nullable=False)])


def is_messages(record: Mapping[str, Any]) -> bool:
    """Whether `record` has OpenAI's `messages`."""
    return _is_list_of_turns(record.get("messages"))


def is_sharegpt(record: Mapping[str, Any]) -> bool:
    """Whether `record` has ShareGPT's `conversations`."""
    return _is_list_of_turns(record.get("conversations"))


def convert_messages(rows: ParsedRows) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert rows of `MESSAGES_SCHEMA` to conversations (as `turns.to_conversations` returns them) and rejects."""
    return _convert(rows, "messages")


def convert_sharegpt(rows: ParsedRows) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert rows of `SHAREGPT_SCHEMA` to conversations (as `turns.to_conversations` returns them) and rejects."""
    return _convert(rows, "conversations")


def _convert(rows: ParsedRows, column: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A turn without content, such as an assistant turn that only calls a tool, gets an empty one."""
    rows = _reject_turns_without_role(rows, column)
    lists = rows.batch.column(column)
    turn = lists.flatten()
    contents = pc.coalesce(pc.struct_field(turn, "content"), pc.struct_field(turn, "value"), "")
    roles = standard_roles(_role(turn))
    offsets = to_numpy(lists.offsets)
    return to_conversations(rows, Turns(roles, contents, offsets - offsets[0])), rows.rejects


def _reject_turns_without_role(rows: ParsedRows, column: str) -> ParsedRows:
    lists = rows.batch.column(column)
    without_role = _role(lists.flatten()).is_null()
    is_bad = np.zeros(len(lists), np.bool_)
    is_bad[to_numpy(pc.list_parent_indices(lists).filter(without_role))] = True
    return reject(rows, is_bad, "wrong_schema", "has a turn without a role")


def _role(turn: pa.StructArray) -> pa.StringArray:
    return pc.coalesce(*(pc.struct_field(turn, name) for name in ("role", "from")))


def _is_list_of_turns(value: Any) -> bool:
    if not isinstance(value, list):
        return False
    return not value or (isinstance(value[0], dict) and ("role" in value[0] or "from" in value[0]))
