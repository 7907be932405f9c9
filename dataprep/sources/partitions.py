"""Read a partition: a part of a source file that is read independently of all others.

Partitions are cut by the files alone (see `containers.cut_points`), so what is read does not depend on how many tasks
read at a time. Within a partition, records are numbered from 1; the reader adds the number of records before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl

from dataprep.common.errors import EmptyFile, InputError
from dataprep.common.frames import Stored, write_frame
from dataprep.common.progress import Advance, ignore_progress
from dataprep.sources.containers import Batch, Unit, count_records, iter_units
from dataprep.sources.files import SourceFile
from dataprep.sources.formats import (
    Format,
    convert_rows,
    format_called,
    is_preference,
    parse_unit,
    recognise,
)
from dataprep.sources.options import ReadOptions
from dataprep.sources.records import rename_keys
from dataprep.sources.rows import FieldCounts
from dataprep.sources.samples import UnknownFormat, limited, unknown_format, with_samples
from dataprep.sources.schema import Parsing, Record
from dataprep.sources.splits import held_out_rows
from dataprep.tables import ROLES, TOOL, message_fields, turns_type

PARTITION_BYTES = 32 << 20  # default size of a partition: a task then takes about half a second and 200 MB of memory
UNITS_AT_A_TIME = 2  # units of a file that are parsed at a time if it is the only one


class Recognised(NamedTuple):
    """The format of a file, and its first records (with renamed keys), which decide how values are parsed."""

    format: str
    samples: list[Record]


@dataclass(frozen=True)
class ReadTask:
    """What to read: the part of `file` from `start` to `stop` (of bytes or row groups)."""

    file: SourceFile
    options: ReadOptions
    start: int = 0
    stop: int | None = None  # None: to the end of the file
    limit: int | None = None  # most records to read
    recognised: Recognised | None = None  # None: the task recognises the format itself
    frames: Path | None = None  # frames are written to files whose names begin with this path; None: kept in memory
    frame_bytes: int = PARTITION_BYTES  # of the source for each frame
    units_at_a_time: int = 1
    advance: Advance = ignore_progress  # called with the bytes read so far
    content: Sequence[str | int | None] = ()  # identifies the bytes to be read, if the result is to be kept


class PartitionRows(NamedTuple):
    """What a partition contains: frames of messages (of formats with trees) or of conversations, rejects and counts."""

    format: str
    has_trees: bool
    frames: list[Stored]
    rejects: pl.DataFrame
    counts: FieldCounts
    records: int  # counted before they are parsed
    lines: int  # by which the records of the next partition are numbered higher
    has_known_roles: bool  # whether any conversation has only roles that are known
    breaks_off: bool  # whether a fault ends the file here
    key: str | None = None  # identifies the content if a cache keeps it


class PartitionPlace(NamedTuple):
    """Where the conversations of a partition lie: in source file number `file`, on the lines `first` + 1 to `last`."""

    file: int
    first: int
    last: int
    key: str


def read_partition(task: ReadTask) -> PartitionRows | EmptyFile | UnknownFormat:
    """Read a partition.

    Returns:
        The rows; or why there are none, which is no error where other files have rows.

    Raises:
        InputError: the file is missing, is not what its name says, or holds preference records without `--preference`.
    """
    units = limited(iter_units(task.file.path, task.options.max_record_bytes, task.start, task.stop), task.limit)
    recognised = task.recognised
    try:
        if recognised is None:
            units, recognised = recognise_file(units, task.file, task.options)
    except (EmptyFile, UnknownFormat) as fault:
        return fault
    format = format_called(recognised.format)
    if is_preference(format) and task.options.preference == "refuse":
        raise InputError(
            f"{task.file.path} holds preference records ('chosen' and 'rejected'), each with a better and a worse answer: "
            "--preference chosen trains on the better one."
        )
    return _Collector(task, format).collect(units, format.parsing(recognised.samples, task.options))


def recognise_file(units: Iterator[Unit], file: SourceFile, options: ReadOptions) -> tuple[Iterator[Unit], Recognised]:
    """Return an equal stream of units, and the format of the file that begins with them.

    Raises:
        EmptyFile: the file holds no records.
        UnknownFormat: its records have no known format, or none can be read.
    """
    stream, samples = with_samples(units, file)
    samples = [rename_keys(sample, options.columns) for sample in samples]
    if options.format != "auto":
        return stream, Recognised(options.format, samples)
    format = recognise(samples)
    if format is None:
        raise unknown_format(file, samples)
    return stream, Recognised(format.name, samples)


class _UnitRows(NamedTuple):
    """What one unit contains."""

    frame: pl.DataFrame
    rejects: pl.DataFrame
    counts: FieldCounts
    records: int
    lines: int  # number of its last line
    bytes: int
    has_fault: bool


class _Collector:
    """Collects the units of a partition in frames of bounded size."""

    def __init__(self, task: ReadTask, format: Format) -> None:
        self._task, self._format = task, format
        self._frames: list[Stored] = []
        self._rejects: list[pl.DataFrame] = []
        self._other_split: list[pl.DataFrame] = []
        self._counts = FieldCounts()
        self._has_known_roles = False

    def collect(self, units: Iterator[Unit], parsing: Parsing) -> PartitionRows:
        records, lines, size, breaks_off = 0, 0, 0, False
        open_frames: list[pl.DataFrame] = []
        for unit in self._convert(units, parsing):
            if size >= self._task.frame_bytes:
                self._close(open_frames)
                open_frames, size = [], 0
            open_frames.append(unit.frame)
            self._rejects.append(unit.rejects)
            self._counts.add(unit.counts)
            records += unit.records
            lines, size, breaks_off = max(lines, unit.lines), size + unit.bytes, unit.has_fault
        self._close(open_frames)
        rejects = pl.concat(self._rejects).sort("line", maintain_order=True)
        if self._other_split:
            rejects = pl.concat([rejects, *self._other_split]).sort("line", maintain_order=True)
        name, trees = self._format.name, self._format.has_trees
        known = self._has_known_roles
        return PartitionRows(name, trees, self._frames, rejects, self._counts, records, lines, known, breaks_off)

    def _convert(self, units: Iterator[Unit], parsing: Parsing) -> Iterator[_UnitRows]:
        """Convert the units, several at a time if the task says so, and yield the results in order."""
        if self._task.units_at_a_time == 1:
            for unit in units:
                yield _convert_unit(unit, self._format, parsing, self._task.options)
                self._task.advance(unit.done)
            return
        pending: deque[tuple[int, Future[_UnitRows]]] = deque()
        with ThreadPoolExecutor(self._task.units_at_a_time) as pool:
            for unit in units:
                pending.append((unit.done, pool.submit(_convert_unit, unit, self._format, parsing, self._task.options)))
                if len(pending) > self._task.units_at_a_time:
                    yield self._first(pending)
            while pending:
                yield self._first(pending)

    def _first(self, pending: deque[tuple[int, Future[_UnitRows]]]) -> _UnitRows:
        done, future = pending.popleft()
        result = future.result()
        self._task.advance(done)
        return result

    def _close(self, frames: Sequence[pl.DataFrame]) -> None:
        """Make one frame of the units since the last one."""
        if not frames:
            return
        frame, options = concat_frames(frames), self._task.options
        source = pl.lit(self._task.file.name).alias("source")
        if options.assume_lang is not None:
            frame = frame.with_columns(pl.col("lang").fill_null(options.assume_lang))
        frame = frame.with_columns(source)
        if not self._format.has_trees:
            file = self._task.file
            frame, other_split = held_out_rows(frame, file.split, file.split_stated, options.keep_split)
            self._other_split.append(other_split)
            self._has_known_roles = self._has_known_roles or _any_known_roles(frame, self._counts)
        path = self._task.frames
        self._frames.append(
            frame if path is None else write_frame(path.with_name(f"{path.name}-{len(self._frames)}.arrow"), frame)
        )


def _any_known_roles(frame: pl.DataFrame, counts: FieldCounts) -> bool:
    if not counts.unknown_roles:
        return frame.height > 0
    roles = pl.col("messages").list.eval(pl.element().struct.field("role").is_in([*ROLES, TOOL])).list.all()
    return bool(frame.select(roles.any()).item())


def concat_frames(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate frames of messages, or of conversations, whose message fields and optional columns may differ."""
    fields = {message_fields(frame) for frame in frames}
    if len(fields) > 1:
        wanted = turns_type({name for names in fields for name in names})
        frames = [frame.with_columns(pl.col("messages").cast(wanted)) for frame in frames]
    if len({tuple(frame.columns) for frame in frames}) > 1:
        return pl.concat(frames, how="diagonal")
    return pl.concat(frames)


def _convert_unit(unit: Unit, format: Format, parsing: Parsing, options: ReadOptions) -> _UnitRows:
    parts = parse_unit(unit, format, parsing)
    converted = [convert_rows(rows, format, options) for rows in parts]
    counts = FieldCounts()
    for rows in parts:
        counts.add(rows.counts)
    frame = concat_frames([frame for frame, _ in converted])
    is_batch = isinstance(unit, Batch)
    if isinstance(unit, Batch):
        lines = unit.line - 1 + len(unit.data) + len(unit.rejected)
        size = max(unit.data.nbytes, frame.estimated_size())  # a batch may hold one value for many rows
    else:
        lines, size = unit.line - 1 + unit.bounds.line_ends, len(unit.data)
    lost = pl.concat(lost for _, lost in converted)
    return _UnitRows(frame, lost, counts, count_records(unit), lines, size, bool(unit.fault) and is_batch)
