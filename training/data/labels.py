"""The token ledger: what is read, cut, dropped, trained and masked; every token has one fate, and the sum is checked."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data.encode import IGNORED, EncodedRows
from training.errors import DataError

NAMED = 20  # rows that run.json and messages name, at most


@dataclass(frozen=True)
class Ledger:
    """Tokens and rows by their fate. `tokens_read = trained + masked + cut + dropped + untrained`."""

    rows_read: int
    tokens_read: int
    answers_read: int
    rows_cut: int  # longer than the window, ended after the last answer that fits
    tokens_cut: int
    answers_cut: int
    rows_dropped: int  # longer than the window, and not even the first answer fits (or --cut drop)
    tokens_dropped: int
    dropped: list[str] = field(default_factory=list)  # their ids
    rows_untrained: int = 0  # rows without one trained token
    tokens_untrained: int = 0
    untrained: list[str] = field(default_factory=list)
    rows: int = 0  # what is left
    tokens_trained: int = 0
    tokens_masked: int = 0
    tokens_padded: int = 0  # none: windows are laid end to end

    def __post_init__(self) -> None:
        parts = self.tokens_trained + self.tokens_masked + self.tokens_cut + self.tokens_dropped + self.tokens_untrained
        if parts != self.tokens_read:
            raise AssertionError(f"The token ledger does not add up: {parts} of {self.tokens_read}.")

    def as_json(self) -> dict[str, Any]:
        """All of it, with at most `NAMED` ids in each list."""
        facts = dict(self.__dict__)
        return facts | {"dropped": self.dropped[:NAMED], "untrained": self.untrained[:NAMED]}

    def sentences(self) -> list[str]:
        """What was lost, told; nothing where nothing was."""
        said = []
        if self.rows_cut:
            share = self.tokens_cut / self.tokens_read
            said.append(
                f"{self.rows_cut} conversations were longer than the window and ended earlier: "
                f"{self.answers_cut} answers, {self.tokens_cut} tokens ({share:.1%}) were cut."
            )
        for rows, listed, why in (
            (self.rows_dropped, self.dropped, "did not fit into the window and were dropped"),
            (self.rows_untrained, self.untrained, "have no trained token and were left out"),
        ):
            if rows:
                said.append(f"{rows} conversations {why}: {', '.join(listed[:NAMED])}{' …' if rows > NAMED else ''}")
        return said


@dataclass(frozen=True)
class LabelledRows:
    """Rows ready to be packed: `rows` cut to the window, `labels` (int32, one for each token), and the ledger."""

    rows: EncodedRows
    labels: NDArray[np.int32]
    ledger: Ledger


def truncate_and_label(
    encoded: EncodedRows, window: int, cut: str, train_on: str, *, strict: bool = True
) -> LabelledRows:
    """Cut what is longer than `window` tokens, set the labels, count everything.

    A conversation that is too long ends after its last answer that fits, so that what is left is a prefix of its text.

    Raises:
        DataError: no row is left; or (`strict`) over 1 % of the rows have no trained token.
    """
    keep, answers_cut = _fitting(encoded, window, cut)
    kept = np.flatnonzero(keep > 0)
    fitting = encoded.take(kept, keep[kept])
    trained = _trained(fitting, train_on)
    count = np.add.reduceat(trained, fitting.bounds[:-1]) if len(kept) else np.empty(0, np.int64)
    rich, poor = np.flatnonzero(count > 0), np.flatnonzero(count == 0)
    rows = fitting.take(rich)
    mask = _trained(rows, train_on)
    dropped, shortened = np.flatnonzero(keep == 0), np.flatnonzero((keep > 0) & (keep < encoded.lengths))
    ledger = Ledger(
        rows_read=len(encoded.names),
        tokens_read=len(encoded.ids),
        answers_read=int(len(_last_tokens(encoded))),
        rows_cut=len(shortened),
        tokens_cut=int((encoded.lengths - keep)[shortened].sum()),
        answers_cut=answers_cut,
        rows_dropped=len(dropped),
        tokens_dropped=int(encoded.lengths[dropped].sum()),
        dropped=[encoded.names[row] for row in dropped],
        rows_untrained=len(poor),
        tokens_untrained=int(fitting.lengths[poor].sum()),
        untrained=[fitting.names[row] for row in poor],
        rows=len(rich),
        tokens_trained=int(mask.sum()),
        tokens_masked=int(len(mask) - mask.sum()),
    )
    if strict:
        _insist(ledger, window)
    return LabelledRows(rows, np.where(mask, rows.ids, IGNORED).astype(np.int32), ledger)


def _insist(ledger: Ledger, window: int) -> None:
    if ledger.rows_untrained > 0.01 * ledger.rows_read:
        raise DataError(
            f"{ledger.rows_untrained} of {ledger.rows_read} conversations have no trained token "
            f"({', '.join(ledger.untrained[:5])}): the build's spans are empty, or --train-on leaves nothing."
        )
    if ledger.rows == 0 and ledger.rows_read:
        raise DataError(
            f"None of the {ledger.rows_read} conversations fits into a window of {window} tokens: raise --max-tokens."
        )
    if ledger.rows == 0:
        raise DataError("The build has no conversations to train on: its train split is empty.")


def _last_tokens(encoded: EncodedRows) -> NDArray[np.int64]:
    """The places of the last tokens of all answers."""
    following = np.append(encoded.span[1:], -1)
    following[encoded.bounds[1:-1] - 1] = -1  # the next row's tokens follow nothing
    return np.flatnonzero((encoded.span >= 0) & (following != encoded.span))


def _fitting(encoded: EncodedRows, window: int, cut: str) -> tuple[NDArray[np.int64], int]:
    """For each row the number of tokens to keep (0: none of it), and how many answers are cut off kept rows."""
    keep = encoded.lengths.copy()
    long = np.flatnonzero(keep > window)
    if cut == "drop" or len(long) == 0:
        keep[long] = 0
        return keep, 0
    lasts = _last_tokens(encoded)
    if len(lasts) == 0:
        keep[long] = 0
        return keep, 0
    start = encoded.bounds[long]
    found = np.searchsorted(lasts, start + window) - 1  # the last answer that ends inside the window
    fits = (found >= 0) & (lasts[found] >= start)
    keep[long] = np.where(fits, lasts[found] + 1 - start, 0)
    whole = np.searchsorted(lasts, encoded.bounds[long + 1])
    return keep, int((whole - found - 1)[fits].sum())


def _trained(encoded: EncodedRows, train_on: str) -> NDArray[np.bool_]:
    """Which tokens are trained. A row's first token never is: nothing comes before it to predict it from."""
    if train_on == "everything":
        mask = np.ones(len(encoded.ids), np.bool_)
    elif train_on == "all-answers":
        mask = encoded.span >= 0
    else:
        newest = np.maximum.reduceat(encoded.span, encoded.bounds[:-1]) if encoded.names else np.empty(0, np.int32)
        mask = (encoded.span >= 0) & (encoded.span == np.repeat(newest, encoded.lengths))
    mask[encoded.bounds[:-1]] = False
    return mask
