"""The errors that a user can cause. Each is one sentence: what is wrong, where, and what would work.

The command line prints the sentence of a `TrainingError` (or of the contract's `BuildError`) and exits with its
`exit_code`. Any other exception that reaches the user is a bug of this package.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class TrainingError(Exception):
    """Base of all errors that a user can cause; the program exits with `exit_code`."""

    exit_code = 1


class OptionError(TrainingError):
    """An invalid option or combination of options."""


class DataError(TrainingError):
    """A build that cannot be trained on with these options."""


class ModelError(TrainingError):
    """A model or tokenizer that is missing, not accessible, or unsuitable for the build."""


class NotEnoughMemory(TrainingError):
    """The requested configuration does not fit into the device's memory."""


class RunError(TrainingError):
    """A run's folder that cannot be used, resumed or written."""


class Diverged(TrainingError):
    """The loss is NaN, infinite, or exactly 0."""


class Stopped(Exception):
    """A run that a signal ended, after its checkpoint was saved; the program exits with 128 + the signal's number."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


def nearest(name: str, available: Iterable[str]) -> str:
    """`Did you mean 'x'? Available: …`, the end of a sentence about an unknown name."""
    names = sorted(available)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Available: {', '.join(names)}." if names else "None is available."
