"""Take the first records of a stream, to recognise its format, and cut a stream after a number of records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain

from dataprep.common.errors import EmptyFile, InputError
from dataprep.sources.containers import Batch, Unit
from dataprep.sources.files import SourceFile
from dataprep.sources.formats import NAMES, to_json_lines
from dataprep.sources.jsonlines import decode_record, iter_lines
from dataprep.sources.schema import Record

SAMPLES = 100  # records from which a format is recognised
# What is read in search of a record that can be read: bytes, and records.
_LOOK_AHEAD_BYTES, _LOOK_AHEAD_RECORDS = 64 << 20, 100_000


class UnknownFormat(InputError):
    """A file whose records have no known format, or of which no record can be read."""


def limited(stream: Iterator[Unit], limit: int | None) -> Iterator[Unit]:
    """Yield `stream` up to `limit` records; the rest of the file is not read."""
    if limit is None:
        yield from stream
        return
    for unit in stream:
        if isinstance(unit, Batch):
            count = len(unit.data)
            unit = unit._replace(data=unit.data.slice(0, limit))
        else:
            starts, ends, *_ = unit.bounds
            records = [end for start, end in zip(starts, ends, strict=True) if unit.data[start:end].strip()]
            count = len(records)
            unit = replace(unit, data=unit.data[: records[limit - 1]]) if count > limit else unit
        yield unit
        limit -= count
        if limit <= 0:
            return


def with_samples(stream: Iterator[Unit], file: SourceFile) -> tuple[Iterator[Unit], list[Record]]:
    """Return an equal stream, and the first readable records in it.

    Raises:
        EmptyFile: the file holds no records.
        UnknownFormat: none of its records can be read.
    """
    units: list[Unit] = []
    first_fault, size, unreadable = "", 0, 0
    for unit in stream:
        samples, faults = _samples(unit)
        if samples or faults:  # a unit of blank lines holds nothing that the format would have to read
            units.append(unit)
            size += unit.data.nbytes if isinstance(unit, Batch) else len(unit.data)
        if samples:
            return chain(units, stream), samples
        first_fault = first_fault or next(iter(faults), "")
        unreadable += len(faults)
        if size > _LOOK_AHEAD_BYTES or unreadable > _LOOK_AHEAD_RECORDS:
            break
    if not first_fault:
        raise EmptyFile(f"{file.path} is empty: it holds no records.")
    raise UnknownFormat(f"{file.path} holds no record that can be read: {first_fault}.")


def _samples(unit: Unit) -> tuple[list[Record], list[str]]:
    """Return the first readable records of a unit, and the faults of those that cannot be read."""
    if isinstance(unit, Batch):
        unit = replace(to_json_lines(unit.data.slice(0, SAMPLES), unit.line), fault=unit.fault, rejected=unit.rejected)
    records: list[Record] = []
    faults = [f"line {line}: {detail}" for line, _, detail in unit.rejected[:1]]
    for line, data in iter_lines(unit):
        record, _, detail = decode_record(data)
        if record is None:
            faults.append(f"line {line}: {detail}")
        else:
            records.append(record)
        if len(records) == SAMPLES or len(faults) > _LOOK_AHEAD_RECORDS:
            break
    return records, [*faults, unit.fault] if unit.fault else faults


def unknown_format(file: SourceFile, samples: list[Record]) -> UnknownFormat:
    """Make the error for a file whose records have no known format; it names the keys of the first record."""
    keys = ", ".join(f"'{name}'" for name in list(samples[0])[:12])
    contents = f"the keys {keys}" if keys else "no keys"
    return UnknownFormat(
        f"{file.path} has no known format: its first record has {contents}. The known formats are {', '.join(NAMES)}; "
        "if it has one of them, name it with --format, or rename its keys with --columns question=instruction."
    )
