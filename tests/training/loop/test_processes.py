"""Two CPU processes under torchrun train what one process trains."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.commands import logged_losses, training
from tests.support.paths import ROOT
from tests.support.training_builds import chatter, write_build
from training.metrics import read_metrics
from training.run_folder import RunFolder


def torchrun(*arguments: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `training` in two processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "training.cli"]
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


def test_two_processes_have_the_losses_of_one(tmp_path: Path) -> None:
    build = write_build(tmp_path / "b", chatter(400), chatter(8))  # 6 windows, the same for one process and for two
    options = ["--data", build, "--model", "tiny", "--device", "cpu", "--max-steps", "4", "--stop-prompts", "0",
               "--tokens-per-step", "4096", "--micro-batch", "1"]  # fmt: skip
    training("run", *options, "--out", tmp_path / "one")
    torchrun("run", *options, "--out", tmp_path / "two")
    one, two = logged_losses(tmp_path / "one"), logged_losses(tmp_path / "two")
    assert [step for step, _ in one] == [step for step, _ in two]
    assert [loss for _, loss in two] == pytest.approx([loss for _, loss in one], rel=1e-4)


def test_two_processes_count_an_odd_number_of_windows_once(tmp_path: Path) -> None:
    """Seven windows: the eighth is empty, and changes neither the counts nor the held-out loss.

    On a machine without a GPU, the processes find each other without --device cpu.
    """
    build = write_build(tmp_path / "b", chatter(28), chatter(3, seed=5))
    device = ["--device", "cpu"] if torch.cuda.is_available() else []
    options = ["--data", build, "--model", "tiny", *device, "--max-tokens", "128", "--stop-prompts", "0",
               "--tokens-per-step", "256", "--epochs", "1"]  # fmt: skip
    training("run", *options, "--out", tmp_path / "one")
    torchrun("run", *options, "--out", tmp_path / "two")
    one, two = RunFolder(tmp_path / "one").read(), RunFolder(tmp_path / "two").read()
    assert one["packing"] | {"empty": 1} == two["packing"] and two["packing"]["windows"] == 7
    assert two["resolved"]["per_step"] == one["resolved"]["per_step"] == 2
    trained = two["ledger"]["train"]["tokens_trained"]
    assert two["metrics"]["trained_tokens"] == one["metrics"]["trained_tokens"] == trained
    tokens = [
        {line["eval_tokens"] for line in read_metrics(tmp_path / name / "metrics.jsonl") if "eval_tokens" in line}
        for name in ("one", "two")
    ]
    assert tokens[0] == tokens[1] and len(tokens[0]) == 1
    assert two["metrics"]["held_out_before"] == pytest.approx(one["metrics"]["held_out_before"], rel=1e-5)
