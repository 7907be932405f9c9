"""Runs of `training` on the tiny model, for tests: options, waiting for a step, and copies with other records."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

STEPS = 16
RUN_OPTIONS = [
    "--model", "tiny", "--max-steps", str(STEPS), "--save-every", "4", "--eval-every", "8", "--device", "cpu",
]  # fmt: skip


@contextmanager
def short_answers() -> Iterator[None]:
    """Check whether answers end within 24 tokens in place of 256: those of a tiny model seldom end later."""
    from training.after.generate import stop_share

    with mock.patch.dict(stop_share.__kwdefaults__, max_new_tokens=24):
        yield


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
