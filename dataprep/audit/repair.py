"""What can be put right without guessing, written beside what was sound."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.audit.audit import FRAME, Audit
from dataprep.audit.reading import Message, without_system
from dataprep.audit.rows import records
from dataprep.common.errors import InputError
from dataprep.rendering import render
from dataprep.tables import ASSISTANT

_SPOKEN = (
    "conversations",
    "instruction",
    "input",
    "output",
    "text",
)  # what `messages` stands for, where there was none
_SUFFIXES = (".jsonl", ".parquet")


def write_repaired(found: Audit, out: Path) -> dict[str, Any]:
    """Write sound and mended rows, in their order and with all their other columns, as JSON lines or Parquet.

    Conversations are in `text` where the files have texts, else in `messages`. A row is mended where only its control
    tokens are wrong, or where the source has it. Others are left out, and so are repeats and leaks.

    Returns: `path, written, repaired` (rows) and `left_out_rows`, named as in `Audit.facts`.

    Raises:
        InputError: `out` is of another kind, cannot be written, or is one of the files that were read.
    """
    if out.suffix not in _SUFFIXES:
        raise InputError(f"{out} cannot be written: name a file that ends in {' or '.join(_SUFFIXES)}.")
    numbers = found.rows.numbers()
    left_out = [row for row in range(found.row_count) if not _can_be_written(found, row)]
    with replacing(out, found) as file:
        kept = _kept(found, set(left_out))
        written = _write_parquet(file, kept, out) if out.suffix == ".parquet" else _write_lines(file, kept)
    repaired = len(set(found.faults) - set(left_out))
    told = [numbers[row] if "file" in numbers[row] else numbers[row]["row"] for row in left_out]
    return {"path": str(out), "written": written, "repaired": repaired, "left_out_rows": told}


def write_page(found: Audit, out: Path) -> None:
    """Write what was found as an HTML page.

    Raises:
        InputError: `out` cannot be written, or is one of the files that were read.
    """
    with replacing(out, found) as file:
        file.write(found.page().encode(errors="backslashreplace"))


@contextmanager
def replacing(out: Path, found: Audit) -> Iterator[IO[bytes]]:
    """A file to write into that takes the place of `out` when it is whole."""
    if out.exists() and any(out.samefile(file.path) for file in (*found.rows.files, *found.others)):
        raise InputError(f"{out} is what was read: it would be lost; name another file to write to.")
    aside = out.resolve().with_name(f".{out.name[:100]}-{uuid4().hex[:12]}")
    try:
        with out.open("wb") if _is_device(out) else aside.open("xb") as file:
            yield file
        if not _is_device(out):
            os.replace(aside, out.resolve())
    except OSError as fault:
        raise InputError(f"{out} cannot be written: {fault.strerror or fault}.") from None
    finally:
        with suppress(OSError):
            aside.unlink()


def _is_device(out: Path) -> bool:
    """Whether it is there and is no file, such as /dev/stdout: nothing can take its place. A folder refuses by itself."""
    return out.exists() and not out.is_file()


def _can_be_written(found: Audit, row: int) -> bool:
    kinds = {fault.kind for fault in found.faults.get(row, [])}
    return not kinds & {"duplicate", "leak"} and (not kinds - {*FRAME} or row in found.sources)


def _kept(found: Audit, left_out: set[int]) -> Iterator[dict[str, Any]]:
    """The records that are written. The files are read again: to hold all columns would take their size in memory."""
    rows = {place: row for row, place in enumerate(found.rows.places)}
    for place, record, _ in records(found.rows.files):
        row = rows.get(place)
        if record is None or row is None or row in left_out:
            continue
        kinds = {fault.kind for fault in found.faults.get(row, [])}
        messages = found.messages[row]
        if kinds - {*FRAME}:
            messages = _answered(messages, found.sources[row])
        if not found.rows.texts:
            others = record if "messages" in record else {key: record[key] for key in record if key not in _SPOKEN}
            yield others | {"messages": messages}
        elif kinds or found.misframed:
            yield record | {"text": render(found.template, messages)}
        else:
            yield record  # to the last space as it was


def _answered(messages: Sequence[Message], source: Sequence[Message]) -> list[Message]:
    """The source's messages up to the last answer, behind the system text that only the row has."""
    said = without_system(source)
    led = source if len(said) < len(source) else messages
    system = led[: len(led) - len(without_system(led))]
    last = max((at for at, message in enumerate(said) if message["role"] == ASSISTANT), default=-1)
    return [*system, *said[: last + 1]]


def _write_lines(file: IO[bytes], kept: Iterable[dict[str, Any]]) -> int:
    written = 0
    for record in kept:
        line = json.dumps(record, ensure_ascii=False, default=str) + "\n"
        file.write(
            line.encode(errors="backslashreplace")
        )  # half an emoji, which stood there as an escape, is one again
        written += 1
    return written


def _write_parquet(file: IO[bytes], kept: Iterable[dict[str, Any]], out: Path) -> int:
    records = [*kept]
    names = dict.fromkeys(name for record in records for name in record)
    try:  # Arrow's own conversion: it refuses values of several types in a column, where Polars would make them null
        table = pa.table({name: pa.array([record.get(name) for record in records]) for name in names})
        pq.write_table(table, file)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeEncodeError) as fault:
        raise InputError(f"{out}: the rows fit no columns ({str(fault).splitlines()[0]}); write .jsonl.") from None
    return len(records)
