"""Measure how long each stage of a build takes, and report how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Called as show(stage, done, total) when a stage begins (done == 0), advances, and ends (done == total).
# `total` is in the stage's own unit: bytes when reading, conversations when rendering, else 1.
Show = Callable[[str, int, int], None]
Advance = Callable[[int], None]  # called with the units done so far


def ignore_progress(done: int) -> None:
    """Do nothing: for work whose progress is not shown."""


class Progress:
    """Times the stages of a build and reports them to `show`; `seconds` has the finished stages, in order."""

    def __init__(self, show: Show = lambda stage, done, total: None) -> None:
        self.seconds: dict[str, float] = {}
        self._show = show

    @contextmanager
    def stage(self, name: str, total: int = 1) -> Iterator[Advance]:
        """Time the block; it may call the yielded function with the units done so far."""
        start = time.perf_counter()
        self._show(name, 0, total)
        yield lambda done: self._show(name, min(done, total - 1), total)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 4)
        self._show(name, total, total)
