"""Callbacks: the check of the loss, and signals to several processes."""

from __future__ import annotations

import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed import init_process_group
from transformers import TrainerControl

from tests.support.forks import start_fork
from tests.support.processes import TRAINING
from training.errors import Diverged
from training.loop.callbacks import SignalCallback, check_loss


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 0.0])
def test_a_loss_that_is_zero_or_not_finite_ends_the_run(loss: float) -> None:
    with pytest.raises(Diverged, match="training inspect"):
        check_loss(loss, 3)


@pytest.mark.parametrize("loss", [1.5, None])
def test_other_losses_do_not_end_the_run(loss: float | None) -> None:
    check_loss(loss, 3)


def signal_in_step_1(rank: int, meeting_point: Path, result: Path) -> None:
    """Three steps of one of two processes: process 0 gets SIGTERM in step 1, process 1 only later, from the launcher."""
    init_process_group("gloo", init_method=f"file://{meeting_point}", rank=rank, world_size=2)
    args: Any = SimpleNamespace(world_size=2, device=torch.device("cpu"))
    state: Any = None
    ends = []
    with SignalCallback() as signals:
        for step in range(3):
            if step == 1 and rank == 0:
                signal.raise_signal(signal.SIGTERM)
            control = TrainerControl()
            signals.on_step_end(args, state, control)
            ends.append(control.should_training_stop and control.should_save)
        if rank == 1:
            signal.raise_signal(signal.SIGTERM)  # the launcher forwards it later: counted once
    result.write_text(f"{ends} {signals.signal}")


def test_a_signal_to_one_process_ends_all_after_the_same_step(tmp_path: Path) -> None:
    results = [tmp_path / f"result-{rank}" for rank in range(2)]
    processes = [
        start_fork(TRAINING, signal_in_step_1, rank, tmp_path / "meeting-point", result)
        for rank, result in enumerate(results)
    ]
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [result.read_text() for result in results] == ["[False, True, True] 15"] * 2
