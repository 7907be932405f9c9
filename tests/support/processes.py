"""Runs of `training` in processes of their own, one or several, and runs that were killed after a checkpoint."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from tests.support.commands import PYTHON_PATH
from tests.support.forks import start_fork, use_server
from tests.support.paths import ROOT
from training.config import TINY, TINY_DEFAULTS, RunConfig
from training.run_folder import RunFolder

PROCESSES = 2
TRAINING = ["training.loop.trainer", "training.loop.callbacks", "training.run"]  # which import all that a run needs


def start_training(output: Path, *arguments: Any) -> BaseProcess:
    """Start `training` in a process that has imported the libraries, with its output in a file, and return at once.

    From step 5 on it sleeps after each step, so that whoever waits for a step sees it before the run ends.
    """
    return start_fork(TRAINING, _train_slowly, list(map(str, arguments)), output)


def _train_slowly(arguments: list[str], output: Path) -> None:
    from training.loop.callbacks import ProgressCallback

    on_step_end = ProgressCallback.on_step_end

    def then_sleep(self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        on_step_end(self, args, state, control, **more)
        time.sleep(0.3 if state.global_step >= 5 else 0)

    _write_to(output)
    with mock.patch.object(ProgressCallback, "on_step_end", then_sleep):
        _train(arguments)


def _train(arguments: list[str]) -> None:
    from training.cli import main

    os.chdir(ROOT)
    sys.argv = ["training", *arguments]
    main()


def _write_to(output: Path) -> None:
    """Let this process write its stdout and stderr to a file."""
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


@contextmanager
def converters_in_forks() -> Iterator[None]:
    """Run the converters of GGUF files in processes that have imported the libraries, which saves seconds each."""
    with mock.patch("training.after.gguf.subprocess", SimpleNamespace(run=_run_module)):
        yield


def _run_module(command: list[str], *, env: dict[str, str], **_: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` for `python -m MODULE ARGUMENTS`, in a process that has imported the libraries of `training`."""
    module, *arguments = command[2:]
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "output"
        process = start_fork(TRAINING, _run_main, module, arguments, env, output)
        process.join()
        return subprocess.CompletedProcess(command, process.exitcode or 0, "", output.read_text(errors="replace"))


def _run_main(module: str, arguments: list[str], environment: dict[str, str], output: Path) -> None:
    _write_to(output)
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    import_module(module).main()


def in_two_processes(*arguments: Any) -> None:
    """Run `training` in two processes, as torchrun does, but in processes that have imported the libraries."""
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    use_server(TRAINING)
    config = LaunchConfig(
        min_nodes=1, max_nodes=1, nproc_per_node=PROCESSES, max_restarts=0, run_id="test",
        rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="forkserver",
    )  # fmt: skip
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        elastic_launch(config, _train_or_raise)(list(map(str, arguments)))
    finally:  # the launcher leaves its own, for SIGTERM and others
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


def _train_or_raise(arguments: list[str]) -> None:
    """Train; raise what the launcher reports, which waits for a result and overlooks an exit code."""
    try:
        _train(arguments)
    except SystemExit as ended:
        if ended.code:
            raise RuntimeError(f"training ended with exit code {ended.code}") from None


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
