"""Alpaca's format: one question and answer in each record, as `instruction`, `input` and `output`.

A record may have a system text, and earlier questions and answers in `history`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import numbers, strings
from dataprep.sources.chat import add_context
from dataprep.sources.coercion import CoercionError, excerpt_json, has_value
from dataprep.sources.options import ReadOptions
from dataprep.sources.records import text_of
from dataprep.sources.rows import FieldCounts, ParsedRows, Problems, reject
from dataprep.sources.schema import Column, Kind, Record, RecordSchema
from dataprep.sources.turns import CONTEXT_COLUMNS, RECORD_COLUMNS, Turns, to_conversations
from dataprep.tables import ASSISTANT, USER

SCHEMA = RecordSchema(
    (
        *RECORD_COLUMNS,
        *CONTEXT_COLUMNS,
        Column("instruction", required=True),
        Column("input", content=True),
        Column("output", required=True),
        Column("history", content=True, optional=True, kind=Kind.LINE),
    )
)
_KEYS = ("instruction", "input", "output", "history")


def is_alpaca(record: Record) -> bool:
    """Whether `record` has Alpaca's `instruction` and `output`."""
    return isinstance(record.get("instruction"), str) and isinstance(record.get("output"), str | list)


def convert(rows: ParsedRows, options: ReadOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert rows of `SCHEMA` to conversations (as `turns.to_conversations` returns them) and rejects.

    The question is the instruction, followed by a blank line and the input if the input is not blank.
    """
    batch = rows.batch
    instruction, extra = batch.column("instruction"), pc.coalesce(batch.column("input"), "")
    is_blank = pc.equal(pc.utf8_trim_whitespace(extra), "")
    question = pc.if_else(is_blank, instruction, pc.binary_join_element_wise(instruction, extra, "\n\n"))
    return convert_pairs(rows, question, batch.column("output"))


def convert_pairs(
    rows: ParsedRows, questions: pa.StringArray, answers: pa.StringArray
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert rows with one question and one answer each to conversations and rejects."""
    count = len(questions)
    # all questions, then all answers; then interleave them: each question is followed by its answer
    texts = pa.concat_arrays([questions, answers])
    contents = texts.take(numbers(np.arange(2 * count).reshape(2, count).T.ravel()))
    roles = strings([USER, ASSISTANT]).take(numbers(np.arange(2 * count) % 2))
    turns = Turns(roles, contents, np.arange(0, 2 * count + 1, 2, dtype=np.int32))
    problems: Problems = {}
    counts = FieldCounts()
    turns, tools = add_context(rows.batch, turns, counts, problems)
    if problems:
        kept = numbers(~np.isin(np.arange(count), list(problems)))
        return convert_pairs(reject(rows, problems), questions.filter(kept), answers.filter(kept))
    rows.counts.add(counts)
    return to_conversations(rows, turns, tools), rows.rejects


def rewrite(record: Record) -> tuple[Any, dict[str, Any]]:
    """Split a record into its turns and its other keys.

    Raises:
        CoercionError: a text is missing or not text, or the history is not a list of pairs.
    """
    instruction = text_of(record, "instruction")
    extra = text_of(record, "input") if has_value(record.get("input")) else ""
    question = f"{instruction}\n\n{extra}" if extra.strip() else instruction
    pairs = [*history_pairs(record), (question, text_of(record, "output"))]
    return messages_of(pairs), {name: value for name, value in record.items() if name not in _KEYS}


def messages_of(pairs: list[tuple[str, str]]) -> list[dict[str, str]]:
    """Return the messages of questions and answers."""
    return [
        {"role": role, "content": text} for pair in pairs for role, text in zip((USER, ASSISTANT), pair, strict=True)
    ]


def history_pairs(record: Record) -> list[tuple[str, str]]:
    """Return the earlier questions and answers of a record.

    Raises:
        CoercionError: `history` is not a list of pairs of texts.
    """
    history = record.get("history")
    if history is None or history == "":
        return []
    if not isinstance(history, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair) for pair in history
    ):
        raise CoercionError(f"'history' is not a list of [question, answer]: {excerpt_json(history)}")
    return [(question, answer) for question, answer in history]
