"""Executors of a build's tasks on this machine."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from dataprep.common.executor import Executor, Result, Task
from dataprep.resources import Resources


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class LocalExecutor:
    """Runs tasks on threads of this process.

    Threads rather than processes: tasks spend their time in Polars, Arrow and NumPy, which release the GIL, and threads
    share the templates' plans, need no start-up, and end with the process.
    """

    in_process = True

    def __init__(self, workers: int | None = None) -> None:
        """Args:
        workers: tasks at a time; None: one for each CPU that this process may use.
        """
        self.workers = workers or available_cpus()

    def require_shared(self, folder: Path) -> None:
        """Tasks can read what this process can."""

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Generator[Result]:
        """Yield `function(task)` of each task in order; at most one task more than there are workers is under way."""
        if self.workers == 1:
            yield from map(function, tasks)
            return
        pending: deque[Future[Result]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                for task in tasks:
                    pending.append(pool.submit(function, task))
                    if len(pending) > self.workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()


@contextmanager
def open_executor(resources: Resources) -> Iterator[Executor]:
    """Yield the executor that a build uses, and end what it started afterwards.

    Raises:
        DataprepError: `--engine ray` without Ray, or without the cluster.
    """
    if resources.engine == "local":
        yield LocalExecutor(resources.workers)
        return
    from dataprep.engine.ray_cluster import RayExecutor

    executor = RayExecutor(resources.ray_address, resources.workers)
    try:
        yield executor
    finally:
        executor.close()
