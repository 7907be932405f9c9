"""Runs of `training` on the tiny model, for tests: options, waiting for a step, and copies with other records."""

from __future__ import annotations

import json
import shutil
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

STEPS = 16
RUN_OPTIONS = [
    "--model", "tiny", "--max-steps", str(STEPS), "--save-every", "4", "--eval-every", "8", "--device", "cpu",
]  # fmt: skip


def wait_for_step(run: Path, step: int, process: BaseProcess) -> None:
    """Wait until the run has logged `step`."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.is_alive():
        path = run / "metrics.jsonl"
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(f"the run did not reach step {step}; its exit code is {process.exitcode}")


def copy_run(run: Path, to: Path, **entries: Any) -> Path:
    """Copy a run without its checkpoints, with entries of run.json replaced: `part__name=value`."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoints"))
    path = to / "run.json"
    record = json.loads(path.read_text())
    for key, value in entries.items():
        part, name = key.split("__")
        record[part][name] = value
    path.write_text(json.dumps(record))
    return to
