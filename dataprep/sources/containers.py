"""Containers: JSON lines, JSON arrays, Parquet and Arrow files, each read as a stream of units in order.

A unit is a `Block` of JSON lines or a `Batch` of columns; formats need not know which file it came from.
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
from dataprep.sources.jsonlines import Block, count_lines, decoded

JSON_EXTENSIONS = (".jsonl", ".ndjson", ".json")
EXTENSIONS = (*JSON_EXTENSIONS, *(f"{name}.gz" for name in JSON_EXTENSIONS), ".parquet", ".arrow")

ROWS = 4096  # of a Parquet batch; with texts of 8 KB, that is 32 MB
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Batch(NamedTuple):
    """Rows of a columnar file. `line` is the number of the first row; `done` the bytes of the file read so far."""

    data: pa.RecordBatch
    line: int
    done: int
    fault: str = ""


Unit = Block | Batch


def units(path: Path, columns: frozenset[str] | None) -> Iterator[Unit]:
    """The records of the file at `path`, in order; of columnar files only `columns`, where it has any of them.

    Raises:
        InputError: a file that is missing, empty, or not what its extension says.
    """
    if path.name.endswith(".parquet"):
        return _parquet(path, columns)
    if path.name.endswith(".arrow"):
        return _arrow(path, columns)
    return _json(path)


def count_records(unit: Unit) -> int:
    """Records in `unit` as its container has them, whatever a format makes of them; what a break took counts as one."""
    found = len(unit.data) if isinstance(unit, Batch) else jsonlines.count_records(unit.data)
    return found + bool(unit.fault)


def _parquet(path: Path, columns: frozenset[str] | None) -> Iterator[Unit]:
    try:
        with pq.ParquetFile(path) as file:
            wanted = _wanted(file.schema_arrow, columns)
            size, total = path.stat().st_size, max(file.metadata.num_rows, 1)
            yield from _batches(file.iter_batches(ROWS, columns=wanted), size / total)
    except (pa.ArrowInvalid, OSError) as fault:
        raise InputError(f"{path} cannot be read as Parquet: {_first_line(fault)}.") from None


def _arrow(path: Path, columns: frozenset[str] | None) -> Iterator[Unit]:
    """Streams and files both are mapped, not copied; a stream is told from a file by its first bytes."""
    try:
        with pa.memory_map(str(path)) as source:
            size = source.size()
            is_file = size > 6 and source.read(6) == b"ARROW1"
            source.seek(0)
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
            wanted = _wanted(reader.schema, columns)
            yield from _batches((batch.select(wanted) for batch in batches), None)
    except (pa.ArrowInvalid, OSError) as fault:
        raise InputError(f"{path} cannot be read as an Arrow stream or file: {_first_line(fault)}.") from None


def _wanted(schema: pa.Schema, columns: frozenset[str] | None) -> list[str]:
    return [name for name in schema.names if columns and name in columns] or list(schema.names)


def _batches(batches: Iterator[pa.RecordBatch], bytes_per_row: float | None) -> Iterator[Unit]:
    """Numbered batches. A file that breaks off after its first rows keeps them, and says where it broke."""
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


def _json(path: Path) -> Iterator[Unit]:
    with ByteStream(path) as stream:
        start = stream.read()
        if start.startswith(_UTF16):
            raise InputError(f"{path} is UTF-16: save it as UTF-8.")
        start = start.removeprefix(_BOM)
        text = start.lstrip()
        first, newline, more = text.partition(b"\n")
        whole = decoded(first)[1] not in ("bad_json", "too_deep")
        if text.startswith(b"[") and not (whole and more.strip()):
            yield from _array(start, stream)
        elif text.startswith(b"{") and newline and not whole and path.name.removesuffix(".gz").endswith(".json"):
            yield from _documents(start, stream)
        else:
            yield from _lines(start, stream)


def _lines(start: bytes, stream: ByteStream) -> Iterator[Unit]:
    """Blocks cut at the last line end that has been read."""
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
        yield Block(b"", line, stream.done, f"{stream.fault}: line {line} and what followed are lost")
    elif rest:
        yield Block(rest, line, stream.done)


def _array(start: bytes, stream: ByteStream) -> Iterator[Unit]:
    """The elements of a JSON array, as lines: it has to be in memory whole."""
    data = start + stream.rest()
    try:
        elements = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as fault:
        found, end = _values(data, data.index(b"[") + 1)
        why = stream.fault or str(fault)
        where = f"record {len(found) + 1}, at byte {end + 1:,}, and what followed are lost ({len(data) - end:,} bytes)"
        yield from _as_lines(found, stream.done)
        yield Block(b"", len(found) + 1, stream.done, f"{why}: {where}")
        return
    del data
    yield from _as_lines(elements, stream.done)


def _documents(start: bytes, stream: ByteStream) -> Iterator[Unit]:
    """Objects spread over several lines, one after another; where there is none, lines after all."""
    data = start + stream.rest()
    found, end = _values(data, 0)
    if not found:
        yield Block(data, 1, stream.done)
        return
    yield from _as_lines(found, stream.done)
    if data[end:].strip():
        why = stream.fault or f"no JSON at byte {end + 1:,}"
        where = f"record {len(found) + 1} and what followed are lost ({len(data) - end:,} bytes)"
        yield Block(b"", len(found) + 1, stream.done, f"{why}: {where}")


def _as_lines(elements: list[msgspec.Raw] | list[bytes], done: int) -> Iterator[Unit]:
    """JSON values as blocks of one line each; a line end inside a JSON value is always white space."""
    block: list[bytes] = []
    size, line = 0, 1
    for element in elements:
        value = bytes(element).replace(b"\n", b" ")
        block.append(value)
        size += len(value)
        if size >= BLOCK:
            yield Block(b"\n".join(block), line, done)
            line, size, block = line + len(block), 0, []
    if block:
        yield Block(b"\n".join(block), line, done)


def _values(data: bytes, start: int) -> tuple[list[bytes], int]:
    """The JSON values from byte `start` on, with commas or white space between them, and where the last one ends."""
    # surrogateescape: bytes that are no UTF-8 come back unchanged, and their record is refused by name later
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
