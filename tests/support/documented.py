"""Run the commands of a documentation page in this process, because each import of torch takes seconds."""

from __future__ import annotations

import contextlib
import importlib
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.commands import run_here
from tests.support.hub import Hub
from tests.support.publishing import client_of


class Finished(NamedTuple):
    """A command that has run."""

    command: str
    code: int
    out: str
    err: str


def shell_commands(page: Path) -> list[str]:
    """The lines of a page's ```sh blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text("utf-8"), flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def run_commands(commands: Sequence[str], folder: Path, hub: Hub | None = None) -> list[Finished]:
    """Run commands of `dataprep` and `training` one after the other in `folder`, with `hub` as their Hub."""
    with contextlib.chdir(folder), client_of(hub, folder / "hub") if hub else contextlib.nullcontext():
        return [_run(command) for command in commands]


def _run(command: str) -> Finished:
    program, *arguments = shlex.split(command)
    main = importlib.import_module({"dataprep": "dataprep.__main__", "training": "training.cli"}[program]).main
    done = run_here(main, [program, *arguments])
    return Finished(command, done.returncode, done.stdout, done.stderr)
