"""Alpaca's format: one question and answer in each record, as `instruction`, `input` and `output`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import numbers, strings
from dataprep.sources.rows import CONTENT, ParsedRows
from dataprep.sources.turns import RECORD_FIELDS, Turns, to_conversations
from dataprep.tables import ASSISTANT, USER

SCHEMA = pa.schema(
    [
        *RECORD_FIELDS,
        pa.field("instruction", pa.string(), nullable=False),
        pa.field("input", pa.string(), metadata=CONTENT),
        pa.field("output", pa.string(), nullable=False),
    ]
)


def is_alpaca(record: Mapping[str, Any]) -> bool:
    """Whether `record` has Alpaca's `instruction` and `output`."""
    return isinstance(record.get("instruction"), str) and isinstance(record.get("output"), str)


def convert(rows: ParsedRows) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert rows of `SCHEMA` to conversations (as `turns.to_conversations` returns them) and rejects.

    The question is the instruction, followed by a blank line and the input if the input is not blank.
    """
    batch = rows.batch
    instruction, extra = batch.column("instruction"), pc.coalesce(batch.column("input"), "")
    is_blank = pc.equal(pc.utf8_trim_whitespace(extra), "")
    question = pc.if_else(is_blank, instruction, pc.binary_join_element_wise(instruction, extra, "\n\n"))
    count = len(batch)
    # all questions, then all answers; then interleave them: each question is followed by its answer
    texts = pa.concat_arrays([question, batch.column("output")])
    contents = texts.take(numbers(np.arange(2 * count).reshape(2, count).T.ravel()))
    roles = strings([USER, ASSISTANT]).take(numbers(np.arange(2 * count) % 2))
    turns = Turns(roles, contents, np.arange(0, 2 * count + 1, 2, dtype=np.int32))
    return to_conversations(rows, turns), rows.rejects
