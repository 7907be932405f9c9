"""Read CSV and TSV as JSON lines: one object for each row, its keys from the header, its values text."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

import msgspec

from dataprep.common.errors import InputError
from dataprep.sources.bytestream import BLOCK, ByteStream
from dataprep.sources.jsonlines import Block
from dataprep.sources.rows import Fault

_LINE_ENDS = re.compile(r"[\r\n]*")


def csv_units(start: bytes, stream: ByteStream, delimiter: str, max_record_bytes: int) -> Iterator[Block]:
    """Yield the rows of a CSV file as blocks of JSON lines; rows are numbered after the header, from 1.

    An empty cell is a missing key. A row with more cells than the header is rejected.

    Raises:
        InputError: the header has an empty or a repeated name.
    """
    csv.field_size_limit(max_record_bytes)  # an open quote would otherwise take in the rest of the file
    rows = _rows(_Lines(start, stream, max_record_bytes), delimiter)
    try:
        header = next(rows, None)
    except csv.Error as error:
        raise InputError(f"{stream.path} has a header that cannot be read as CSV: {error}.") from None
    if header is None:
        return
    _check_header(header, stream)
    records: list[bytes] = []
    faults: list[Fault] = []
    first, size = 1, 0
    number = 0
    fault = ""
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            fault = f"the CSV breaks off ({error}): row {number + 1} and everything after it are lost"
            break
        if row is None:
            break
        number += 1
        record = _record(header, row)
        if isinstance(record, str):
            faults.append((number, "bad_csv", record))
            record = b""
        records.append(record)
        size += len(record)
        if size >= BLOCK:
            yield Block(b"\n".join(records), first, stream.done, rejected=tuple(faults))
            records, faults, first, size = [], [], number + 1, 0
    if stream.fault:
        fault = f"{stream.fault}: row {number + 1} and everything after it are lost"
    if records:
        yield Block(b"\n".join(records), first, stream.done, rejected=tuple(faults))
    if fault:
        yield Block(b"", number + 1, stream.done, fault)


def _check_header(header: list[str], stream: ByteStream) -> None:
    if len(set(header)) < len(header) or any(not name.strip() for name in header):
        shown = ", ".join(f"'{name}'" for name in header[:12])
        raise InputError(
            f"{stream.path} begins with {shown}, which are not the names of columns: each needs a name of its own."
        )


def _record(header: list[str], row: list[str]) -> bytes | str:
    """Return a row as a JSON object, or what is wrong with it."""
    if len(row) > len(header):
        return f"has {len(row)} cells, but the header has {len(header)}"
    try:
        return msgspec.json.encode({name: cell for name, cell in zip(header, row, strict=False) if cell != ""})
    except UnicodeEncodeError:
        return "is not UTF-8"


class _Lines:
    """Iterates over the lines of a file, with their line ends; bytes that are not UTF-8 become surrogates.

    `skip_empty` skips a run of empty lines at once: a small compressed file can hold hundreds of millions.
    """

    def __init__(self, start: bytes, stream: ByteStream, max_record_bytes: int) -> None:
        self._blocks = _blocks_of_lines(start, stream, max_record_bytes)
        self._text, self._lines = "", io.StringIO()

    def __iter__(self) -> Iterator[str]:
        for text in self._blocks:
            self._text, self._lines = text, io.StringIO(text, newline="")
            yield from self._lines

    def skip_empty(self) -> None:
        """Go on after the line ends that follow; only between two rows, because they may be part of a quoted cell."""
        self._lines.seek(_LINE_ENDS.match(self._text, self._lines.tell()).end())  # type: ignore[union-attr]


def _rows(lines: _Lines, delimiter: str) -> Iterator[list[str]]:
    """Yield the cells of each row that is not empty.

    Raises:
        csv.Error: a row cannot be read.
    """
    for row in csv.reader(lines, delimiter=delimiter):
        if row:
            yield row
        else:
            lines.skip_empty()


def _blocks_of_lines(start: bytes, stream: ByteStream, max_record_bytes: int) -> Iterator[str]:
    """Yield the text of a file in blocks of whole lines.

    Raises:
        csv.Error: a line is longer than the limit.
    """
    rest = bytearray()  # of a line whose end has not been read
    data = start
    while data:
        cut = data.rfind(b"\n") + 1
        if cut:
            yield (rest + data[:cut]).decode(errors="surrogateescape")
            rest.clear()
        rest += data[cut:]
        if len(rest) > max_record_bytes:
            raise csv.Error(f"a line has more than --max-record-bytes {max_record_bytes}")
        data = stream.read()
    if rest and (stream.is_whole or not stream.fault):
        yield rest.decode(errors="surrogateescape")
