"""How many steps a run takes, and of how many windows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from training.config import TINY_DEFAULTS, TINY_STEPS, RunConfig, check
from training.errors import OptionError
from training.memory.choose import Plan, pace_of, wanted_per_step
from training.memory.estimate import Choice

MODEL = RunConfig(data=Path("."), model="m", max_tokens=100, tokens_per_step=800)
TINY = replace(MODEL, model="tiny", epochs=TINY_DEFAULTS["epochs"])


def pace(config, windows, *, micro_batch=1, processes=1):
    return pace_of(config, Choice(micro_batch, 0, "adamw"), windows, wanted_per_step(config, windows), processes)


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
def test_steps(config, windows, steps):
    assert pace(config, windows).steps == steps


def test_a_number_without_end_is_refused():
    for name in ("epochs", "lr", "max_grad_norm", "memory_gb"):
        for value in (float("inf"), float("nan")):
            with pytest.raises(OptionError, match=f"--{name.replace('_', '-')} is {value}"):
                check(replace(MODEL, **{name: value}))


@pytest.mark.parametrize(
    "processes, micro_batch, accumulate, per_step",
    [(1, 1, 8, 8), (2, 1, 4, 8), (3, 1, 3, 9), (5, 1, 2, 10), (2, 4, 1, 8), (1, 3, 3, 9), (3, 2, 1, 6), (20, 1, 1, 20)],
)
def test_the_batch_is_as_near_as_whole_micro_batches_come(processes, micro_batch, accumulate, per_step):
    found = pace(MODEL, 800, micro_batch=micro_batch, processes=processes)
    assert (found.accumulate, found.per_step, found.wanted) == (accumulate, per_step, 8)
    assert found.steps == -(-800 // per_step)


def test_another_batch_than_asked_for_is_told():
    from training.data.windows import Packed
    from training.memory.estimate import Estimate

    guess, packed = Estimate(*[0] * 7), Packed([[0]] * 10, 0.9)

    def said(processes):
        found = pace(MODEL, 800, processes=processes)
        return Plan(Choice(1, 0, "adamw"), found, processes, 1.0, packed, [], None, guess, None, 0.0, 0.0).sentence()

    assert "8 x 1 windows, " in said(1) and "4 x 1 windows on each of 2 processes, " in said(2)
    assert "3 x 1 windows on each of 3 processes (9 in a step; --tokens-per-step asks for 8), " in said(3)
