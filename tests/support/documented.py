"""Run the commands of a documentation page, all in one process, because each import of torch takes seconds."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.paths import ROOT


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


def run_commands(commands: Sequence[str], folder: Path, environment: Mapping[str, str]) -> list[Finished]:
    """Run commands of `dataprep` and `training` one after the other in `folder`."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.documented", *commands],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return [Finished(*fields) for fields in json.loads(done.stdout)]


def _run(command: str) -> Finished:
    program, *arguments = shlex.split(command)
    if program == "dataprep":
        from dataprep.__main__ import main
    else:
        from training.cli import main
    sys.argv, out, err, code = [program, *arguments], io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    return Finished(command, code, out.getvalue(), err.getvalue())


if __name__ == "__main__":
    print(json.dumps([_run(command) for command in sys.argv[1:]]))
