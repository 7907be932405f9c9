"""Sources: from files, folders, globs and Hub ids to messages (of trees), conversations (of flat formats) and fates.

`pin`, `find_files` and `hash_files` come first, because a build's version is known from them; `read` does the work:
each file is a stream of units (blocks of JSON lines, record batches), a unit is parsed into a format's schema and
converted to a frame, two at a time, and frames are put together in the order of the files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import Any

import polars as pl
import pyarrow as pa

from dataprep.common.errors import EmptyFile, InputError
from dataprep.sources import oasst
from dataprep.sources.containers import Batch, Unit, count_records, units
from dataprep.sources.files import Progress, SourceFile, find_files, hash_files, pin
from dataprep.sources.formats import AUTO, COLUMNS, NAMES, Format, as_json, named, recognised, rows_of
from dataprep.sources.jsonlines import decoded, lines, spans
from dataprep.sources.rows import Untold, fitted, rejects
from dataprep.sources.turns import unique_ids
from dataprep.tables import CONVERSATIONS, MESSAGES, conform, dropped

__all__ = ["AUTO", "NAMES", "Progress", "Reading", "SourceFile", "find_files", "hash_files", "pin", "read"]

SAMPLES = 100  # records that a format is recognised from
WORKERS = 2  # units at work at a time; their number bounds memory, and has no influence on what comes out


@dataclass(frozen=True)
class Reading:
    """All that was read. Rows are in the order of the files and of their records.

    `messages` is of MESSAGES (formats with trees), `conversations` of CONVERSATIONS (flat formats; `row` is null),
    `fates` of FATES (`row` is null): the records that never became either, `bad` in number. `notes` are sentences.
    """

    messages: pl.DataFrame
    conversations: pl.DataFrame
    fates: pl.DataFrame
    files: list[SourceFile]
    bad: int
    notes: list[str]


@dataclass(frozen=True)
class _Part:
    """What one file gave: a frame of messages (`has_trees`) or of conversations, rejects, and notes."""

    file: SourceFile
    has_trees: bool
    frame: pl.DataFrame
    rejects: pl.DataFrame
    notes: list[str]


@dataclass(frozen=True)
class _Converted:
    """What one unit gave, and how many records it had before anybody looked into them."""

    frame: pl.DataFrame
    rejects: pl.DataFrame
    untold: Untold
    records: int


def read(
    files: Sequence[SourceFile],
    format: str = AUTO,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Reading:
    """Read `files`, in order, up to `limit` records in all; `progress` gets bytes done and bytes in all.

    Raises:
        InputError: a file that is missing, not what its name says, or of no known format; or no record in any file.
    """
    form = named(format)
    total, before, left = sum(file.bytes for file in files), 0, limit
    parts: list[_Part] = []
    empty: list[EmptyFile] = []
    for number, file in enumerate(files):
        if left is not None and left <= 0:
            break
        try:
            part = _read_file(file, number, form, left, partial(_report, progress, before, total))
        except EmptyFile as fault:
            empty.append(fault)
            part = _nothing(file)
        parts.append(part)
        before += file.bytes
        left = None if left is None else left - part.file.records
    if not parts:
        raise InputError("Nothing is read: no source is named, or the limit is no record at all.")
    if len(empty) == len(parts):
        raise empty[0]
    return _put_together(parts)


def _nothing(file: SourceFile) -> _Part:
    """What an empty file gives."""
    lost = rejects().with_columns(source=pl.lit(file.name))
    return _Part(file, True, pl.DataFrame(schema=MESSAGES), lost, [f"{file.name} is empty: nothing is read from it."])


def _report(progress: Progress, before: int, total: int, done: int) -> None:
    progress(min(before + done, total), total)


def _put_together(parts: list[_Part]) -> Reading:
    messages = [part.frame for part in parts if part.has_trees]
    flat = [part.frame for part in parts if not part.has_trees]
    lost = pl.concat([part.rejects for part in parts])
    return Reading(
        messages=pl.concat(messages) if messages else pl.DataFrame(schema=MESSAGES),
        conversations=conform(unique_ids(pl.concat(flat)), CONVERSATIONS)
        if flat
        else pl.DataFrame(schema=CONVERSATIONS),
        fates=pl.concat(dropped(lost.filter(pl.col("kind") == kind), kind, "read") for kind in ("line", "message")),
        files=[part.file for part in parts],
        bad=len(lost),
        notes=[note for part in parts for note in part.notes],
    )


def _read_file(
    file: SourceFile, number: int, form: Format | None, limit: int | None, progress: Callable[[int], None]
) -> _Part:
    stream, samples = _sampled(_limited(units(file.path, COLUMNS), limit), file)
    form = form or recognised(samples)
    if form is None:
        raise InputError(_unknown(file))
    parts = list(_converted(stream, form, fitted(form.schema, samples), progress))
    frame = pl.concat(part.frame for part in parts)
    lost = pl.concat(part.rejects for part in parts).sort("line", maintain_order=True)
    read = replace(file, format=form.name, records=sum(part.records for part in parts))
    notes = _notes(file, sum((part.untold for part in parts), Untold()))
    place = [pl.lit(number, pl.Int32).alias("file"), pl.lit(file.name).alias("source")]
    if form.has_trees:
        frame = conform(oasst.with_trees(frame.with_columns(place)), MESSAGES)
    else:
        frame = frame.with_columns(place[0], pl.coalesce("source", place[1]))
    return _Part(read, form.has_trees, frame, lost.with_columns(place[1]), notes)


def _notes(file: SourceFile, untold: Untold) -> list[str]:
    return [
        f"{file.name}: {count} values of '{column}' are none that it can have, and are taken as not told."
        for column, count in sorted(untold.items())
    ]


def _converted(
    stream: Iterable[Unit], form: Format, read_as: pa.Schema, progress: Callable[[int], None]
) -> Iterator[_Converted]:
    """What each unit gives, in order. Arrow and NumPy leave Python's lock, so threads do."""
    waiting: deque[tuple[int, Future[_Converted]]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for unit in stream:
            waiting.append((unit.done, pool.submit(_convert, unit, form, read_as)))
            if len(waiting) > WORKERS:
                yield _finished(*waiting.popleft(), progress)
        while waiting:
            yield _finished(*waiting.popleft(), progress)


def _convert(unit: Unit, form: Format, read_as: pa.Schema) -> _Converted:
    rows = rows_of(unit, form, read_as)
    frame, lost = form.convert(rows)
    return _Converted(frame, lost, rows.untold, count_records(unit))


def _finished(done: int, work: Future[_Converted], progress: Callable[[int], None]) -> _Converted:
    result = work.result()
    progress(done)
    return result


def _limited(stream: Iterator[Unit], limit: int | None) -> Iterator[Unit]:
    """`stream` up to `limit` records; the rest of the file is not read."""
    if limit is None:
        yield from stream
        return
    for unit in stream:
        if isinstance(unit, Batch):
            count = len(unit.data)
            unit = unit._replace(data=unit.data.slice(0, limit))
        else:
            starts, ends, _ = spans(unit.data)
            records = [end for start, end in zip(starts, ends, strict=True) if unit.data[start:end].strip()]
            count = len(records)
            unit = unit._replace(data=unit.data[: records[limit - 1]] if count > limit else unit.data)
        yield unit
        limit -= count
        if limit <= 0:
            return


def _sampled(stream: Iterator[Unit], file: SourceFile) -> tuple[Iterator[Unit], list[Mapping[str, Any]]]:
    """`stream` as it was, and the first readable records in it.

    Raises:
        EmptyFile: there is no record in the whole file.
        InputError: there is none that can be read.
    """
    seen: list[Unit] = []
    why = ""
    for unit in stream:
        seen.append(unit)
        samples, faults = _samples(unit)
        if samples:
            return chain(seen, stream), samples
        why = why or next(iter(faults), "")
    if not why:
        raise EmptyFile(f"{file.path} is empty: it holds no record at all.")
    raise InputError(f"{file.path} holds no record that can be read: {why}.")


def _samples(unit: Unit) -> tuple[list[Mapping[str, Any]], list[str]]:
    """The first readable records of a unit, and what was wrong with others."""
    if isinstance(unit, Batch):
        unit = as_json(unit.data.slice(0, SAMPLES), unit.line)._replace(fault=unit.fault)
    records: list[Mapping[str, Any]] = []
    faults: list[str] = []
    for line, data in lines(unit):
        record, _, detail = decoded(data)
        if record is None:
            faults.append(f"line {line} {detail}")
        else:
            records.append(record)
        if len(records) == SAMPLES:
            break
    return records, [*faults, unit.fault] if unit.fault else faults


def _unknown(file: SourceFile) -> str:
    """A sentence about a file whose records are of no known format."""
    stream, samples = _sampled(units(file.path, None), file)
    found = ", ".join(f"'{name}'" for name in list(samples[0])[:12]) or "no key at all"
    return (
        f"{file.path} is of no known format: its first record has {found}. Known are {', '.join(NAMES)}; "
        "if it is one of them, say which with --format."
    )
