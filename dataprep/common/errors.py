"""The tree of errors: each is one sentence that says what was found, where, and what would work.

Everything a user can cause ends as a `DataprepError`; the command line prints its sentence and leaves
with its `exit_code`. Any other exception that reaches a user is a bug of ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches


class DataprepError(Exception):
    """Base of all errors that a user can cause; `exit_code` is what the program ends with."""

    exit_code = 1


class InputError(DataprepError):
    """A source that cannot be read, or of which nothing would be left."""


class EmptyFile(InputError):
    """A source without a record; beside others that have some, it is worth a note only."""


class RecipeError(DataprepError):
    """An option, or a combination of options, that makes no sense."""


class TemplateError(DataprepError):
    """A chat template that is missing, unsound, or refuses a conversation."""


class StoreError(DataprepError):
    """A place for builds that cannot be read or written, or a build that is not there."""


class PublishError(DataprepError):
    """A data set that the Hub does not take, or not from us."""


class GateError(DataprepError):
    """The quality gate found a critical fault.

    `ids` has the failing conversations by expectation, `counts` their whole number: of many, only the first are named.
    """

    exit_code = 3

    def __init__(
        self, sentence: str, ids: Mapping[str, Sequence[str]] | None = None, counts: Mapping[str, int] | None = None
    ) -> None:
        super().__init__(sentence)
        self.ids = dict(ids or {})
        self.counts = dict(counts or {})


class DamagedBuild(DataprepError):
    """A build whose files are not what its manifest says."""

    exit_code = 4


def nearest(name: str, available: Iterable[str]) -> str:
    """`Did you mean 'x'? Available: …`: the end of a sentence about an unknown name."""
    names = sorted(available)
    close = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"Did you mean '{close[0]}'? " if close else ""
    return f"{hint}Available: {', '.join(names)}." if names else "None is available."
