"""How many steps a run takes, and how many windows each step has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training.config import TINY_DEFAULTS, TINY_STEPS, RunConfig, check
from training.errors import OptionError
from training.memory.batches import BatchConfig
from training.memory.schedule import (
    DEFAULT_MIN_STEPS,
    StepSchedule,
    requested_windows,
    step_schedule,
    step_sentence,
)

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


DEFAULT = RunConfig(data=Path("."), model="m", max_tokens=2048)


@pytest.mark.parametrize(
    "config, windows, step_tokens, per_step",
    [
        (DEFAULT, 20, None, 1),
        (DEFAULT, 255, None, 1),
        (DEFAULT, 256, None, 2),
        (replace(DEFAULT, epochs=3.0), 256, None, 6),
        (DEFAULT, 100_000, None, 8),
        (replace(DEFAULT, max_steps=9), 256, None, 8),
        (replace(DEFAULT, max_steps=9), 3, None, 3),
        (replace(DEFAULT, max_tokens=65_536), 100_000, None, 1),
        (replace(DEFAULT, tokens_per_step=4096), 100, None, 2),
        (DEFAULT, 100, 512.0, 4),  # rows of one conversation: at least the tokens of one window
        (DEFAULT, 1024, 512.0, 8),
        (DEFAULT, 100_000, 512.0, 32),
    ],
)
def test_the_default_step_follows_the_amount_of_data(
    config: RunConfig, windows: int, step_tokens: float | None, per_step: int
) -> None:
    assert requested_windows(config, windows, step_tokens) == per_step


def test_a_default_step_leaves_enough_steps_whatever_the_data() -> None:
    for windows in (128, 200, 500, 1000, 3000):
        assert schedule(DEFAULT, windows).steps >= DEFAULT_MIN_STEPS


@pytest.mark.parametrize(
    "config, windows, sentence",
    [
        (replace(DEFAULT, tokens_per_step=4096), 500, None),
        (DEFAULT, 500, "A step has 6144 tokens (as many as leave the run at least 128 steps, but at least one window;"),
        (DEFAULT, 50_000, "A step has 16384 tokens (the largest default;"),
        (replace(DEFAULT, max_steps=5), 500, "A step has 16384 tokens (the default with --max-steps;"),
    ],
)
def test_the_default_step_is_explained(config: RunConfig, windows: int, sentence: str | None) -> None:
    text = step_sentence(config, requested_windows(config, windows), 2048)
    assert text is sentence or str(text).startswith(str(sentence))
