"""A process that executes commands of the two programs one after another: `python -m tests.hostile.worker`.

It reads one JSON line for each command (`program`, `arguments`, `folder`) and answers with one (`code`, `writes`). What the
command prints, also from C code, goes to `stdout` and `stderr` in `folder`. A command that ends the process is the
concern of `tests.hostile.process`.
"""

from __future__ import annotations

import io
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

_WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_CHANGES = {
    "os.mkdir": 0,
    "os.remove": 0,
    "os.rmdir": 0,
    "os.truncate": 0,
    "os.rename": 1,
    "os.link": 1,
    "os.symlink": 1,
}


class WriteLog:
    """Notes, by Python's audit events, paths that are written outside of a folder, and programs that are run."""

    def __init__(self) -> None:
        self.root, self.found = "", list[str]()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.root:
            return
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & _WRITE_FLAGS:
            self._note(arguments[0])
        elif event in _CHANGES:
            self._note(arguments[_CHANGES[event]])
        elif event in ("os.system", "os.exec", "os.posix_spawn", "os.spawn") or (
            event == "subprocess.Popen" and os.path.basename(str(arguments[0])) != os.path.basename(sys.executable)
        ):
            self.found.append(f"{event} {arguments[0]}")

    def _note(self, path: object) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            full = os.path.realpath(os.fsdecode(path))
            if not full.startswith((self.root, "/dev/", "/proc/")):
                self.found.append(full)


LOG = WriteLog()


def execute(program: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run a command in this process with its output in `folder`; its exit code and the writes outside of `folder`'s parent."""
    if program == "dataprep":
        from dataprep.cli.main import main
    else:
        from training.cli import main
    saved = [os.dup(1), os.dup(2)]
    sys.stdout.flush()
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
        os.close(handle)
    streams, argv, here = (sys.stdout, sys.stderr), sys.argv, os.getcwd()
    sys.stdout, sys.stderr = (io.TextIOWrapper(io.FileIO(n, "wb", closefd=False)) for n in (1, 2))
    sys.argv = [program, *arguments]
    os.chdir(folder)
    LOG.root, LOG.found = str(folder.resolve().parent) + os.sep, []
    try:
        main()
        code: object = 0
    except SystemExit as leaving:
        code = leaving.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        LOG.root = ""
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
        sys.stdout, sys.stderr = streams
        sys.argv = argv
        os.chdir(here)
        for number, copy in enumerate(saved, 1):
            os.dup2(copy, number)
            os.close(copy)
    return {"code": code if isinstance(code, int) else 1, "writes": LOG.found}


def serve() -> None:
    """Execute what stdin asks for until it ends; the answers go to the stdout that this process was started with."""
    answers = os.fdopen(os.dup(1), "w")
    null = os.open(os.devnull, os.O_RDWR)
    for number in (1, 2):
        os.dup2(null, number)
    requests = os.fdopen(os.dup(0))
    os.dup2(null, 0)
    sys.addaudithook(LOG)
    for line in requests:
        request = json.loads(line)
        answer = execute(request["program"], request["arguments"], Path(request["folder"]))
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    serve()
