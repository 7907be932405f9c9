"""Runs of `training` in several processes, and runs that were killed after a checkpoint."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.support.commands import PYTHON_PATH
from tests.support.paths import ROOT
from training.config import TINY, TINY_DEFAULTS, RunConfig
from training.run_folder import RunFolder

PROCESSES = 2


def torchrun(*arguments: Any, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `training` in two processes."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(PROCESSES), "-m", "training.cli"]
    done = subprocess.run(
        [sys.executable, *launcher, *map(str, arguments)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": PYTHON_PATH}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stderr[-3000:]
    return done


def flags(config: RunConfig) -> list[str]:
    """The flags of the options that differ from the model's defaults."""
    defaults = vars(
        RunConfig(data=Path(), **({"model": TINY} | TINY_DEFAULTS if config.model == TINY else {"model": ""}))
    )
    given = {
        name: value for name, value in vars(config).items() if name in ("data", "model") or value != defaults[name]
    }
    pairs = [(f"--{name.replace('_', '-')}", value) for name, value in given.items()]
    return [part for name, value in pairs for part in ([name] if value is True else [name, str(value)])]


def back_to_step(step: int, config: RunConfig, out: Path) -> RunConfig:
    """A copy of a finished run in `out` that was killed after the checkpoint of `step`; the options to resume it."""
    assert config.out is not None
    shutil.copytree(config.out, out)
    kill_after(step, out)
    return replace(config, out=out, resume="auto")


def kill_after(step: int, run: Path) -> None:
    """Leave the folder of a finished run as a process leaves it that is killed after the checkpoint of `step`."""
    folder = RunFolder(run)
    for checkpoint in folder.complete_checkpoints():
        if int(checkpoint.name.removeprefix("step-")) > step:
            shutil.rmtree(checkpoint)
    shutil.rmtree(folder.adapter)
    folder.update(status="running")
