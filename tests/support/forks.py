"""Processes forked from a server that has imported what they need, so that each starts within milliseconds."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from multiprocessing import forkserver
from multiprocessing.process import BaseProcess
from typing import Any

_FORKS = multiprocessing.get_context("forkserver")
_preloaded: list[str] = []


def use_server(preload: list[str]) -> None:
    """Let the server of this process be one that imports the modules `preload` before it forks."""
    if preload != _preloaded:
        forkserver._forkserver._stop()  # type: ignore[attr-defined]
        _FORKS.set_forkserver_preload(preload)
        _preloaded[:] = preload


def start_fork(preload: list[str], target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process that has imported the modules `preload` and calls `target`; it ends with this process at the latest."""
    use_server(preload)
    process = _FORKS.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process
