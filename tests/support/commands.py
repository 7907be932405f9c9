"""The two programs, as a user runs them."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from unittest import mock

from tests.support.paths import ROOT

# The checkout first, and the folders that this process was started with: libraries may lie in one of them.
PYTHON_PATH = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def dataprep(*arguments: str | Path, cwd: Path | None = None, **more: object) -> subprocess.CompletedProcess[str]:
    """Run `dataprep` with `arguments`; a build skips the quality gate, which takes seconds to load, unless `--gate` is given.

    It runs in this process, which saves half a second, unless it is given a folder or anything else of a process.
    """
    if arguments[:1] == ("build",) and "--gate" not in arguments:
        arguments = (*arguments, "--gate", "off")
    texts = list(map(str, arguments))
    if cwd is None and not more:
        from dataprep.cli.main import main

        return run_here(main, ["dataprep", *texts])
    command = [sys.executable, "-m", "dataprep", *texts]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=300, **more)  # type: ignore[call-overload]


def run_here(main: Callable[[], None], command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a program in this process, with its output captured as a pipe would."""
    out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    code = 0
    with redirect_stdout(out), redirect_stderr(err), mock.patch.object(sys, "argv", command):
        try:
            main()
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    written = [stream.buffer.getvalue().decode() for stream in (out, err)]
    return subprocess.CompletedProcess(command, code, *written)


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
        cwd=cwd, env={**os.environ, "PYTHONPATH": PYTHON_PATH, **environment}, capture_output=True, text=True,
    )  # fmt: skip
    if check is not None:
        assert done.returncode == check, done.stderr[-3000:]
    return done


def training_here(*arguments: object, check: int | None = 0) -> subprocess.CompletedProcess[str]:
    """Run `training` in this process, which saves the seconds in which the libraries are imported."""
    from training.cli import main

    done = run_here(main, ["training", *map(str, arguments)])
    if check is not None:
        assert done.returncode == check, done.stderr[-3000:]
    return done


def logged_losses(run: Path) -> list[tuple[int, float]]:
    """Step and loss (training or held-out) of each line of a run's metrics.jsonl."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("loss", line.get("eval_loss"))) for line in lines]
