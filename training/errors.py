"""The errors that a user can cause. Each is one sentence: what is wrong, where, and what would work.

The command line prints the sentence of a `TrainingError` (or of the contract's `BuildError`) and exits with its
`exit_code`. Any other exception that reaches the user is a bug of this package.
"""

from __future__ import annotations

from dataprep.common.errors import UserError

# What transformers' models raise when they cannot compute something; each architecture has its own. PyTorch's error of a full
# memory is one of them, and must be caught before.
MODEL_FAULTS = (ValueError, TypeError, RuntimeError, AttributeError, LookupError)


def first_line(fault: BaseException) -> str:
    """The first line of another library's message; the name of the exception if it has none."""
    return next(iter(str(fault).strip().splitlines()), type(fault).__name__)


class TrainingError(UserError):
    """Base of training's own errors; those of builds come from dataprep.contract."""


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


class Stopped(UserError):
    """A run that a signal ended, after its checkpoint was saved; the program exits with 128 + the signal's number."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
