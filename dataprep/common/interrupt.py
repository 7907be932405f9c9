"""Ctrl-C as an exception that Python does not mistake for an unhandled one.

Python remembers a `KeyboardInterrupt` that leaves a string given to `exec`, for instance while a dataclass or a named tuple
is created during an import, and then ends a program started with `-m` by SIGINT instead of with its exit code, even where
the program has handled the exception. It compares the exact type, so a subclass is not affected (CPython 3.11,
`run_eval_code_obj` in Python/pythonrun.c).
"""

from __future__ import annotations

import signal
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """SIGINT was received."""


def raise_on_interrupt() -> None:
    """Raise `Interrupted` on SIGINT from now on, unless the signal is ignored, as it is in a background job of a shell."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Interrupted
