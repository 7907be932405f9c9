"""Work whose results the cache of a store keeps: partitions as read, fingerprints, and near-duplicates.

A key covers all that a result depends on: the bytes, the options that decide what is made of them, the code of dataprep
and the versions of the libraries. A partition is named by all bytes before its end, so an appended file is read from its
first changed partition on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.common.errors import EmptyFile
from dataprep.common.executor import Executor
from dataprep.common.frames import Stored, map_frame, write_frame
from dataprep.common.progress import Advance, ignore_progress
from dataprep.dedup.corpus import half_of_memory
from dataprep.dedup.fingerprints import Fingerprints, FingerprintTable, fingerprint, sketched_text
from dataprep.dedup.near import remove_near_duplicates
from dataprep.dedup.normal_form import ComparedText
from dataprep.engine.cache import Cache, key_of
from dataprep.recipe import Recipe
from dataprep.sources.files import is_changed
from dataprep.sources.partitions import PartitionPlace, PartitionRows, ReadTask, read_partition
from dataprep.sources.rows import FieldCounts
from dataprep.sources.samples import UnknownFormat
from dataprep.store.version import code_digest, library_versions
from dataprep.tables import CONVERSATIONS, StageResult

_READ_OPTIONS_OF_ALL = ("format", "limit", "lang", "skip_unknown")  # they do not decide what one partition holds
_ROWS_OF_TASK = 1 << 14  # conversations of no partition that are fingerprinted at a time
_LINE_BITS = 40  # of a number that orders conversations by file and line
_NO_ROWS = pl.DataFrame(schema=CONVERSATIONS)


@dataclass(frozen=True)
class CachedReader:
    """Reads partitions like `read_partition`, and keeps and reuses the results."""

    cache: Cache

    def __call__(self, task: ReadTask) -> PartitionRows | EmptyFile | UnknownFormat:
        """Return what `read_partition` returns."""
        if task.frames is None or task.limit is not None:
            return read_partition(task)
        key = key_of(_read_parts(task))
        target = task.frames.with_name(f"{task.frames.name}-kept")
        files = self.cache.fetch(key, target)
        rows = _rows_of(files, key) if files else None
        if rows is None:
            result = read_partition(task)
            if not isinstance(result, PartitionRows):
                return result
            if is_changed(task.file):  # what was read may not be what the key says; the build will refuse the file
                return result
            self.cache.store(key, _files_of(result, target))
            rows = result._replace(key=key)
        task.advance(
            task.file.bytes if task.stop is None and not task.start else (task.stop or task.file.bytes) - task.start
        )
        return rows


def _read_parts(task: ReadTask) -> dict[str, Any]:
    options = {key: value for key, value in dataclasses.asdict(task.options).items() if key not in _READ_OPTIONS_OF_ALL}
    is_part_of_lines = task.start or task.stop is not None
    return {
        "what": "partition as read",
        "content": list(task.content),
        "starts the file": not task.start,
        "is a part": bool(is_part_of_lines),
        "name": task.file.name,
        "suffixes": task.file.path.suffixes[-2:],
        "split": [task.file.split, task.file.split_stated],
        "format": task.options.format if task.recognised is None else task.recognised.format,
        "samples": None if task.recognised is None else _json_digest(task.recognised.samples),
        "options": json.loads(json.dumps(options, default=str)),
        "frame bytes": task.frame_bytes,
        **_program(),
    }


@cache
def _program() -> dict[str, Any]:
    return {"code": code_digest(), "libraries": library_versions()}


def _json_digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, default=str).encode(errors="surrogatepass")).hexdigest()


def _files_of(rows: PartitionRows, target: Path) -> dict[str, Path]:
    """Write what is not in frames to files, and return all files of an entry."""
    head = {
        **{
            name: getattr(rows, name)
            for name in ("format", "has_trees", "records", "lines", "has_known_roles", "breaks_off")
        },
        "counts": vars(rows.counts),
        "frames": len(rows.frames),
    }
    head_file = target.with_name(f"{target.name}-head.json")
    head_file.write_text(json.dumps(head))
    rejects = write_frame(target.with_name(f"{target.name}-rejects"), rows.rejects)
    frames = {f"frame-{number}": frame for number, frame in enumerate(rows.frames) if isinstance(frame, Path)}
    return {"head.json": head_file, "rejects": rejects, **frames}


def _rows_of(files: Mapping[str, Path], key: str) -> PartitionRows | None:
    """Return the partition in the files of an entry."""
    head = json.loads(files["head.json"].read_text())
    counts: dict[str, Any] = {
        name: Counter(value) if isinstance(value, dict) else value for name, value in head.pop("counts").items()
    }
    frames: list[Stored] = [files[f"frame-{number}"] for number in range(head.pop("frames"))]
    return PartitionRows(
        frames=frames,
        rejects=map_frame(files["rejects"]),
        counts=FieldCounts(**counts),
        key=key,
        **head,
    )


@dataclass(frozen=True)
class FingerprintTask:
    """Conversations of one partition, or of none in particular, to be fingerprinted."""

    rows: pl.DataFrame  # messages, and tools if any conversation has some
    lines: npt.NDArray[np.int64]  # ascending; numbers each conversation within the partition
    compared: ComparedText | None
    key: str | None  # of the entry in the cache; None: nothing is kept
    cache: Cache | None
    target: Path | None  # files of the build begin with this path


def fingerprint_rows(task: FingerprintTask) -> Fingerprints:
    """Fingerprint conversations; take what the cache has of them."""
    if task.cache is None or task.key is None or task.target is None:
        return fingerprint(task.rows, task.compared)
    files = task.cache.fetch(task.key, task.target)
    if files is None:
        fresh = fingerprint(task.rows, task.compared)
        _keep(task, task.lines, fresh)
        return fresh
    lines = np.load(files["lines"])
    known = Fingerprints(*(np.load(files[name], mmap_mode="r") for name in Fingerprints._fields))
    places = np.minimum(np.searchsorted(lines, task.lines), max(len(lines) - 1, 0))
    is_known = lines[places] == task.lines if len(lines) else np.zeros(len(task.lines), bool)
    if is_known.all():
        return known.take(places)
    more = fingerprint(task.rows.filter(~is_known), task.compared)
    all_lines = np.concatenate([lines, task.lines[~is_known]])
    order = np.argsort(all_lines, kind="stable")
    joined = Fingerprints.concatenated([known, more]).take(order)
    _keep(task, all_lines[order], joined)
    return joined.take(np.searchsorted(all_lines[order], task.lines))


def _keep(task: FingerprintTask, lines: npt.NDArray[np.int64], fingerprints: Fingerprints) -> None:
    assert task.cache is not None and task.key is not None and task.target is not None
    files = {}
    columns: dict[str, npt.NDArray[Any]] = {"lines": lines, **fingerprints._asdict()}
    for name, column in columns.items():
        files[name] = task.target.with_name(f"{task.target.name}-new-{name}")
        with files[name].open("wb") as file:
            np.save(file, column)
    task.cache.store(task.key, files)


def fingerprint_table(
    conversations: pl.DataFrame,
    partitions: Sequence[PartitionPlace],
    recipe: Recipe,
    tokens: Sequence[str],
    executor: Executor,
    cache: Cache | None,
    scratch: Path | None,
    advance: Advance = ignore_progress,
) -> FingerprintTable:
    """Fingerprint conversations, one task for each partition.

    Args:
        conversations: CONVERSATIONS after the rules, in the order of their rows.
        partitions: of the sources, in order.
        recipe, tokens: decide which text is sketched, and which repairs come before (see `curate.repairs`).
        executor: runs the tasks.
        cache: keeps the results.
        scratch: folder for files of the build; None: all stays in memory.
        advance: called with the number of conversations so far.
    """
    compared = sketched_text(recipe)
    rows = conversations["row"].to_numpy()
    columns = conversations.select(name for name in ("messages", "tools") if name in conversations.columns)
    place = _places(conversations["file"], conversations["line"])
    tasks = []
    for number, (start, stop, part) in enumerate(_ranges(place, partitions)):
        lines = place[start:stop] - place[start] if part is None else place[start:stop] - _place(part.file, part.first)
        is_one_row_a_line = bool((np.diff(lines) > 0).all())
        key = part.key if part and is_one_row_a_line else None
        target = scratch / f"fingerprints-{number:06d}" if scratch else None
        entry = _fingerprint_key(key, compared, recipe, tokens) if key else None
        tasks.append(FingerprintTask(columns[start:stop], lines, compared, entry, cache, target))
    parts = _counted(executor.map(fingerprint_rows, tasks), advance)
    return FingerprintTable(rows, _concatenated(parts, len(rows), compared, scratch), compared)


def _counted(parts: Iterable[Fingerprints], advance: Advance) -> Iterator[Fingerprints]:
    done = 0
    for part in parts:
        done += len(part.size)
        advance(done)
        yield part


def _place(file: int, line: int) -> int:
    return file << _LINE_BITS | line


def _places(file: pl.Series, line: pl.Series) -> npt.NDArray[np.int64]:
    places: npt.NDArray[np.int64] = file.to_numpy().astype(np.int64) << _LINE_BITS | line.to_numpy()
    return places


def _ranges(
    place: npt.NDArray[np.int64], partitions: Sequence[PartitionPlace]
) -> Iterator[tuple[int, int, PartitionPlace | None]]:
    """Yield the ranges of rows of each partition, and those between partitions in pieces of `_ROWS_OF_TASK`."""
    start = 0
    for part in [*partitions, None]:
        low = len(place) if part is None else int(np.searchsorted(place, _place(part.file, part.first), "right"))
        for at in range(start, low, _ROWS_OF_TASK):
            yield at, min(at + _ROWS_OF_TASK, low), None
        if part is not None:
            start = int(np.searchsorted(place, _place(part.file, part.last), "right"))
            if start > low:
                yield low, start, part


def _fingerprint_key(partition: str, compared: ComparedText | None, recipe: Recipe, tokens: Sequence[str]) -> str:
    """The key of the fingerprints of a partition after the repairs that `recipe` asks for."""
    return key_of(
        {
            "what": "fingerprints",
            "partition": partition,
            "compared": compared,
            **_repairs(recipe, tokens),
            **_program(),
        }
    )


def _concatenated(
    parts: Iterable[Fingerprints], rows: int, compared: ComparedText | None, scratch: Path | None
) -> Fingerprints:
    """Return the fingerprints of all parts: in a mapped file if there is a folder for it."""
    if scratch is None or not rows:
        return Fingerprints.concatenated([*parts] or [fingerprint(_NO_ROWS, compared)])
    files: dict[str, IO[bytes]] = {}
    with ExitStack() as stack:
        for part in parts:
            columns: dict[str, npt.NDArray[Any]] = part._asdict()
            for name, column in columns.items():
                if name not in files:
                    # written and then mapped: a write to a mapped file on a full disk would end the process
                    files[name] = stack.enter_context((scratch / f"table-{name}.npy").open("wb"))
                    _write_header(files[name], (rows, *column.shape[1:]), column.dtype)
                files[name].write(np.ascontiguousarray(column).data)
    return Fingerprints(**{name: np.load(scratch / f"table-{name}.npy", mmap_mode="r") for name in files})


def _write_header(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    description = np.lib.format.dtype_to_descr(dtype)
    np.lib.format.write_array_header_1_0(file, {"shape": shape, "fortran_order": False, "descr": description})


def cached_near_duplicates(
    conversations: pl.DataFrame,
    recipe: Recipe,
    tokens: Sequence[str],
    max_memory: int | None,
    table: FingerprintTable,
    partitions: Sequence[PartitionPlace],
    cache: Cache | None,
    scratch: Path | None,
) -> StageResult[dict[str, Any] | None]:
    """Return what `remove_near_duplicates` returns, from the cache if the same conversations were compared before.

    Args:
        conversations: CONVERSATIONS, all of them from `partitions`.
        recipe, tokens, table, cache, scratch: as for `fingerprint_table`.
        max_memory: bytes that the search may use, which the report names.
        partitions: all that was read; empty: the result is not kept, because something was read that has no key.
    """
    if cache is None or scratch is None or not partitions or recipe.near_threshold is None:
        return remove_near_duplicates(conversations, recipe, max_memory, table)
    rows = np.ascontiguousarray(conversations["row"].to_numpy())
    key = key_of(
        {
            "what": "near-duplicates",
            "partitions": [[part.file, part.first, part.key] for part in partitions],
            "rows": hashlib.sha256(rows.data).hexdigest(),
            "options": [recipe.near_dup, recipe.near_dup_on, recipe.near_dup_siblings],
            "memory": max_memory or half_of_memory(),
            **_repairs(recipe, tokens),
            **_program(),
        }
    )
    files = cache.fetch(key, scratch / "near-duplicates")
    if files is not None:
        fates = map_frame(files["fates"])
        kept = conversations.filter(~pl.col("row").is_in(fates["row"].implode()))
        return StageResult(kept, fates, report=json.loads(files["report.json"].read_text()))
    result = remove_near_duplicates(conversations, recipe, max_memory, table)
    report = scratch / "near-report.json"
    report.write_text(json.dumps(result.report))
    cache.store(key, {"fates": write_frame(scratch / "near-fates.arrow", result.fates), "report.json": report})
    return result


def _repairs(recipe: Recipe, tokens: Sequence[str]) -> dict[str, Any]:
    """The options that decide which repairs change texts (see `curate.repairs`)."""
    return {"system": recipe.system, "escaped": list(tokens) if recipe.control_tokens == "escape" else None}
