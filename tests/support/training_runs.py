"""Runs of `training` on the tiny model, for tests: options, waiting for a step, and copies with other records."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

STEPS = 16
RUN_OPTIONS = [
    "--model", "tiny", "--max-steps", str(STEPS), "--save-every", "4", "--eval-every", "8", "--device", "cpu",
]  # fmt: skip


def wait_for_step(run: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Wait until the run has logged `step`."""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        path = run / "metrics.jsonl"
        if path.exists() and f'"step": {step},' in path.read_text():
            return
        time.sleep(0.02)
    raise AssertionError(process.communicate()[1][-3000:])


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
