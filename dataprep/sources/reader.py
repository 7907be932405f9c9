"""Read source files into messages (tree formats), conversations (flat formats) and the fates of unreadable records.

Files are cut into partitions, which are read by tasks (see `partitions`). Their frames are concatenated in the order of
the files and of their records, so the result does not depend on the executor, its workers or the size of a partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

import polars as pl

from dataprep.common.errors import EmptyFile, InputError
from dataprep.common.executor import SERIAL, Executor
from dataprep.common.frames import concat_views, map_frame
from dataprep.common.progress import Advance, ignore_progress
from dataprep.sources import oasst
from dataprep.sources.containers import cut_points, iter_units
from dataprep.sources.files import SourceFile
from dataprep.sources.formats import format_called, format_named
from dataprep.sources.notes import refuse_unused, uncoercible_notes, unknown_role_sentence, unused_notes
from dataprep.sources.options import ReadOptions
from dataprep.sources.partitions import (
    PARTITION_BYTES,
    UNITS_AT_A_TIME,
    PartitionPlace,
    PartitionRows,
    ReadTask,
    Recognised,
    concat_frames,
    read_partition,
    recognise_file,
)
from dataprep.sources.rows import FieldCounts, rejects
from dataprep.sources.samples import UnknownFormat
from dataprep.sources.turns import make_ids_unique
from dataprep.tables import CONVERSATIONS, MESSAGES, conform, dropped


@dataclass(frozen=True)
class Reading:
    """Everything that was read, in the order of the files and of their records.

    `messages` has the schema MESSAGES (tree formats), `conversations` the schema CONVERSATIONS (flat formats; `row` is
    null). `fates` has the schema FATES (`row` is null): the records that became neither. `notes` are sentences.
    `unused_fields` counts the values of keys that are not used; a key inside of messages is called `messages.key`.
    """

    messages: pl.DataFrame
    conversations: pl.DataFrame
    fates: pl.DataFrame
    files: list[SourceFile]
    notes: list[str]
    unused_fields: dict[str, int]
    partitions: list[PartitionPlace] = field(default_factory=list)  # of conversations, those with a key
    all_have_keys: bool = False  # whether these partitions hold all that was read


@dataclass(frozen=True)
class _FileResult:
    """What one file contains: a frame of messages (`has_trees`) or of conversations, rejects, notes and counts."""

    file: SourceFile
    has_trees: bool
    frame: pl.DataFrame
    rejects: pl.DataFrame
    notes: list[str]
    counts: FieldCounts
    partitions: list[PartitionPlace] = field(default_factory=list)
    has_keys: bool = False  # whether these partitions hold the whole file


PartitionReader = Callable[[ReadTask], PartitionRows | EmptyFile | UnknownFormat]


@dataclass(frozen=True)
class Partitioning:
    """How files are cut, and where the frames that are read are kept."""

    max_bytes: int = PARTITION_BYTES
    folder: Path | None = None  # for files of frames; None: they are kept in memory
    read: PartitionReader = read_partition


def read(
    files: Sequence[SourceFile],
    options: ReadOptions | None = None,
    advance: Advance = ignore_progress,
    executor: Executor = SERIAL,
    partitioning: Partitioning | None = None,
) -> Reading:
    """Read `files` in order.

    Args:
        files: as `find_files` returns them.
        options: the format, the most records to read, and so on.
        advance: called with the number of bytes read so far.
        executor: reads the partitions.
        partitioning: how files are cut.

    Raises:
        InputError: a file is missing, is not what its name says, or has no known format; or no file has a record.
    """
    options = options or ReadOptions()
    format_named(options.format)
    results: list[_FileResult] = []
    empty_files: list[EmptyFile] = []
    skipped: list[UnknownFormat] = []
    for file, parts in _partitions(files, options, advance, executor, partitioning or Partitioning()):
        if isinstance(parts, UnknownFormat):
            if not options.skip_unknown:
                raise parts
            skipped.append(parts)
        elif isinstance(parts, EmptyFile):
            empty_files.append(parts)
            results.append(_empty_result(file))
        else:
            results.append(_file_result(file, len(results), parts, options))
    if not results and not skipped:
        raise InputError("There is nothing to read: no source is named, or the limit is 0 records.")
    if len(empty_files) == len(results):
        raise (empty_files or skipped)[0]
    names = {result.file.name for result in results}
    return _combine(results, _skipped_notes([file for file in files if file.name not in names], skipped), options)


_Parts = list[PartitionRows] | EmptyFile | UnknownFormat


def _partitions(
    files: Sequence[SourceFile], options: ReadOptions, advance: Advance, executor: Executor, how: Partitioning
) -> Iterator[tuple[SourceFile, _Parts]]:
    """Yield each file that is read, with its partitions in order or the reason why it has none."""
    tally = _ByteCount(advance)
    if options.limit is not None:
        yield from _up_to_limit(files, options, options.limit, how)
        return
    counts: list[int] = []  # of the tasks of each file, as far as they are made
    results = iter(executor.map(how.read, _tasks(files, options, how, counts, tally if executor.in_process else None)))
    done = 0
    for position, file in enumerate(files):
        parts: list[PartitionRows | EmptyFile | UnknownFormat] = []
        while not parts or len(parts) < counts[position]:
            parts.append(next(results))
            if not executor.in_process:
                advance(done + file.bytes * len(parts) // counts[position])
        done += file.bytes
        fault = next((part for part in parts if isinstance(part, EmptyFile | UnknownFormat)), None)
        yield file, fault or [part for part in parts if isinstance(part, PartitionRows)]


def _tasks(
    files: Sequence[SourceFile],
    options: ReadOptions,
    how: Partitioning,
    counts: list[int],
    tally: _ByteCount | None,
) -> Iterator[ReadTask]:
    """Yield the tasks that read the files; append the number of tasks of each file to `counts`."""
    number = 0
    for file in files:
        cuts, recognised = _cut(file, options, how.max_bytes)
        counts.append(len(cuts) + 1)
        plain = replace(file, hashed=None)  # can be sent to another process
        for start, stop in zip([0, *cuts], [*cuts, None], strict=True):
            frames = how.folder and how.folder / f"read-{number:06d}"
            units_at_a_time = UNITS_AT_A_TIME if len(files) == 1 and not cuts else 1
            advance = tally.of_task(number) if tally else ignore_progress
            content = file.content_of(start, stop) if how.folder else []
            yield ReadTask(
                plain, options, start, stop, None, recognised, frames, how.max_bytes, units_at_a_time, advance, content
            )
            number += 1


def _cut(file: SourceFile, options: ReadOptions, max_bytes: int) -> tuple[list[int], Recognised | None]:
    """Return where to cut a file and, if it is cut, its format, which is recognised from its beginning."""
    cuts = cut_points(file.path, max_bytes)
    if not cuts:
        return [], None
    try:
        _, recognised = recognise_file(iter_units(file.path, options.max_record_bytes), file, options)
    except (EmptyFile, UnknownFormat):
        return [], None  # the task that reads the whole file finds the same
    return cuts, recognised


def _up_to_limit(
    files: Sequence[SourceFile], options: ReadOptions, limit: int, how: Partitioning
) -> Iterator[tuple[SourceFile, _Parts]]:
    """Read whole files one after the other until they have `limit` records."""
    for number, file in enumerate(files):
        if limit <= 0:
            return
        frames = how.folder and how.folder / f"read-{number:06d}"
        part = read_partition(ReadTask(file, options, limit=limit, frames=frames, frame_bytes=how.max_bytes))
        if isinstance(part, PartitionRows):
            limit -= part.records
            yield file, [part]
        else:
            yield file, part


class _ByteCount:
    """Adds up what tasks on several threads have read."""

    def __init__(self, advance: Advance) -> None:
        self._advance, self._lock = advance, Lock()
        self._done: dict[int, int] = {}

    def of_task(self, number: int) -> Advance:
        def advance(done: int) -> None:
            with self._lock:
                self._done[number] = done
                self._advance(sum(self._done.values()))

        return advance


def _skipped_notes(files: Sequence[SourceFile], skipped: Sequence[UnknownFormat]) -> list[str]:
    if not skipped:
        return []
    listed = ", ".join(file.name for file in files[:5]) + (", …" if len(files) > 5 else "")
    count, are = ("1 file has", "is") if len(skipped) == 1 else (f"{len(skipped)} files have", "are")
    return [f"{count} no known format and {are} skipped (--skip-unknown): {listed}."]


def _empty_result(file: SourceFile) -> _FileResult:
    no_rejects = rejects().with_columns(source=pl.lit(file.name))
    notes = [f"{file.name} is empty: it holds no records."]
    return _FileResult(file, True, pl.DataFrame(schema=MESSAGES), no_rejects, notes, FieldCounts())


def _combine(results: list[_FileResult], notes: list[str], options: ReadOptions) -> Reading:
    """Concatenate the results of all files."""
    messages = [result.frame for result in results if result.has_trees]
    conversations = [result.frame for result in results if not result.has_trees]
    lost = pl.concat([result.rejects for result in results])
    counts = FieldCounts()
    for result in results:
        counts.add(result.counts)
    # the keys of trees are those of their messages
    records = sum(result.frame.height if result.has_trees else result.file.records for result in results)
    noun = "records" if conversations else "messages"
    reading = Reading(
        messages=concat_views(messages) if messages else pl.DataFrame(schema=MESSAGES),
        conversations=conform(make_ids_unique(concat_views([concat_frames(conversations)])), CONVERSATIONS)
        if conversations
        else pl.DataFrame(schema=CONVERSATIONS),
        fates=pl.concat(dropped(lost.filter(pl.col("kind") == kind), kind, "read") for kind in ("line", "message")),
        files=[result.file for result in results],
        notes=[
            *notes,
            *(result.file.note for result in results if result.file.note),
            *(note for result in results for note in result.notes),
            *unused_notes(counts, records, noun),
        ],
        unused_fields=dict(sorted(counts.unused.items())),
        partitions=[place for result in results for place in result.partitions],
        all_have_keys=all(result.has_keys for result in results),
    )
    _check_language(reading, options)
    return reading


def _check_language(reading: Reading, options: ReadOptions) -> None:
    """Refuse to select languages if no record states one: all of them would be dropped.

    Raises:
        InputError: names the option that would work.
    """
    frames = [frame["lang"] for frame in (reading.messages, reading.conversations) if not frame.is_empty()]
    if options.lang and frames and all(langs.null_count() == len(langs) for langs in frames):
        tag = options.lang[0]
        raise InputError(
            f"No record has a language tag, so --lang {','.join(options.lang)} would drop all of them: if they are in "
            f"that language, add --assume-lang {tag}; otherwise leave out --lang."
        )


def _file_result(file: SourceFile, number: int, parts: Sequence[PartitionRows], options: ReadOptions) -> _FileResult:
    """Put the partitions of a file together; records are numbered through the file.

    Raises:
        InputError: the file has keys or roles that the options do not allow.
    """
    counts, frames, lost, lines, records = FieldCounts(), [], [], 0, 0
    places: list[PartitionPlace] = []
    for part in parts:
        counts.add(part.counts)
        number_in_file = pl.col("line") + lines
        frames += [map_frame(frame).with_columns(number_in_file) for frame in part.frames]
        lost.append(part.rejects.with_columns(number_in_file))
        if part.key and not part.has_trees:
            places.append(PartitionPlace(number, lines, lines + part.lines, part.key))
        lines, records = lines + part.lines, records + part.records
        if part.breaks_off:
            break
    format = format_called(parts[0].format)
    counted = replace(file, format=format.name, records=records)
    notes = uncoercible_notes(file, counts)
    if options.unknown_fields == "error":
        refuse_unused(file, counts, format.schema.metadata)
    frame = concat_views([concat_frames(frames)]).with_columns(pl.lit(number, pl.Int32).alias("file"))
    if format.has_trees:
        frame = conform(oasst.fill_tree_ids(frame), MESSAGES)
    elif counts.unknown_roles:
        sentence = unknown_role_sentence(counted, counts.unknown_roles)
        if not any(part.has_known_roles for part in parts):
            raise InputError(sentence)
        notes.append(sentence)
    source = pl.lit(file.name).alias("source")
    has_keys = not format.has_trees and len(places) == len(parts)
    return _FileResult(
        counted, format.has_trees, frame, pl.concat(lost).with_columns(source), notes, counts, places, has_keys
    )
