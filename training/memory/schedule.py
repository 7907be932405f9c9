"""How many windows make a step of the optimizer, and how many steps make a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from training.config import TINY, TINY_STEPS, RunConfig
from training.memory.batches import BatchConfig

# The default of --tokens-per-step. On small data sets an adapter learns more from the same tokens in more steps
# (docs/qlora.md: 24 steps 2.474 nats, 195 steps 2.283); the maximum is what keeps a large GPU busy.
DEFAULT_MIN_STEPS = 128
DEFAULT_MAX_TOKENS = 16384


@dataclass(frozen=True)
class StepSchedule:
    """How windows become steps: each process accumulates `accumulate` micro-batches in a step of the optimizer."""

    accumulate: int
    windows_per_step: int  # over all processes
    requested_windows: int  # by --tokens-per-step or its default; `windows_per_step` is in whole micro-batches
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
    """Windows in a step over all processes, by --tokens-per-step or its default; at most `windows`, all of the data.

    The default leaves the run at least `DEFAULT_MIN_STEPS` steps, but a step has at least the tokens of one window
    (--max-tokens) and at most `DEFAULT_MAX_TOKENS`. With --max-steps the number of steps is given: a step has the maximum.

    Args:
        step_tokens: tokens that a window counts for; None: --max-tokens.
    """
    tokens = step_tokens or config.max_tokens
    if config.tokens_per_step is not None:
        wanted = int(config.tokens_per_step // tokens)
    else:
        largest = int(DEFAULT_MAX_TOKENS // tokens)
        by_data = largest if config.max_steps else int(windows * config.epochs / DEFAULT_MIN_STEPS)
        wanted = min(max(by_data, int(config.max_tokens // tokens)), largest)
    return max(1, min(wanted, windows))


def step_sentence(config: RunConfig, requested: int, step_tokens: float) -> str | None:
    """How many tokens a step has by default and why; None if --tokens-per-step is given.

    Args:
        requested: windows in a step.
        step_tokens: tokens that a window counts for.
    """
    if config.tokens_per_step is not None:
        return None
    reason = f"as many as leave the run at least {DEFAULT_MIN_STEPS} steps, but at least one window"
    if config.max_steps is not None:
        reason = "the default with --max-steps"
    elif requested == max(1, int(DEFAULT_MAX_TOKENS // step_tokens)):
        reason = "the largest default"
    return f"A step has {round(requested * step_tokens)} tokens ({reason}; see --tokens-per-step)."
