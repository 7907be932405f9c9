"""Read JSON lines, JSON arrays, Parquet and Arrow files, each as an ordered stream of units.

A unit is a `Block` of JSON lines or a `Batch` of columns, so the formats do not depend on the kind of file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.common.errors import InputError
from dataprep.sources import jsonlines
from dataprep.sources.bytestream import BLOCK, ByteStream
from dataprep.sources.jsonlines import Block, count_lines, decode_record

JSON_EXTENSIONS = (".jsonl", ".ndjson", ".json")
EXTENSIONS = (*JSON_EXTENSIONS, *(f"{name}.gz" for name in JSON_EXTENSIONS), ".parquet", ".arrow")

PARQUET_ROWS = 4096  # rows of a batch: 32 MB with texts of 8 KB
_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class Batch(NamedTuple):
    """Rows of a columnar file. `line` numbers the first row, from 1; `done` counts the bytes of the file read so far."""

    data: pa.RecordBatch
    line: int
    done: int
    fault: str = ""  # why the file breaks off after these rows; empty if it does not


Unit = Block | Batch


def iter_units(path: Path, columns: frozenset[str] | None) -> Iterator[Unit]:
    """Yield the records of the file at `path` in order.

    Args:
        path: a file with one of `EXTENSIONS`.
        columns: the columns to read from a columnar file; all of them if None, or if the file has none of these.

    Raises:
        InputError: the file is missing, empty, or not what its extension says.
    """
    if path.name.endswith(".parquet"):
        return _parquet_units(path, columns)
    if path.name.endswith(".arrow"):
        return _arrow_units(path, columns)
    return _json_units(path)


def count_records(unit: Unit) -> int:
    """Count the records in `unit` independently of any format; the part lost to a fault counts as one record."""
    count = len(unit.data) if isinstance(unit, Batch) else jsonlines.count_records(unit.data)
    return count + bool(unit.fault)


def _parquet_units(path: Path, columns: frozenset[str] | None) -> Iterator[Unit]:
    try:
        with pq.ParquetFile(path) as file:
            names = _columns_to_read(file.schema_arrow, columns)
            size, total = path.stat().st_size, max(file.metadata.num_rows, 1)
            yield from _batches(file.iter_batches(PARQUET_ROWS, columns=names), size / total)
    except (pa.ArrowInvalid, OSError) as fault:
        raise InputError(f"{path} cannot be read as Parquet: {_first_line(fault)}.") from None


def _arrow_units(path: Path, columns: frozenset[str] | None) -> Iterator[Unit]:
    """Map an IPC stream or file without copying it; the first bytes tell which of the two it is."""
    try:
        with pa.memory_map(str(path)) as source:
            size = source.size()
            is_file = size > 6 and source.read(6) == b"ARROW1"
            source.seek(0)
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
            names = _columns_to_read(reader.schema, columns)
            yield from _batches((batch.select(names) for batch in batches), None)
    except (pa.ArrowInvalid, OSError) as fault:
        raise InputError(f"{path} cannot be read as an Arrow stream or file: {_first_line(fault)}.") from None


def _columns_to_read(schema: pa.Schema, columns: frozenset[str] | None) -> list[str]:
    return [name for name in schema.names if columns and name in columns] or list(schema.names)


def _batches(batches: Iterator[pa.RecordBatch], bytes_per_row: float | None) -> Iterator[Unit]:
    """Number the rows of `batches`. A file that breaks off after its first batch keeps the rows before the fault."""
    line, done = 1, 0
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowInvalid, OSError) as fault:
            if line == 1:
                raise
            yield Batch(pa.record_batch([], names=[]), line, done, _first_line(fault))
            return
        if batch is None:
            break
        done += int(len(batch) * bytes_per_row) if bytes_per_row is not None else batch.nbytes
        yield Batch(batch, line, done)
        line += len(batch)


def _json_units(path: Path) -> Iterator[Unit]:
    with ByteStream(path) as stream:
        start = stream.read()
        if start.startswith(_UTF16_BOMS):
            raise InputError(f"{path} is encoded as UTF-16: save it as UTF-8.")
        start = start.removeprefix(_BOM)
        text = start.lstrip()
        first_line, newline, rest = text.partition(b"\n")
        first_line_is_json = decode_record(first_line)[1] not in ("bad_json", "too_deep")
        is_json_file = path.name.removesuffix(".gz").endswith(".json")
        if text.startswith(b"[") and not (first_line_is_json and rest.strip()):
            yield from _array_units(start, stream)
        elif text.startswith(b"{") and newline and not first_line_is_json and is_json_file:
            yield from _document_units(start, stream)
        else:
            yield from _line_units(start, stream)


def _line_units(start: bytes, stream: ByteStream) -> Iterator[Unit]:
    """Yield blocks of whole lines, each cut at the last line end that has been read."""
    line, data = 1, start
    parts: list[bytes] = []
    while data:
        cut = data.rfind(b"\n") + 1
        if cut:
            block = b"".join([*parts, memoryview(data)[:cut]])
            yield Block(block, line, stream.done)
            line += count_lines(block)
            parts = []
        parts.append(data[cut:])
        data = stream.read()
    rest = b"".join(parts)
    if stream.fault:
        yield Block(b"", line, stream.done, f"{stream.fault}: line {line} and everything after it are lost")
    elif rest:
        yield Block(rest, line, stream.done)


def _array_units(start: bytes, stream: ByteStream) -> Iterator[Unit]:
    """Yield the elements of a JSON array as lines; the whole array is held in memory."""
    data = start + stream.read_rest()
    try:
        elements = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        values, end = _json_values(data, data.index(b"[") + 1)
        reason = stream.fault or str(fault)
        number = len(values) + 1
        lost = f"record {number}, at byte {end + 1:,}, and everything after it are lost ({len(data) - end:,} bytes)"
        yield from _value_units(values, stream.done)
        yield Block(b"", number, stream.done, f"{reason}: {lost}")
        return
    del data
    yield from _value_units(elements, stream.done)


def _document_units(start: bytes, stream: ByteStream) -> Iterator[Unit]:
    """Yield concatenated objects that each span several lines; if there are none, yield the data as plain lines."""
    data = start + stream.read_rest()
    values, end = _json_values(data, 0)
    if not values:
        yield Block(data, 1, stream.done)
        return
    yield from _value_units(values, stream.done)
    if data[end:].strip():
        reason = stream.fault or f"invalid JSON at byte {end + 1:,}"
        number = len(values) + 1
        lost = f"record {number} and everything after it are lost ({len(data) - end:,} bytes)"
        yield Block(b"", number, stream.done, f"{reason}: {lost}")


def _value_units(values: list[msgspec.Raw] | list[bytes], done: int) -> Iterator[Unit]:
    """Yield JSON values as blocks with one value a line; a newline inside a JSON value is always white space."""
    block: list[bytes] = []
    size, line = 0, 1
    for value in values:
        text = bytes(value).replace(b"\n", b" ")
        block.append(text)
        size += len(text)
        if size >= BLOCK:
            yield Block(b"\n".join(block), line, done)
            line, size, block = line + len(block), 0, []
    if block:
        yield Block(b"\n".join(block), line, done)


def _json_values(data: bytes, start: int) -> tuple[list[bytes], int]:
    """Return the JSON values from byte `start` on, separated by commas or white space, and the end of the last one."""
    # surrogateescape restores invalid UTF-8 unchanged, and the line reader rejects that record by name later
    text = data[start:].decode(errors="surrogateescape")
    decoder, gap = json.JSONDecoder(), re.compile(r"[\s,]*")
    values, end = [], 0
    while True:
        begin = gap.match(text, end).end()  # type: ignore[union-attr]
        try:
            _, stop = decoder.raw_decode(text, begin)
        except (ValueError, RecursionError):
            break
        values.append(text[begin:stop].encode(errors="surrogateescape"))
        end = stop
    return values, start + len(text[:end].encode(errors="surrogateescape"))


def _first_line(fault: Exception) -> str:
    return str(fault).splitlines()[0].rstrip(".") if str(fault) else type(fault).__name__
