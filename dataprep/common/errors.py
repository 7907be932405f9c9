"""The errors that a user can cause: each is one sentence that says what is wrong, where, and what would work.

The command line prints that sentence and exits with the error's `exit_code`; any other exception that reaches a user is
a bug. `UserError` is the common base of this package's errors and those of `training`. This module imports the standard
library only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class UserError(Exception):
    """Base of all errors that a user can cause; `exit_code` is the exit code of the program."""

    exit_code = 1

    def details(self) -> dict[str, Any]:
        """Return what --json prints beside the sentence."""
        return {}


class DataprepError(UserError):
    """Base of dataprep's own errors."""


class InputError(DataprepError):
    """A source that cannot be read, or that leaves no row."""


class EmptyFile(InputError):
    """A source without a record; beside other sources that have records it is only noted."""


class RecipeError(DataprepError):
    """An invalid option, or a combination of options that contradict each other."""


class TemplateError(DataprepError):
    """A chat template that is missing, invalid, or raises an exception for a conversation."""


class StoreError(DataprepError):
    """A folder of builds that cannot be read or written."""


class BuildError(DataprepError):
    """A build that does not exist, or that this version cannot read."""


class DamagedBuild(BuildError):
    """A build whose files do not match its manifest."""

    exit_code = 4


class PublishError(DataprepError):
    """A data set that the Hub refuses, or that this user may not write."""


class GateError(DataprepError):
    """The quality gate found a critical fault.

    `ids` maps each failed expectation to the ids of the failing conversations (only the first where there are many),
    `counts` to their total number.
    """

    exit_code = 3

    def __init__(
        self, sentence: str, ids: Mapping[str, Sequence[str]] | None = None, counts: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(sentence)
        self.ids = dict(ids or {})
        self.counts = dict(counts or {})

    def details(self) -> dict[str, Any]:
        """Return the failing ids and their numbers."""
        return {"failing": self.ids, "failing_rows": self.counts}
