"""Read JSON lines, JSON arrays, CSV, Parquet and Arrow files, each as an ordered stream of units.

A unit is a `Block` of JSON lines or a `Batch` of columns, so the formats do not depend on the kind of file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.common.errors import InputError
from dataprep.sources.arrow_checks import check_batch
from dataprep.sources.bytestream import BLOCK, COMPRESSED, ByteStream
from dataprep.sources.csvlines import csv_units
from dataprep.sources.jsonlines import Block, decode_record
from dataprep.sources.rows import Fault

JSON_EXTENSIONS = (".jsonl", ".ndjson", ".json")
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
EXTENSIONS = (
    *(f"{name}{compression}" for compression in ("", *COMPRESSED) for name in (*JSON_EXTENSIONS, *_DELIMITERS)),
    ".parquet",
    ".arrow",
)

MAX_RECORD_BYTES = 64_000_000  # default of the longest record of a JSON file
_WHOLE_ARRAY = 256 << 20  # bytes of a JSON array that are decoded at once; longer arrays are decoded piece by piece
PARQUET_ROWS = 4096  # most rows of a batch
PARQUET_BYTES = 64 << 20  # of a batch, uncompressed and on average
# What pyarrow raises for invalid files; an ArrowException can be a KeyError or an IndexError.
_ARROW_FAULTS = (pa.ArrowException, OSError, ValueError, TypeError, OverflowError)
_BOM = b"\xef\xbb\xbf"
_UTF32_BOMS = (b"\xff\xfe\0\0", b"\0\0\xfe\xff")
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class Batch(NamedTuple):
    """Rows of a columnar file. `line` numbers the first row, from 1; `done` counts the bytes of the file read so far."""

    data: pa.RecordBatch
    line: int
    done: int
    fault: str = ""  # why the file breaks off after these rows; empty if it does not
    rule: str = "truncated"
    rejected: tuple[Fault, ...] = ()  # of records after these rows that are not read


Unit = Block | Batch


def iter_units(
    path: Path, max_record_bytes: int = MAX_RECORD_BYTES, start: int = 0, stop: int | None = None
) -> Iterator[Unit]:
    """Yield the records of the file at `path`, or of a part of it, in order.

    Args:
        path: a file with one of `EXTENSIONS`.
        max_record_bytes: longest record, at least `BLOCK`; a longer record becomes a fault.
        start, stop: the part as `cut_points` bounds it, in which records are numbered from 1; by default the whole file.
            The units of a part of a text file end with an empty block, whose `line` is one more than that of its last line.

    Raises:
        InputError: the file is missing, empty, or not what its extension says.
    """
    if path.name.endswith(".parquet"):
        return _parquet_units(path, max_record_bytes, start, stop)
    if path.name.endswith(".arrow"):
        return _arrow_units(path, max_record_bytes)
    if start or stop is not None:
        return _part_of_lines(path, max_record_bytes, start, stop)
    return _text_units(path, max_record_bytes)


def cut_points(path: Path, max_bytes: int) -> list[int]:
    """Return where to cut a file into parts of about `max_bytes` that can be read independently of each other.

    Files of plain JSON lines are cut at lines (the points are positions of bytes), Parquet files at row groups (the points
    are numbers of row groups). Compressed files, arrays, CSV and Arrow files are not cut. The points depend on the file and
    on `max_bytes` only.
    """
    try:
        if path.name.endswith(".parquet"):
            return _row_group_points(path, max_bytes)
        if path.name.endswith(JSON_EXTENSIONS) and path.stat().st_size > max_bytes and _holds_lines(path):
            return _line_points(path, max_bytes)
    except (InputError, *_ARROW_FAULTS):
        pass  # reading the file says what is wrong with it
    return []


def _row_group_points(path: Path, max_bytes: int) -> list[int]:
    points, size = [], 0
    with pq.ParquetFile(path) as file:
        for number in range(file.metadata.num_row_groups):
            if size >= max_bytes:
                points.append(number)
                size = 0
            size += file.metadata.row_group(number).total_byte_size
    return points


def _holds_lines(path: Path) -> bool:
    with ByteStream(path) as stream:
        start = stream.read()
    return not _wide_encoding(start) and _layout(path.name, start.removeprefix(_BOM)) == "lines"


def _line_points(path: Path, max_bytes: int) -> list[int]:
    size, points = path.stat().st_size, [0]
    with path.open("rb") as file:
        for target in range(max_bytes, size, max_bytes):
            if target <= points[-1]:
                continue  # one long line reaches beyond the target
            file.seek(target - 1)  # a line that begins at the target is a part of its own
            while (data := file.readline(BLOCK)) and not data.endswith(b"\n"):
                pass
            if points[-1] < file.tell() < size:
                points.append(file.tell())
    return points[1:]


def count_records(unit: Unit) -> int:
    """Count the records in `unit` independently of any format; the part lost to a fault counts as one record."""
    if isinstance(unit, Batch):
        return len(unit.data) + len(unit.rejected) + bool(unit.fault)
    return unit.count_records() + len(unit.rejected) + bool(unit.fault)


def _parquet_units(path: Path, max_record_bytes: int, start: int, stop: int | None) -> Iterator[Unit]:
    """Yield the rows of the row groups from `start` to `stop`."""
    try:
        with pq.ParquetFile(path) as file:
            metadata = file.metadata
            groups = list(range(start, metadata.num_row_groups if stop is None else stop))
            size, total = path.stat().st_size, max(metadata.num_rows, 1)
            for number in groups:
                _check_row_group(path, number, metadata.row_group(number), max_record_bytes)
            in_memory = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
            rows = min(max(PARQUET_BYTES * total // max(in_memory, 1), 1), PARQUET_ROWS)
            yield from _batches(file.iter_batches(rows, groups), max_record_bytes, size / total, is_start=not start)
    except _ARROW_FAULTS as fault:
        raise InputError(f"{path} cannot be read as Parquet: {_first_line(fault)}.") from None


def _check_row_group(path: Path, number: int, group: pq.RowGroupMetaData, max_record_bytes: int) -> None:
    """Check a row group before it is read, because a whole record is read at once.

    Raises:
        InputError: its records are too long on average.
    """
    average = group.total_byte_size // max(group.num_rows, 1)
    if average > max_record_bytes:
        raise InputError(
            f"{path} cannot be read: the records of its row group {number} have {average:,} bytes on average, more than "
            f"--max-record-bytes {max_record_bytes}."
        )


def _arrow_units(path: Path, max_record_bytes: int) -> Iterator[Unit]:
    """Map an IPC stream or file without copying it; the first bytes tell which of the two it is."""
    try:
        with pa.memory_map(str(path)) as source:
            size = source.size()
            is_file = size > 6 and source.read(6) == b"ARROW1"
            source.seek(0)
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else iter(reader)
            yield from _batches(batches, max_record_bytes, None)
    except _ARROW_FAULTS as fault:
        raise InputError(f"{path} cannot be read as an Arrow stream or file: {_first_line(fault)}.") from None


def _batches(
    batches: Iterator[pa.RecordBatch], max_record_bytes: int, bytes_per_row: float | None, is_start: bool = True
) -> Iterator[Unit]:
    """Number the rows of `batches`. A file that breaks off after its first batch keeps the rows before the fault."""
    line, done = 1, 0
    while True:
        try:
            batch = next(batches, None)
            if batch is not None:
                check_batch(batch)
        except _ARROW_FAULTS as fault:
            if line == 1 and is_start:
                raise
            yield Batch(pa.record_batch([], names=[]), line, done, _first_line(fault))
            return
        if batch is None:
            break
        done += int(len(batch) * bytes_per_row) if bytes_per_row is not None else batch.nbytes
        for part in _bounded_parts(batch, max_record_bytes):
            if part.nbytes > max_record_bytes:  # of one row
                yield Batch(part.slice(0, 0), line, done, rejected=(_too_long(line, part.nbytes, max_record_bytes),))
            else:
                yield Batch(part, line, done)
            line += len(part)


def _bounded_parts(batch: pa.RecordBatch, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """Cut a batch into parts of at most `max_bytes`, or of one row."""
    if batch.nbytes <= max_bytes or len(batch) == 1:
        yield batch
        return
    half = len(batch) // 2
    yield from _bounded_parts(batch.slice(0, half), max_bytes)
    yield from _bounded_parts(batch.slice(half), max_bytes)


def _text_units(path: Path, max_record_bytes: int) -> Iterator[Unit]:
    name = path.name.removesuffix(path.suffix if path.suffix in COMPRESSED else "")
    with ByteStream(path) as stream:
        start = stream.read()
        encoding = _wide_encoding(start)
        if encoding:
            raise InputError(f"{path} is encoded as {encoding}: save it as UTF-8.")
        start = start.removeprefix(_BOM)
        delimiter = next((mark for extension, mark in _DELIMITERS.items() if name.endswith(extension)), None)
        if delimiter is not None:
            yield from csv_units(start, stream, delimiter, max_record_bytes)
            return
        units = {"array": _array_units, "document": _document_units, "lines": _line_units}[_layout(name, start)]
        yield from units(start, stream, max_record_bytes)


def _layout(name: str, start: bytes) -> Literal["array", "document", "lines"]:
    """Return how the JSON in a file is laid out, by its name (without that of a compression) and its first bytes."""
    text = start.lstrip()
    first_line, newline, rest = text.partition(b"\n")
    first_line_is_json = decode_record(first_line)[1] not in ("bad_json", "too_deep")
    if text.startswith(b"[") and not (first_line_is_json and rest.strip()):
        return "array"
    if text.startswith(b"{") and newline and not first_line_is_json and name.endswith(".json"):
        return "document"
    return "lines"


def _part_of_lines(path: Path, max_record_bytes: int, start: int, stop: int | None) -> Iterator[Unit]:
    with ByteStream(path, start, stop) as stream:
        data = stream.read()
        data = data if start else data.removeprefix(_BOM)
        yield from _line_units(data, stream, max_record_bytes, is_part=True)


def _wide_encoding(start: bytes) -> str | None:
    """Return the encoding of text that begins with a byte order mark of UTF-16 or UTF-32, or with their zero bytes."""
    if start.startswith(_UTF32_BOMS) or start[:4].count(0) == 3:
        return "UTF-32"
    if start.startswith(_UTF16_BOMS) or start[:4].count(0) == 2 and (start[0] == 0) != (start[1] == 0):
        return "UTF-16"
    return None


def _line_units(start: bytes, stream: ByteStream, max_record_bytes: int, is_part: bool = False) -> Iterator[Unit]:
    """Yield blocks of whole lines, each cut at the last line end that has been read; those of a part end with an empty one."""
    line = 1
    parts: list[bytes] = []
    size, oversize = 0, 0  # bytes in `parts`; bytes of a line that is too long and was not kept
    for data in _pieces(start, stream):
        end = data.find(b"\n") + 1
        if end and oversize + size + end > max_record_bytes:
            yield _oversize(line, oversize + size + end, stream, max_record_bytes)
            line, oversize, parts, size = line + 1, 0, [], 0
            data = data[end:]
        cut = data.rfind(b"\n") + 1
        if cut:
            whole = data if cut == len(data) else memoryview(data)[:cut]
            block = Block(b"".join([*parts, whole]), line, stream.done)  # one `bytes` is not copied
            if not block.data.isspace():
                yield block
            line += block.bounds.line_ends
            parts, size = [], 0
        if cut < len(data):
            parts.append(data[cut:])
        size += len(data) - cut
        if size > max_record_bytes or oversize:
            parts, size, oversize = [], 0, oversize + size
    rest = b"".join(parts)
    if oversize:
        yield _oversize(line, oversize, stream, max_record_bytes)
        line += 1
    elif rest.strip() and (stream.is_whole or not stream.fault):
        yield Block(rest, line, stream.done)
        line += 1
    if stream.fault:
        lost = (
            "the lines before may be wrong, and any after them are"
            if stream.is_whole
            else f"line {line} and everything after it are"
        )
        yield Block(b"", line, stream.done, f"{stream.fault}: {lost} lost")
    if is_part:
        yield Block(b"", line, stream.done)


def _pieces(start: bytes, stream: ByteStream) -> Iterator[bytes]:
    """Yield `start` and the rest of the stream in pieces of about `BLOCK` bytes."""
    for at in range(0, len(start), BLOCK):
        yield start[at : at + BLOCK]
    yield from iter(stream.read, b"")


def _oversize(line: int, size: int, stream: ByteStream, max_record_bytes: int) -> Block:
    """An empty block whose fault is a record of `size` bytes."""
    _, rule, detail = _too_long(line, size, max_record_bytes)
    return Block(b"", line, stream.done, detail, rule)


def _too_long(line: int, size: int, max_record_bytes: int) -> Fault:
    return line, "too_long", f"has {size:,} bytes, more than --max-record-bytes {max_record_bytes}"


def _array_units(start: bytes, stream: ByteStream, max_record_bytes: int) -> Iterator[Unit]:
    """Yield the elements of a JSON array as lines."""
    data = bytearray(start)
    while len(data) < _WHOLE_ARRAY and (more := stream.read()):
        data += more
    if len(data) < _WHOLE_ARRAY:
        try:
            elements = msgspec.json.decode(data, type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass  # the elements before the fault are read below
        else:
            yield from _value_units(elements, stream, max_record_bytes)
            return
    begin = data.index(b"[") + 1
    values = _JsonValues(data, begin, stream, max_record_bytes)
    yield from _value_units(values, stream, max_record_bytes)
    if values.rest().strip() != b"]":
        number, end = values.count + 1, values.end + 1
        reason = values.reason or stream.fault or "the array is not closed or is followed by other text"
        lost = f"record {number}, at byte {end:,}, and everything after it are lost"
        yield Block(b"", number, stream.done, f"{reason}: {lost}")


def _document_units(start: bytes, stream: ByteStream, max_record_bytes: int) -> Iterator[Unit]:
    """Yield concatenated objects that each span several lines; if there are none, yield the data as plain lines."""
    values = _JsonValues(bytearray(start), 0, stream, max_record_bytes)
    yield from _value_units(values, stream, max_record_bytes)
    if not values.count:
        yield from _line_units(values.rest(), stream, max_record_bytes)
    elif values.rest().strip():
        reason = values.reason or stream.fault or f"invalid JSON at byte {values.end + 1:,}"
        number = values.count + 1
        lost = f"record {number} and everything after it are lost"
        yield Block(b"", number, stream.done, f"{reason}: {lost}")


def _value_units(values: Iterable[msgspec.Raw | bytes], stream: ByteStream, max_record_bytes: int) -> Iterator[Unit]:
    """Yield JSON values as blocks with one value a line; a newline inside a JSON value is always white space."""
    block: list[bytes] = []
    size, line = 0, 1  # bytes in `block`, and the number of its first value
    for value in values:
        text = bytes(value).replace(b"\n", b" ")
        if len(text) > max_record_bytes:
            if block:
                yield Block(b"\n".join(block), line, stream.done)
            yield _oversize(line + len(block), len(text), stream, max_record_bytes)
            line, size, block = line + len(block) + 1, 0, []
            continue
        block.append(text)
        size += len(text)
        if size >= BLOCK:
            yield Block(b"\n".join(block), line, stream.done)
            line, size, block = line + len(block), 0, []
    if block:
        yield Block(b"\n".join(block), line, stream.done)


class _JsonValues:
    """Iterates over JSON values that commas or white space separate, without holding all of them in memory.

    It stops before the first bytes that are no value, at the end of the data, or at a value of more than `limit` bytes;
    `reason` then says why, if it is known. `count` is the number of values so far, and `end` the bytes before the rest.
    """

    _SEPARATORS = re.compile(r"[\s,]*")
    _VALUE_STARTS = frozenset(["", *'{["-0123456789tfnNI'])  # of JSON, and of NaN and Infinity

    def __init__(self, data: bytearray, begin: int, stream: ByteStream, limit: int) -> None:
        self.count, self.end, self.reason = 0, begin, ""
        self._data, self._stream, self._limit = data, stream, limit
        self._consumed = begin  # bytes of `_data` that were yielded or skipped
        self._is_complete = False  # whether the stream has no more data

    def __iter__(self) -> Iterator[bytes]:
        decoder = json.JSONDecoder()
        window = BLOCK
        while True:
            self._fill(window)
            # surrogateescape restores invalid UTF-8 unchanged, and the line reader rejects that record by name later
            text = self._data[self._consumed : self._consumed + window].decode(errors="surrogateescape")
            is_last = self._is_complete and self._consumed + window >= len(self._data)
            at = 0  # end of the last value and of the separators after it
            while True:
                begin = self._SEPARATORS.match(text, at).end()  # type: ignore[union-attr]
                try:
                    _, stop = decoder.raw_decode(text, begin)
                except (ValueError, RecursionError):
                    break
                if stop == len(text) and not is_last:
                    break  # a number may continue after the window
                self.count += 1
                yield text[begin:stop].encode(errors="surrogateescape")
                at = stop
            at = begin
            decoded = len(text[:at].encode(errors="surrogateescape"))
            self._consumed += decoded
            self.end += decoded
            if decoded:
                window = BLOCK
            elif is_last or text[begin : begin + 1] not in self._VALUE_STARTS:
                return
            elif window >= self._limit:
                self.reason = f"the record has more than --max-record-bytes {self._limit}, or is no JSON"
                return
            else:
                window = min(2 * window, self._limit)

    def rest(self) -> bytes:
        """Return the bytes after the last value that have been read from the stream."""
        return bytes(self._data[self._consumed :])

    def _fill(self, size: int) -> None:
        """Read until `size` bytes are available after those that were taken, or the stream ends."""
        if self._consumed > _WHOLE_ARRAY:
            del self._data[: self._consumed]
            self._consumed = 0
        while len(self._data) - self._consumed < size and not self._is_complete:
            more = self._stream.read()
            self._is_complete = not more
            self._data += more


def _first_line(fault: Exception) -> str:
    return str(fault).splitlines()[0].rstrip(".") if str(fault) else type(fault).__name__
