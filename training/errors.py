"""The tree of errors: each is one sentence that says what was found, where, and what would work.

Everything a user can cause ends as a `TrainingError` (or as a `BuildError` of the contract); the command line
prints its sentence and leaves with its `exit_code`. Any other exception that reaches a user is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TrainingError(Exception):
    """Base of all errors that a user can cause; `exit_code` is what the program ends with."""

    exit_code = 1


class OptionError(TrainingError):
    """An option, or a combination of options, that makes no sense."""


class DataError(TrainingError):
    """A build that cannot be trained on as asked."""


class ModelError(TrainingError):
    """A model or tokenizer that is missing, closed, or unfit for the build."""


class NotEnoughMemory(TrainingError):
    """What was asked for does not fit into the device's memory."""


class RunError(TrainingError):
    """A run's folder that cannot be used, continued or written."""


class Diverged(TrainingError):
    """The loss is no number any more, or exactly 0."""


class Stopped(Exception):
    """A run that was asked to end by a signal, after its checkpoint was saved."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def nearest(name: str, available: Iterable[str]) -> str:
    """`Did you mean 'x'? Available: …`: the end of a sentence about an unknown name."""
    names = sorted(available)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Available: {', '.join(names)}." if names else "None is available."
