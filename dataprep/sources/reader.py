"""Read source files into messages (tree formats), conversations (flat formats) and the fates of unreadable records.

A file is a stream of units (blocks of JSON lines, record batches). Each unit is parsed into the schema of the file's
format and converted to a frame, two units at a time, and the frames are concatenated in the order of the files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import polars as pl
import pyarrow as pa

from dataprep.common.errors import EmptyFile, InputError
from dataprep.common.progress import Advance
from dataprep.sources import oasst
from dataprep.sources.containers import MAX_RECORD_BYTES, Unit, count_records, iter_units
from dataprep.sources.files import SourceFile
from dataprep.sources.formats import AUTO, COLUMNS, Format, format_named, parse_unit, recognise
from dataprep.sources.rows import UncoercibleCounts, fit_to_samples, rejects
from dataprep.sources.samples import limited, unknown_format, with_samples
from dataprep.sources.turns import make_ids_unique
from dataprep.tables import CONVERSATIONS, MESSAGES, conform, dropped

WORKERS = 2  # units parsed at a time; bounds the memory and does not change the result


@dataclass(frozen=True)
class Reading:
    """Everything that was read, in the order of the files and of their records.

    `messages` has the schema MESSAGES (tree formats), `conversations` the schema CONVERSATIONS (flat formats; `row` is
    null). `fates` has the schema FATES (`row` is null): the records that became neither. `notes` are sentences.
    """

    messages: pl.DataFrame
    conversations: pl.DataFrame
    fates: pl.DataFrame
    files: list[SourceFile]
    notes: list[str]


@dataclass(frozen=True)
class _FileResult:
    """What one file contains: a frame of messages (`has_trees`) or of conversations, rejects, and notes."""

    file: SourceFile
    has_trees: bool
    frame: pl.DataFrame
    rejects: pl.DataFrame
    notes: list[str]


@dataclass(frozen=True)
class _UnitResult:
    """What one unit contains. `records` is counted before the unit is parsed."""

    frame: pl.DataFrame
    rejects: pl.DataFrame
    uncoercible: UncoercibleCounts
    records: int


def read(
    files: Sequence[SourceFile],
    format: str = AUTO,
    limit: int | None = None,
    advance: Advance = lambda done: None,
    max_record_bytes: int = MAX_RECORD_BYTES,
) -> Reading:
    """Read `files` in order.

    Args:
        files: as `find_files` returns them.
        format: a name of a format, or `auto` to recognise each file's format.
        limit: the most records to read, of all files together.
        advance: called with the number of bytes read so far.
        max_record_bytes: longest record of a JSON file; a longer record is rejected.

    Raises:
        InputError: a file is missing, is not what its name says, or has no known format; or no file has a record.
    """
    stated_format = format_named(format)
    bytes_before, remaining = 0, limit
    results: list[_FileResult] = []
    empty_files: list[EmptyFile] = []
    for number, file in enumerate(files):
        if remaining is not None and remaining <= 0:
            break
        try:
            advance_within = partial(_advance_within, advance, bytes_before)
            result = _read_file(file, number, stated_format, remaining, advance_within, max_record_bytes)
        except EmptyFile as fault:
            empty_files.append(fault)
            result = _empty_result(file)
        results.append(result)
        bytes_before += file.bytes
        remaining = None if remaining is None else remaining - result.file.records
    if not results:
        raise InputError("There is nothing to read: no source is named, or the limit is 0 records.")
    if len(empty_files) == len(results):
        raise empty_files[0]
    return _combine(results)


def _advance_within(advance: Advance, bytes_before: int, done: int) -> None:
    advance(bytes_before + done)


def _empty_result(file: SourceFile) -> _FileResult:
    no_rejects = rejects().with_columns(source=pl.lit(file.name))
    notes = [f"{file.name} is empty: it holds no records."]
    return _FileResult(file, True, pl.DataFrame(schema=MESSAGES), no_rejects, notes)


def _combine(results: list[_FileResult]) -> Reading:
    """Concatenate the results of all files."""
    messages = [result.frame for result in results if result.has_trees]
    conversations = [result.frame for result in results if not result.has_trees]
    lost = pl.concat([result.rejects for result in results])
    return Reading(
        messages=pl.concat(messages) if messages else pl.DataFrame(schema=MESSAGES),
        conversations=conform(make_ids_unique(pl.concat(conversations)), CONVERSATIONS)
        if conversations
        else pl.DataFrame(schema=CONVERSATIONS),
        fates=pl.concat(dropped(lost.filter(pl.col("kind") == kind), kind, "read") for kind in ("line", "message")),
        files=[result.file for result in results],
        notes=[note for result in results for note in result.notes],
    )


def _read_file(
    file: SourceFile, number: int, format: Format | None, limit: int | None, advance: Advance, max_record_bytes: int
) -> _FileResult:
    stream, samples = with_samples(limited(iter_units(file.path, COLUMNS, max_record_bytes), limit), file)
    format = format or recognise(samples)
    if format is None:
        raise unknown_format(file)
    results = list(_convert_units(stream, format, fit_to_samples(format.schema, samples), advance))
    frame = pl.concat(result.frame for result in results)
    lost = pl.concat(result.rejects for result in results).sort("line", maintain_order=True)
    counted = replace(file, format=format.name, records=sum(result.records for result in results))
    notes = _uncoercible_notes(file, sum((result.uncoercible for result in results), UncoercibleCounts()))
    file_number, source = pl.lit(number, pl.Int32).alias("file"), pl.lit(file.name).alias("source")
    if format.has_trees:
        frame = conform(oasst.fill_tree_ids(frame.with_columns(file_number, source)), MESSAGES)
    else:
        frame = frame.with_columns(file_number, pl.coalesce("source", source))
    return _FileResult(counted, format.has_trees, frame, lost.with_columns(source), notes)


def _uncoercible_notes(file: SourceFile, uncoercible: UncoercibleCounts) -> list[str]:
    return [
        f"{file.name}: {count} values of '{column}' have the wrong type and are read as null."
        for column, count in sorted(uncoercible.items())
    ]


def _convert_units(
    stream: Iterable[Unit], format: Format, read_as: pa.Schema, advance: Callable[[int], None]
) -> Iterator[_UnitResult]:
    """Convert the units on `WORKERS` threads (Arrow and NumPy release the GIL) and yield the results in order."""
    pending: deque[tuple[int, Future[_UnitResult]]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for unit in stream:
            pending.append((unit.done, pool.submit(_convert_unit, unit, format, read_as)))
            if len(pending) > WORKERS:
                yield _wait(*pending.popleft(), advance)
        while pending:
            yield _wait(*pending.popleft(), advance)


def _convert_unit(unit: Unit, format: Format, read_as: pa.Schema) -> _UnitResult:
    rows = parse_unit(unit, format, read_as)
    frame, lost = format.convert(rows)
    return _UnitResult(frame, lost, rows.uncoercible, count_records(unit))


def _wait(done: int, future: Future[_UnitResult], advance: Advance) -> _UnitResult:
    result = future.result()
    advance(done)
    return result
