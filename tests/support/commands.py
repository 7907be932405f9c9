"""The two programs as subprocesses, as a user runs them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def dataprep(*arguments: str | Path, cwd: Path | None = None, **more: object) -> subprocess.CompletedProcess[str]:
    """Run `dataprep` with `arguments`; a build skips the quality gate, which takes seconds to load, unless `--gate` is given."""
    if arguments[:1] == ("build",) and "--gate" not in arguments:
        arguments = (*arguments, "--gate", "off")
    command = [sys.executable, "-m", "dataprep", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, **more)  # type: ignore[call-overload]


def dataprep_error(code: int, *arguments: str | Path, cwd: Path | None = None) -> str:
    """The one sentence on stderr of a command that must exit with `code`."""
    done = dataprep(*arguments, cwd=cwd)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    *_, sentence = done.stderr.strip().splitlines()
    assert sentence.startswith("dataprep: ")
    return sentence


def training(
    *arguments: object, check: int | None = 0, cwd: Path = ROOT, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run `training` with `arguments`, which must exit with `check` (None: any code)."""
    done = subprocess.run(
        [sys.executable, "-m", "training.cli", *map(str, arguments)],
        cwd=cwd, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True,
    )  # fmt: skip
    if check is not None:
        assert done.returncode == check, done.stderr[-3000:]
    return done


def start_training(*arguments: object) -> subprocess.Popen[str]:
    """Start `training` with `arguments` in the checkout and return at once."""
    return subprocess.Popen(
        [sys.executable, "-m", "training.cli", *map(str, arguments)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )


def logged_losses(run: Path) -> list[tuple[int, float]]:
    """Step and loss (training or held-out) of each line of a run's metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("loss", line.get("eval_loss"))) for line in lines]
