"""Run a function over tasks: the interface that stages use, without knowing where the tasks run.

`dataprep.engine` has executors with workers; `SERIAL` runs every task where it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Protocol, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs tasks, several at a time. Results never depend on the executor or on the number of workers."""

    @property
    def workers(self) -> int:
        """The number of tasks that run at the same time."""
        ...

    @property
    def in_process(self) -> bool:
        """Whether tasks run in this process, so that they may share objects with it."""
        ...

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Generator[Result]:
        """Yield `function(task)` of each task, in the order of the tasks, holding only a few results at a time.

        Closing the generator waits for the tasks that run, and runs no more.

        Args:
            function: of a module, without state between calls.
            tasks: taken from the iterator as workers become free.
        """
        ...

    def require_shared(self, folder: Path) -> None:
        """Check that tasks can read files in `folder`.

        Raises:
            StoreError: a worker cannot.
        """


class Serial:
    """Runs one task after the other in the calling thread."""

    workers = 1
    in_process = True

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Generator[Result]:
        """Yield `function(task)` of each task."""
        yield from map(function, tasks)

    def require_shared(self, folder: Path) -> None:
        """Tasks can read what this process can."""


SERIAL = Serial()
