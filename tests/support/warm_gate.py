"""The gate's process, forked from a server that has imported Great Expectations, which takes seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import SimpleNamespace
from typing import IO, Any
from unittest import mock

from dataprep.quality import worker
from tests.support.forks import start_fork

PRELOAD = ["great_expectations.expectations", "pandas", "pyarrow.compute", "dataprep.quality.worker"]


@contextmanager
def warm_gates() -> Iterator[None]:
    """Fork the processes of gates."""
    with mock.patch("dataprep.quality.gate.subprocess", SimpleNamespace(Popen=_Worker, PIPE=None)):
        yield


class _Worker:
    """What `dataprep.quality.gate` uses of a `subprocess.Popen`."""

    def __init__(self, command: list[str], *, stderr: IO[bytes], pass_fds: list[int], encoding: str, **_: Any) -> None:
        commands, stdin = os.pipe()
        stdout, answers = os.pipe()
        self.stdin, self.stdout = os.fdopen(stdin, "w", encoding=encoding), os.fdopen(stdout, encoding=encoding)
        # a Connection takes a file descriptor to another process
        files = [Connection(file) for file in (commands, answers, os.dup(stderr.fileno()), os.dup(pass_fds[0]))]
        self._process = start_fork(PRELOAD, _judge, *files)
        for file in files:
            file.close()

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> None:
        self._process.join()


def _judge(commands: Connection, answers: Connection, errors: Connection, facts: Connection) -> None:
    for number, file in enumerate((commands, answers, errors)):
        os.dup2(file.fileno(), number)
        file.close()
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.argv = ["worker", str(facts.fileno())]
    worker.main()
