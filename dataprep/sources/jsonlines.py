"""Parse JSON with one record a line: by columns where the lines are sound, line by line where they are not.

`pyarrow.json` parses a block of whole lines with the format's explicit schema, and infers the types of other keys, so
that their values are counted by columns as well. It is strict: changed types, repeated keys, incomplete lines, lone
surrogates and raw control characters all make the block fail. Two checks that it does not make are made here: UTF-8
inside strings, and that each line holds exactly one record. A block that fails is cut into small pieces, and only the
pieces that fail again are read line by line, so a bad line slows down a few of its neighbours and not the whole block.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.json

from dataprep.sources.coercion import CoercionError
from dataprep.sources.columns import CONVERSION_ERRORS, NeedsLineReader, convert_batch
from dataprep.sources.records import convert_record, to_batch
from dataprep.sources.rows import Fault, FieldCounts, Lines, ParsedRows, reject_incomplete, rejects
from dataprep.sources.schema import Parsing

# In a block that is parsed by columns: each of them costs a value in every row, even where it is missing.
MAX_FIELDS = 500
_FEW_KEYS = 4
_SAMPLE_STEP = 1 << 16  # bytes between the lines whose keys are counted beforehand
PIECE = 1 << 16  # bytes; a piece takes 0.1 ms by columns and about 1 ms line by line
TOO_DEEP = "is nested too deeply"

_NEWLINE, _RETURN, _OPEN, _CLOSE, _SPACE = b"\n\r{} "


class LineBounds(NamedTuple):
    """Where the lines of some text are: start, end and number (from 0) of each line that is not empty, without line ends."""

    starts: Lines
    ends: Lines
    numbers: Lines
    line_ends: int  # number of line ends in the text


@dataclass(frozen=True)
class Block:
    """Whole lines of a file. `line` numbers the first line, from 1; `done` counts the bytes of the file read so far."""

    data: bytes
    line: int
    done: int
    fault: str = ""  # why one record is lost after these lines, at line `line` if there are none; empty if none is
    rule: str = "truncated"  # the rule that drops this record
    rejected: tuple[Fault, ...] = ()  # of records that the container cannot read

    @cached_property
    def bounds(self) -> LineBounds:
        """Where the lines are."""
        return line_bounds(self.data)

    def count_records(self) -> int:
        """Count the lines that are not blank: the records, whether or not they can be parsed."""
        starts, ends, *_ = self.bounds
        # only lines that begin with white space can be blank, and few do
        suspect = np.frombuffer(self.data, np.uint8)[starts] <= _SPACE
        suspects = zip(starts[suspect].tolist(), ends[suspect].tolist(), strict=True)
        return len(starts) - sum(not self.data[start:end].strip() for start, end in suspects)


def parse(block: Block, parsing: Parsing) -> list[ParsedRows]:
    """Parse the records of `block` in order; those that do not fit their schema become rejects."""
    try:
        rows = _parse_by_columns(block, parsing)
    except NeedsLineReader:
        return [_parse_by_lines(block, parsing)]
    if rows is not None:
        return [rows]
    parts: list[ParsedRows] = []
    failed: list[Block] = []
    for piece in _pieces(block):
        rows = _parse_piece(piece, parsing)
        if rows is None:
            failed.append(piece)
            continue
        parts += _parse_failed(failed, parsing)
        failed = []
        parts.append(rows)
    return parts + _parse_failed(failed, parsing)


def _parse_piece(piece: Block, parsing: Parsing) -> ParsedRows | None:
    try:
        return _parse_by_columns(piece, parsing)
    except NeedsLineReader:
        return None


def _parse_failed(pieces: list[Block], parsing: Parsing) -> list[ParsedRows]:
    """Parse consecutive pieces line by line."""
    if not pieces:
        return []
    return [_parse_by_lines(replace(pieces[0], data=b"".join(piece.data for piece in pieces)), parsing)]


def line_bounds(data: bytes) -> LineBounds:
    """Return where the lines of `data` are."""
    text = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(text == _NEWLINE)
    line_ends = len(ends)
    if data and not data.endswith(b"\n"):
        ends = np.append(ends, len(text))
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    ends = ends - ((ends > starts) & (text[ends - 1] == _RETURN))
    numbers = np.flatnonzero(ends > starts)
    return LineBounds(starts[numbers], ends[numbers], numbers, line_ends)


def iter_lines(block: Block) -> Iterator[tuple[int, bytes]]:
    """Yield number and bytes of each line of `block` that is not blank."""
    starts, ends, numbers, _ = block.bounds
    for line, start, end in zip((numbers + block.line).tolist(), starts.tolist(), ends.tolist(), strict=True):
        if record := block.data[start:end].strip():
            yield line, record


def _parse_by_columns(block: Block, parsing: Parsing) -> ParsedRows | None:
    """Parse the records of `block` by columns; return None if any of them needs the line reader.

    A line that begins with `{` and ends with `}` holds only whole records, because a comma always separates a `}` from
    a `{` within one record. So as many rows as lines means one record in each line.

    Raises:
        NeedsLineReader: the records are sound, but have values that no column can hold.
    """
    if parsing.schema.is_line_only:
        raise NeedsLineReader
    starts, ends, numbers, _ = block.bounds
    if not len(numbers):
        return _no_rows(parsing)
    text = np.frombuffer(block.data, np.uint8)
    if not ((text[starts] == _OPEN).all() and (text[ends - 1] == _CLOSE).all()):
        return None
    if _estimate_fields(block.data, starts, ends) > MAX_FIELDS:
        raise NeedsLineReader
    try:
        _require_utf8(block.data)
        table = pa.json.read_json(
            pa.BufferReader(block.data),
            # one chunk and one thread: blocks are parsed in parallel, and formats work on one chunk
            pa.json.ReadOptions(use_threads=False, block_size=max(len(block.data), 1)),
            pa.json.ParseOptions(explicit_schema=parsing.read_as, unexpected_field_behavior="infer"),
        )
        [batch] = table.to_batches()
        if len(batch) != len(numbers):
            return None
        return convert_batch(rename_columns(batch, parsing), numbers + block.line, parsing.schema, parsing.drop_unknown)
    except (*CONVERSION_ERRORS, pl.exceptions.ComputeError):
        return None


def _require_utf8(data: bytes) -> None:
    """Check that `data` is UTF-8, without a copy, by Polars, which takes a tenth of the time of Arrow.

    Raises:
        ComputeError: it is not.
    """
    ends = pa.py_buffer(np.array([0, len(data)], np.int64))
    text = pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, pa.py_buffer(data)])
    pl.Series(text).cast(pl.String)


def _estimate_fields(data: bytes, starts: Lines, ends: Lines) -> float:
    """Estimate the number of distinct keys, at any depth, from the longest line and lines spread over the block.

    Keys that only one of these lines has stand for others: by Good's and Turing's estimate, the next line has as many
    new keys as there are such keys for each line seen. A few of them say nothing.
    """
    spread = np.searchsorted(ends, np.arange(0, len(data), _SAMPLE_STEP))
    chosen = np.unique([*spread[spread < len(ends)], np.argmax(ends - starts)])
    lines_of_key: Counter[tuple[str, ...]] = Counter()
    for start, end in zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True):
        fields: set[tuple[str, ...]] = set()
        try:
            _collect_fields(msgspec.json.decode(data[start:end]), (), fields)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        lines_of_key.update(fields)
        if len(lines_of_key) > MAX_FIELDS:
            break
    single = sum(count == 1 for count in lines_of_key.values())
    new = single / len(chosen) * (len(starts) - len(chosen)) if single > _FEW_KEYS else 0
    return len(lines_of_key) + new


def _collect_fields(value: Any, path: tuple[str, ...], fields: set[tuple[str, ...]]) -> None:
    """Add the path of each key in a decoded JSON value to `fields`, until there are too many."""
    if isinstance(value, dict):
        for name, child in value.items():
            fields.add((*path, name))
            if len(fields) > MAX_FIELDS:
                return
            if isinstance(child, dict | list):
                _collect_fields(child, (*path, name), fields)
    elif isinstance(value, list):
        for child in value:
            if isinstance(child, dict | list):
                _collect_fields(child, path, fields)


def rename_columns(batch: pa.RecordBatch, parsing: Parsing) -> pa.RecordBatch:
    """Rename columns as `--columns` says.

    Raises:
        NeedsLineReader: the batch already has a column of that name.
    """
    if not parsing.renamed:
        return batch
    names = [parsing.renamed.get(name, name) for name in batch.schema.names]
    if len(set(names)) < len(names):
        raise NeedsLineReader
    return batch.rename_columns(names)


def _no_rows(parsing: Parsing) -> ParsedRows:
    schema = parsing.schema.always
    batch = pa.RecordBatch.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)
    return ParsedRows(batch, np.zeros(0, np.int64), rejects(), FieldCounts())


def _pieces(block: Block) -> Iterator[Block]:
    """Cut `block` at line ends into pieces of about `PIECE` bytes."""
    start, line = 0, block.line
    while start < len(block.data):
        end = block.data.find(b"\n", start + PIECE) + 1 or len(block.data)
        piece = block.data[start:end]
        part = Block(piece, line, block.done)
        yield part
        start, line = end, line + part.bounds.line_ends


def _parse_by_lines(block: Block, parsing: Parsing) -> ParsedRows:
    """Parse the records of `block` one by one: only if at least one record fits no column."""
    rows: list[dict[str, Any]] = []
    row_lines: list[int] = []
    faults: list[Fault] = []
    counts = FieldCounts()
    for line, data in iter_lines(block):
        record, rule, detail = decode_record(data)
        if record is not None:
            try:
                rows.append(convert_record(record, parsing, counts))
                row_lines.append(line)
                continue
            except CoercionError as fault:
                rule, detail = fault.rule, str(fault)
        faults.append((line, rule, detail))
    parsed = ParsedRows(
        to_batch(rows, parsing.line_schema),
        np.array(row_lines, np.int64),
        rejects(faults),
        counts,
        rewritten=parsing.rewrite is not None,
    )
    return reject_incomplete(parsed, parsing.line_schema)


def decode_record(data: bytes) -> tuple[dict[str, Any] | None, str, str]:
    """Return the JSON object in `data`, or None with the rule and the detail of what is wrong with it.

    msgspec decodes it, or the standard library where msgspec refuses: NaN, and the escape of a lone surrogate.
    """
    try:
        record = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        record, rule, detail = _decode_leniently(data)
        if rule:
            return None, rule, detail
    if not isinstance(record, dict):
        return None, "wrong_schema", f"is a JSON {_JSON_TYPES.get(type(record), 'null')}, not an object"
    return record, "", ""


def _decode_leniently(data: bytes) -> tuple[Any, str, str]:
    """Decode JSON with the standard library; return the rule and the detail of what is wrong with it, if anything is."""
    try:
        return json.loads(data.decode()), "", ""
    except UnicodeDecodeError as fault:
        return None, "bad_utf8", f"is not UTF-8: byte 0x{data[fault.start]:02x} at byte {fault.start + 1} of the line"
    except json.JSONDecodeError as fault:
        return None, "bad_json", f"{fault.msg} at character {fault.pos + 1} of {len(fault.doc)}"
    except RecursionError:
        return None, "too_deep", TOO_DEEP
    except ValueError as fault:  # a number of thousands of digits
        return None, "bad_json", str(fault)


_JSON_TYPES = {list: "array", str: "string", int: "number", float: "number", bool: "boolean"}
