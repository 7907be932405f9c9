"""The line of the log that says what a run decided."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset

from training.config import RunConfig
from training.data.windows import Packing
from training.memory.batches import BatchConfig
from training.memory.estimate import MemoryEstimate
from training.memory.layout import packed
from training.memory.run_plan import RunPlan
from training.memory.schedule import requested_windows, step_schedule
from training.model.runtime import Runtime

CONFIG = RunConfig(data=Path("."), model="m", max_tokens=100, tokens_per_step=800)


@pytest.mark.parametrize("processes, expected", [
    (1, "8 x 1 window, "),
    (2, "4 x 1 window on each of 2 processes, "),
    (3, "3 x 1 window on each of 3 processes (9 in a step; --tokens-per-step gives 8), "),
])  # fmt: skip
def test_the_log_names_the_batch_and_how_it_differs_from_the_request(processes: int, expected: str) -> None:
    config, batch = replace(CONFIG), BatchConfig(1, 0, "adamw")
    schedule = step_schedule(config, batch, 800, requested_windows(config, 800), processes)
    plan = RunPlan(
        runtime=Runtime("cpu", "fp32", "dataprep_segments", liger=False),
        layout=packed(config),
        batch=batch,
        schedule=schedule,
        processes=processes,
        tokens_per_step=1.0,
        packing=Packing([[0]] * 10, 0.9),
        windows=Dataset.from_dict({}),
        test=None,
        estimate=MemoryEstimate(*[0] * 10),
        measured=None,
        leak=0.0,
        off_stock=0.0,
    )
    assert expected in plan.sentence()
