"""JSON, one record a line: by columns where it is sound, line by line where it is not.

A block of whole lines goes through `pyarrow.json` with the format's explicit schema, which is strict (changed
types, repeated keys, half lines, lone surrogates, raw control characters all fail the block). What it does not
check is checked here: UTF-8 inside strings, and that each line holds exactly one record. A block that fails is cut
into small pieces, and only the pieces that fail again are read line by line, so one bad line costs a few of its
neighbours, not the block.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.json

from dataprep.sources.rows import Lines, Rows, Unfit, Untold, coerced, complete, in_schema, readable, rejects

PIECE = 1 << 16  # bytes; a piece costs 0.1 ms by columns and about 1 ms line by line

_NEWLINE, _RETURN, _OPEN, _CLOSE, _SPACE = b"\n\r{} "


class Block(NamedTuple):
    """Whole lines of a file. `line` is the number of the first; `done` the bytes of the file read so far."""

    data: bytes
    line: int
    done: int
    fault: str = ""  # why the file broke off after these lines; its last line was lost then


def parse(block: Block, schema: pa.Schema, read_as: pa.Schema) -> Rows:
    """All records of `block` that fit `schema`, in order; the other ones are among the rejects.

    Args:
        block: whole lines.
        schema: the format's.
        read_as: the same columns, of the types that this file has them in.
    """
    rows = _by_columns(block, schema, read_as)
    if rows is None:
        pieces = _pieces(block)
        rows = joined([_by_columns(piece, schema, read_as) or _by_lines(piece, schema) for piece in pieces], schema)
    return complete(rows, schema)


def spans(data: bytes) -> tuple[Lines, Lines, Lines]:
    """Start, end and number (from 0) of each line of `data` that is not empty; line ends are not in it."""
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    if data and not data.endswith(b"\n"):
        ends = np.append(ends, len(text))
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    ends = ends - ((ends > starts) & (text[ends - 1] == _RETURN))
    number = np.flatnonzero(ends > starts)
    return starts[number], ends[number], number


def count_records(data: bytes) -> int:
    """Lines of `data` that are not blank: the records that it holds, whether or not they can be read."""
    starts, ends, _ = spans(data)
    led = np.frombuffer(data, np.uint8)[starts] <= _SPACE  # the few that begin with white space may be nothing else
    blank = sum(
        not data[start:end].strip() for start, end in zip(starts[led].tolist(), ends[led].tolist(), strict=True)
    )
    return len(starts) - blank


def count_lines(data: bytes) -> int:
    """Line ends in `data`; three times as fast as `bytes.count`, which also holds Python's lock."""
    return int(np.count_nonzero(np.frombuffer(data, np.uint8) == _NEWLINE))


def lines(block: Block) -> Iterator[tuple[int, bytes]]:
    """Number and bytes of each line of `block` that is not blank."""
    starts, ends, number = spans(block.data)
    for line, start, end in zip((number + block.line).tolist(), starts.tolist(), ends.tolist(), strict=True):
        if record := block.data[start:end].strip():
            yield line, record


def joined(parts: list[Rows], schema: pa.Schema) -> Rows:
    """Rows one after another, as one batch."""
    table = pa.Table.from_batches([part.batch for part in parts], readable(schema)).combine_chunks()
    batches = table.to_batches()
    batch = batches[0] if batches else _no_rows(schema)
    lines, lost = np.concatenate([part.line for part in parts]), pl.concat([part.rejects for part in parts])
    return Rows(batch, lines, lost, sum((part.untold for part in parts), Untold()))


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    schema = readable(schema)
    return pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def _by_columns(block: Block, schema: pa.Schema, read_as: pa.Schema) -> Rows | None:
    """The records of `block`, or None where any of them needs a closer look.

    A line that begins with `{` and ends with `}` holds whole records only: between a `}` and a `{` of one record
    there is always a comma. So as many rows as lines means one record in each line.
    """
    starts, ends, number = spans(block.data)
    if not len(number):
        return Rows(_no_rows(schema), number, rejects(), Untold())
    text = np.frombuffer(block.data, np.uint8)
    if not ((text[starts] == _OPEN).all() and (text[ends - 1] == _CLOSE).all()):
        return None
    try:
        pl.Series([block.data], dtype=pl.Binary).cast(
            pl.String
        )  # is it UTF-8? Arrow would take ten times as long to say
        table = pa.json.read_json(
            pa.BufferReader(block.data),
            # one chunk and one thread: blocks run beside each other, and a chunk is what formats work on
            pa.json.ReadOptions(use_threads=False, block_size=max(len(block.data), 1)),
            pa.json.ParseOptions(explicit_schema=readable(read_as), unexpected_field_behavior="ignore"),
        )
        [batch] = table.to_batches()
        batch, untold = in_schema(batch, schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pl.exceptions.ComputeError):
        return None
    return Rows(batch, number + block.line, rejects(), untold) if len(batch) == len(number) else None


def _pieces(block: Block) -> Iterator[Block]:
    """`block` cut at line ends into pieces of about `PIECE` bytes."""
    start, line = 0, block.line
    while start < len(block.data):
        end = block.data.find(b"\n", start + PIECE) + 1 or len(block.data)
        piece = block.data[start:end]
        yield Block(piece, line, block.done)
        start, line = end, line + count_lines(piece)


def _by_lines(block: Block, schema: pa.Schema) -> Rows:
    """The records of `block` one by one: only for pieces in which at least one record fits no column."""
    rows: list[dict[str, Any]] = []
    kept: list[int] = []
    bad: list[tuple[int, str, str]] = []
    untold = Untold()
    for line, data in lines(block):
        record, rule, detail = decoded(data)
        if record is not None:
            try:
                rows.append(coerced(record, schema, untold))
                kept.append(line)
                continue
            except Unfit as fault:
                rule, detail = "wrong_schema", str(fault)
        bad.append((line, rule, detail))
    batch = pa.RecordBatch.from_pylist(rows, readable(schema))
    return Rows(batch, np.array(kept, np.int64), rejects(bad), untold)


def decoded(data: bytes) -> tuple[dict[str, Any] | None, str, str]:
    """The JSON object in `data`, or None with the rule and the detail of what is wrong with it.

    The standard library's decoder, because it alone reads a lone surrogate's escape instead of refusing the line.
    """
    try:
        record = json.loads(data.decode())
    except UnicodeDecodeError as fault:
        return None, "bad_utf8", f"byte 0x{data[fault.start]:02x} at byte {fault.start + 1} of the line is no UTF-8"
    except json.JSONDecodeError as fault:
        return None, "bad_json", f"{fault.msg} at character {fault.pos + 1} of {len(fault.doc)}"
    except RecursionError:
        return None, "too_deep", "is nested too deeply to be read"
    except ValueError as fault:  # a number of thousands of digits
        return None, "bad_json", str(fault)
    if not isinstance(record, dict):
        return None, "wrong_schema", f"is a JSON {_JSON_TYPES.get(type(record), 'null')}, not an object"
    return record, "", ""


_JSON_TYPES = {list: "array", str: "string", int: "number", float: "number", bool: "boolean"}
