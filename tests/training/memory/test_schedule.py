"""How many steps a run takes, and how many windows each step has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.config import TINY_DEFAULTS, TINY_STEPS, RunConfig, check
from training.errors import OptionError
from training.memory.batches import BatchConfig
from training.memory.schedule import StepSchedule, requested_windows, step_schedule

MODEL = RunConfig(data=Path("."), model="m", max_tokens=100, tokens_per_step=800)
TINY = replace(MODEL, model="tiny", epochs=TINY_DEFAULTS["epochs"])


def schedule(config: RunConfig, windows: int, *, micro_batch: int = 1, processes: int = 1) -> StepSchedule:
    batch = BatchConfig(micro_batch, 0, "adamw")
    return step_schedule(config, batch, windows, requested_windows(config, windows), processes)


@pytest.mark.parametrize(
    "config, windows, steps",
    [
        (MODEL, 80, 10),
        (replace(MODEL, epochs=3.0), 80, 30),
        (replace(MODEL, epochs=0.5), 80, 5),
        (replace(MODEL, epochs=1e-6), 80, 1),
        (replace(MODEL, epochs=3.0, max_steps=7), 80, 7),
        (replace(MODEL, max_steps=70), 80, 70),
        (TINY, 80, TINY_STEPS),
        (TINY, 8, TINY_STEPS),
        (replace(TINY, epochs=1.0), 80, 10),
        (replace(TINY, epochs=1.0), 8000, TINY_STEPS),
        (replace(TINY, epochs=9.0, max_steps=70), 8000, 70),
    ],
)
def test_steps_follow_epochs_max_steps_and_the_limit_of_tiny(config: RunConfig, windows: int, steps: int) -> None:
    assert schedule(config, windows).steps == steps


@pytest.mark.parametrize("name", ["epochs", "lr", "max_grad_norm", "memory_gb"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_an_option_that_is_infinite_or_nan_is_refused(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(OptionError, match=f"--{name.replace('_', '-')} is {value}"):
        check(replace(MODEL, **options))


@pytest.mark.parametrize(
    "processes, micro_batch, accumulate, per_step",
    [(1, 1, 8, 8), (2, 1, 4, 8), (3, 1, 3, 9), (5, 1, 2, 10), (2, 4, 1, 8), (1, 3, 3, 9), (3, 2, 1, 6), (20, 1, 1, 20)],
)
def test_a_step_is_the_nearest_number_of_whole_micro_batches(
    processes: int, micro_batch: int, accumulate: int, per_step: int
) -> None:
    result = schedule(MODEL, 800, micro_batch=micro_batch, processes=processes)
    assert (result.accumulate, result.windows_per_step, result.requested_windows) == (accumulate, per_step, 8)
    assert result.steps == -(-800 // per_step)
