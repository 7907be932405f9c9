"""Measure how long each stage of a build takes, and report how far it has come."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Called as show(stage, done, total) when a stage begins (done == 0), advances, and ends (done == total).
# `total` is in the stage's own unit: bytes when reading, conversations when rendering, else 1.
Show = Callable[[str, int, int], None]
Advance = Callable[[int], None]  # called with the units done so far


# Typical share of each stage in the time of a build with the default options, in order; `render` comes twice.
STAGE_SHARES = {
    "hash": 0.02,
    "verify": 0.0,
    "read": 0.12,
    "threads": 0.01,
    "rules": 0.03,
    "dedup": 0.34,
    "select": 0.01,
    "split": 0.05,
    "render": 0.32,
    "gate": 0.08,
    "write": 0.02,
}
_MIN_SHARE, _MIN_SECONDS = 0.05, 5.0  # done before the rest is estimated


class RemainingTime:
    """Estimates how long a build still takes, from the typical shares of its stages in the time of a whole build."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._start, self._done = clock, clock(), 0.0

    def text(self, stage: str, done: int, total: int) -> str:
        """Return `about 40 s left` at this point of a stage; empty as long as too little is done."""
        stages = list(STAGE_SHARES)
        if stage in STAGE_SHARES:
            before = sum(STAGE_SHARES[name] for name in stages[: stages.index(stage)])
            if total > 1:
                self._done = max(self._done, before + STAGE_SHARES[stage] * done / total)
            elif stage != "render":  # which has no units where it looks for refusals, before the sample
                self._done = max(self._done, before)
        passed = self._clock() - self._start
        if self._done < _MIN_SHARE or passed < _MIN_SECONDS:
            return ""
        seconds = passed * (1 - self._done) / self._done
        return f"about {seconds:.0f} s left" if seconds < 100 else f"about {seconds / 60:.0f} min left"


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
        yield lambda done: self._show(name, min(done, max(total - 1, 0)), total)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 4)
        self._show(name, total, total)
