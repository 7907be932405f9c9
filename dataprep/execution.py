"""Where and how the stages of one build run: executor, folder for temporary files, cache, memory, progress."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dataprep.cached_tasks import CachedReader
from dataprep.common.errors import RecipeError, StoreError
from dataprep.common.executor import Executor
from dataprep.common.files import disk_errors, temporary_folder
from dataprep.common.progress import Progress
from dataprep.engine.cache import CACHE_FOLDER, Cache
from dataprep.engine.executors import available_cpus, open_executor
from dataprep.resources import Resources
from dataprep.sources.partitions import read_partition
from dataprep.sources.reader import Partitioning
from dataprep.store.commit import new_version, scratch_folder

BASE_BYTES = 512 << 20  # of the libraries, and of the process that judges the gate
TASK_FACTOR = 8  # bytes of memory for each byte of a partition while a task works on it
ROW_BYTES = 1_200  # of a conversation in the tables of all stages together: views, numbers and fates, but no text


@dataclass(frozen=True)
class Execution:
    """What the stages of a build run with; nothing of it changes their results."""

    executor: Executor
    partitioning: Partitioning
    cache: Cache | None  # None: nothing is kept, because the sources are small or by --no-cache
    max_memory: int | None
    progress: Progress
    folder: Callable[[], Path]  # returns the version's temporary folder, which the first call makes

    def memory_beside(self, rows: int) -> int | None:
        """Return the bytes that duplicates may be searched with, beside the tables of so many conversations.

        Sources that stay in memory are small: the search may use all of `max_memory`. None: half of the machine's.

        Raises:
            RecipeError: the tables do not fit.
        """
        if self.scratch is None or self.max_memory is None:
            return self.max_memory
        left = self.max_memory - BASE_BYTES - rows * ROW_BYTES
        if left <= 0:
            raise RecipeError(
                f"The tables of {rows:,} conversations take about {(rows * ROW_BYTES) >> 20:,} MiB beside "
                f"{BASE_BYTES >> 20} MiB for the program, but --max-memory allows {self.max_memory >> 20:,} MiB: allow "
                "more, or build a part of the sources."
            )
        return left

    @property
    def scratch(self) -> Path | None:
        """The folder for temporary files; None: all stays in memory."""
        return self.partitioning.folder


@contextmanager
def open_execution(
    resources: Resources, store: Path, name: str, source_bytes: float, dry_run: bool, progress: Progress
) -> Iterator[Execution]:
    """Start what a build runs with, and end it afterwards.

    Sources of at most one partition stay in memory, without temporary files, unless they may expand (see `SourceFile`).
    Those of larger ones lie beside the version that is written, and are removed with its temporary folder; those of a dry
    run in the system's temporary directory.

    Raises:
        DataprepError: the store cannot be written, or the cluster cannot be reached or does not share the store.
    """
    is_large = source_bytes > resources.partition_size
    with ExitStack() as stack:
        executor = stack.enter_context(open_executor(_within_memory(resources) if is_large else resources))
        folder = functools.cache(lambda: stack.enter_context(new_version(store, name)))
        scratch: Path | None = None
        cache: Cache | None = None
        if is_large:
            if dry_run:
                place = Path(tempfile.gettempdir())
                advice = f"free some space in {place}, or name another folder by TMPDIR"
                stack.enter_context(disk_errors(StoreError, "The temporary files of the dry run", advice, place))
                scratch = stack.enter_context(temporary_folder("dataprep-scratch"))
            else:
                scratch = scratch_folder(folder())
                cache = None if resources.no_cache else Cache(store / CACHE_FOLDER)
            executor.require_shared(scratch)
        reader = CachedReader(cache) if cache else read_partition
        partitioning = Partitioning(resources.partition_size, scratch, reader)
        yield Execution(executor, partitioning, cache, resources.memory, progress, folder)
    if cache:
        cache.trim(resources.cache_bytes)


def _within_memory(resources: Resources) -> Resources:
    """Return the resources with as many workers as `--max-memory` has place for.

    Raises:
        RecipeError: there is none for a single one.
    """
    if resources.memory is None:
        return resources
    task = TASK_FACTOR * resources.partition_size
    workers = (resources.memory - BASE_BYTES) // task
    if workers < 1:
        raise RecipeError(
            f"A build with partitions of {resources.partition_bytes} takes at least {(BASE_BYTES + task) >> 20:,} MiB, but "
            f"--max-memory allows {resources.memory >> 20:,} MiB: allow more, or make --partition-bytes smaller."
        )
    return replace(resources, workers=min(resources.workers or available_cpus(), workers))
