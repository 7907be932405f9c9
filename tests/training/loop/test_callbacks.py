"""Callbacks: the check of the loss, and signals to several processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from training.errors import Diverged
from training.loop.callbacks import check_loss


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 0.0])
def test_a_loss_that_is_zero_or_not_finite_ends_the_run(loss: float) -> None:
    with pytest.raises(Diverged, match="training inspect"):
        check_loss(loss, 3)


@pytest.mark.parametrize("loss", [1.5, None])
def test_other_losses_do_not_end_the_run(loss: float | None) -> None:
    check_loss(loss, 3)


TWO_PROCESSES = """
import signal, sys
from types import SimpleNamespace
import torch
from torch.distributed import init_process_group
from transformers import TrainerControl
from training.loop.callbacks import SignalCallback

init_process_group("gloo")
rank = torch.distributed.get_rank()
args = SimpleNamespace(world_size=2, device=torch.device("cpu"))
with SignalCallback() as signals:
    ends = []
    for step in range(3):
        if step == 1 and rank == 0:
            signal.raise_signal(signal.SIGTERM)
        control = TrainerControl()
        signals.on_step_end(args, None, control)
        ends.append(control.should_training_stop and control.should_save)
    if rank == 1:
        signal.raise_signal(signal.SIGTERM)  # the launcher forwards it later: counted once
print(ends == [False, True, True] and signals.signal == 15)
"""


def test_a_signal_to_one_process_ends_all_after_the_same_step(tmp_path: Path) -> None:
    script = tmp_path / "two_processes.py"
    script.write_text(TWO_PROCESSES)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["True", "True"], done.stderr[-2000:]
