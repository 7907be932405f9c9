"""Where and how the stages of one build run: executor, folder for temporary files, cache, memory, progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from dataprep.cached_tasks import CachedReader
from dataprep.common.executor import Executor
from dataprep.common.files import temporary_folder
from dataprep.common.progress import Progress
from dataprep.engine.cache import CACHE_FOLDER, Cache
from dataprep.engine.executors import open_executor
from dataprep.resources import Resources
from dataprep.sources.partitions import read_partition
from dataprep.sources.reader import Partitioning
from dataprep.store.commit import new_version, scratch_folder


@dataclass(frozen=True)
class Execution:
    """What the stages of a build run with; nothing of it changes their results."""

    executor: Executor
    partitioning: Partitioning
    cache: Cache | None  # None: nothing is kept, because the sources are small or by --no-cache
    max_memory: int | None
    progress: Progress
    folder: Path | None  # the version's temporary folder, if it is open already

    @property
    def scratch(self) -> Path | None:
        """The folder for temporary files; None: all stays in memory."""
        return self.partitioning.folder


@contextmanager
def open_execution(
    resources: Resources, store: Path, name: str, source_bytes: int, dry_run: bool, progress: Progress
) -> Iterator[Execution]:
    """Start what a build runs with, and end it afterwards.

    Sources of at most one partition stay in memory, without temporary files. Those of larger ones lie beside the version
    that is written, and are removed with its temporary folder; those of a dry run in the system's temporary directory.

    Raises:
        DataprepError: the store cannot be written, or the cluster cannot be reached or does not share the store.
    """
    with ExitStack() as stack:
        executor = stack.enter_context(open_executor(resources))
        folder: Path | None = None
        scratch: Path | None = None
        cache: Cache | None = None
        if source_bytes > resources.partition_size:
            if dry_run:
                scratch = stack.enter_context(temporary_folder("dataprep-scratch"))
            else:
                folder = stack.enter_context(new_version(store, name))
                scratch = scratch_folder(folder)
                cache = None if resources.no_cache else Cache(store / CACHE_FOLDER)
            executor.require_shared(scratch)
        reader = CachedReader(cache) if cache else read_partition
        partitioning = Partitioning(resources.partition_size, scratch, reader)
        yield Execution(executor, partitioning, cache, resources.memory, progress, folder)
    if cache:
        cache.trim(resources.cache_bytes)
