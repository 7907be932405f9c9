"""How many windows make a step of the optimizer, and how many steps make a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.config import TINY, TINY_STEPS, RunConfig
from training.memory.batches import BatchConfig


@dataclass(frozen=True)
class StepSchedule:
    """How windows become steps: each process accumulates `accumulate` micro-batches in a step of the optimizer."""

    accumulate: int
    windows_per_step: int  # over all processes
    requested_windows: int  # by --tokens-per-step; `windows_per_step` is the nearest number of whole micro-batches
    steps_per_epoch: int
    steps: int  # of the whole run

    def as_record(self) -> dict[str, int]:
        """The schedule under the names that run.json has for it."""
        return {
            "accumulate": self.accumulate,
            "per_step": self.windows_per_step,
            "wanted": self.requested_windows,
            "steps_an_epoch": self.steps_per_epoch,
            "steps": self.steps,
        }


def step_schedule(
    config: RunConfig, batch: BatchConfig, windows: int, requested_windows: int, processes: int = 1
) -> StepSchedule:
    """Schedule a run over `windows` windows, with about `requested_windows` of them in each step."""
    per_micro_step = batch.micro_batch * processes
    accumulate = max(1, round(requested_windows / per_micro_step))
    steps_per_epoch = math.ceil(windows / (per_micro_step * accumulate))
    by_epochs = max(1, round(config.epochs * steps_per_epoch))
    steps = config.max_steps or (min(by_epochs, TINY_STEPS) if config.model == TINY else by_epochs)
    return StepSchedule(accumulate, per_micro_step * accumulate, requested_windows, steps_per_epoch, steps)


def requested_windows(config: RunConfig, windows: int, step_tokens: float | None = None) -> int:
    """Windows in a step over all processes, as --tokens-per-step asks for; at most `windows`.

    Args:
        step_tokens: tokens that a window counts for; None: --max-tokens.
    """
    return max(1, min(int(config.tokens_per_step // (step_tokens or config.max_tokens)), windows))
