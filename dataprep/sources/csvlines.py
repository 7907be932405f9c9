"""Read CSV and TSV as JSON lines: one object for each row, its keys from the header, its values text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import msgspec

from dataprep.common.errors import InputError
from dataprep.sources.bytestream import BLOCK, ByteStream
from dataprep.sources.jsonlines import Block

Fault = tuple[int, str, str]


def csv_units(start: bytes, stream: ByteStream, delimiter: str, max_record_bytes: int) -> Iterator[Block]:
    """Yield the rows of a CSV file as blocks of JSON lines; rows are numbered after the header, from 1.

    An empty cell is a missing key. A row with more cells than the header is rejected.

    Raises:
        InputError: the header has an empty or a repeated name.
    """
    csv.field_size_limit(max_record_bytes)  # an open quote would otherwise take in the rest of the file
    rows = csv.reader(_text_lines(start, stream, max_record_bytes), delimiter=delimiter)
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
        if not row:
            continue
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


def _text_lines(start: bytes, stream: ByteStream, max_record_bytes: int) -> Iterator[str]:
    """Yield lines with their line ends; bytes that are not UTF-8 become surrogates, which `_record` refuses."""
    rest = bytearray()  # of a line whose end has not been read
    data = start
    while data:
        cut = data.rfind(b"\n") + 1
        if cut:
            yield from io.StringIO((rest + data[:cut]).decode(errors="surrogateescape"), newline="")
            rest.clear()
        rest += data[cut:]
        if len(rest) > max_record_bytes:
            raise csv.Error(f"a line has more than --max-record-bytes {max_record_bytes}")
        data = stream.read()
    if rest and (stream.is_whole or not stream.fault):
        yield rest.decode(errors="surrogateescape")
