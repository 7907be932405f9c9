"""Truncate rows to the window, set their labels, and count every token in a ledger."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from dataprep.common.text import plural
from training.data.encode import IGNORED, EncodedRows
from training.errors import DataError

MAX_NAMED = 20  # rows that run.json names
SHOWN = 3  # rows that messages name
MAX_UNTRAINED_SHARE = 0.01  # of the rows; more rows without a trained token are an error

Cut = Literal["newest", "drop"]
TrainOn = Literal["all-answers", "last-answer", "everything"]


@dataclass(frozen=True)
class Ledger:
    """Number of rows and tokens by fate: `tokens_read = trained + masked + cut + dropped + untrained`."""

    rows_read: int
    tokens_read: int
    answers_read: int
    rows_cut: int  # longer than the window; they end after the last answer that fits
    tokens_cut: int
    answers_cut: int
    rows_dropped: int  # longer than the window, and the first answer does not fit (or --cut drop)
    tokens_dropped: int
    dropped: list[str] = field(default_factory=list)  # ids of the dropped rows
    rows_untrained: int = 0  # rows without a trained token
    tokens_untrained: int = 0
    untrained: list[str] = field(default_factory=list)  # their ids
    rows: int = 0  # rows that remain
    tokens_trained: int = 0
    tokens_masked: int = 0
    tokens_padded: int = 0  # always 0: windows are concatenated without padding

    def __post_init__(self) -> None:
        total = self.tokens_trained + self.tokens_masked + self.tokens_cut + self.tokens_dropped + self.tokens_untrained
        if total != self.tokens_read:
            raise AssertionError(f"The token ledger does not add up: {total} of {self.tokens_read}.")

    def as_record(self) -> dict[str, Any]:
        """The ledger as run.json holds it, with at most `MAX_NAMED` ids in each list."""
        return asdict(self) | {"dropped": self.dropped[:MAX_NAMED], "untrained": self.untrained[:MAX_NAMED]}

    def sentences(self) -> list[str]:
        """One sentence for each kind of loss; an empty list if nothing was cut or dropped."""
        sentences = []
        if self.rows_cut:
            share = self.tokens_cut / self.tokens_read
            sentences.append(
                f"{plural(self.rows_cut, 'conversation')} longer than the window, truncated: "
                f"{plural(self.answers_cut, 'answer')}, {plural(self.tokens_cut, 'token')} ({share:.1%}) cut."
            )
        for rows, names, reason in (
            (self.rows_dropped, self.dropped, "without an answer that fits into the window, dropped"),
            (self.rows_untrained, self.untrained, "without a trained token, dropped"),
        ):
            if rows:
                more = " …" if rows > SHOWN else ""
                sentences.append(f"{plural(rows, 'conversation')} {reason}: {', '.join(names[:SHOWN])}{more}")
        return sentences


@dataclass(frozen=True)
class LabelledRows:
    """Rows ready to be packed: `rows` truncated to the window, `labels` (int32, one for each token), and the ledger."""

    rows: EncodedRows
    labels: NDArray[np.int32]
    ledger: Ledger


def truncate_and_label(
    encoded: EncodedRows, window: int, cut: Cut, train_on: TrainOn, *, strict: bool = True
) -> LabelledRows:
    """Truncate rows longer than `window` tokens, set the labels, and count every token.

    A row that is too long ends after its last answer that fits, so that the rest is a prefix of its text.

    Raises:
        DataError: no row is left; or, if `strict`, more than 1 % of the rows have no trained token.
    """
    kept_tokens, answers_cut = _truncate(encoded, window, cut)
    kept = np.flatnonzero(kept_tokens > 0)
    fitting = encoded.take(kept, kept_tokens[kept])
    trained = trained_tokens(fitting, train_on)
    counts = np.add.reduceat(trained, fitting.bounds[:-1]) if len(kept) else np.empty(0, np.int64)
    labelled, untrained = np.flatnonzero(counts > 0), np.flatnonzero(counts == 0)
    rows = fitting.take(labelled)
    mask = trained_tokens(rows, train_on)
    dropped = np.flatnonzero(kept_tokens == 0)
    truncated = np.flatnonzero((kept_tokens > 0) & (kept_tokens < encoded.lengths))
    ledger = Ledger(
        rows_read=len(encoded.names),
        tokens_read=len(encoded.ids),
        answers_read=int(len(_answer_ends(encoded))),
        rows_cut=len(truncated),
        tokens_cut=int((encoded.lengths - kept_tokens)[truncated].sum()),
        answers_cut=answers_cut,
        rows_dropped=len(dropped),
        tokens_dropped=int(encoded.lengths[dropped].sum()),
        dropped=[encoded.names[row] for row in dropped],
        rows_untrained=len(untrained),
        tokens_untrained=int(fitting.lengths[untrained].sum()),
        untrained=[fitting.names[row] for row in untrained],
        rows=len(labelled),
        tokens_trained=int(mask.sum()),
        tokens_masked=int(len(mask) - mask.sum()),
    )
    if strict:
        _check(ledger, window)
    return LabelledRows(rows, np.where(mask, rows.ids, IGNORED).astype(np.int32), ledger)


def _check(ledger: Ledger, window: int) -> None:
    if ledger.rows_untrained > MAX_UNTRAINED_SHARE * ledger.rows_read:
        raise DataError(
            f"{ledger.rows_untrained:,} of {plural(ledger.rows_read, 'conversation')} without a trained token "
            f"({', '.join(ledger.untrained[:5])}): their spans are empty, or --train-on selects none of their tokens."
        )
    if ledger.rows == 0 and ledger.rows_read:
        raise DataError(
            f"None of {plural(ledger.rows_read, 'conversation')} fits into a window of {window} tokens: raise --max-tokens."
        )
    if ledger.rows == 0:
        raise DataError("The build has no conversations to train on: its train split is empty.")


def _answer_ends(encoded: EncodedRows) -> NDArray[np.int64]:
    """Positions of the last tokens of all answers."""
    following = np.append(encoded.answer[1:], -1)
    following[encoded.bounds[1:-1] - 1] = -1  # the next token belongs to another row
    return np.flatnonzero((encoded.answer >= 0) & (following != encoded.answer))


def _truncate(encoded: EncodedRows, window: int, cut: Cut) -> tuple[NDArray[np.int64], int]:
    """Number of tokens to keep of each row (0: drop the row), and how many answers are cut from the rows that are kept."""
    kept_tokens = encoded.lengths.copy()
    too_long = np.flatnonzero(kept_tokens > window)
    ends = _answer_ends(encoded)
    if cut == "drop" or len(too_long) == 0 or len(ends) == 0:
        kept_tokens[too_long] = 0
        return kept_tokens, 0
    start = encoded.bounds[too_long]
    last_answer = np.searchsorted(ends, start + window) - 1  # the last answer that ends inside the window
    fits = (last_answer >= 0) & (ends[last_answer] >= start)
    kept_tokens[too_long] = np.where(fits, ends[last_answer] + 1 - start, 0)
    answers_before_end = np.searchsorted(ends, encoded.bounds[too_long + 1])
    return kept_tokens, int((answers_before_end - last_answer - 1)[fits].sum())


def trained_tokens(encoded: EncodedRows, train_on: TrainOn) -> NDArray[np.bool_]:
    """Mask of the trained tokens; never a row's first token, because no token before it predicts it."""
    if train_on == "everything":
        mask = np.ones(len(encoded.ids), np.bool_)
    elif train_on == "all-answers":
        mask = encoded.answer >= 0
    else:
        last = np.maximum.reduceat(encoded.answer, encoded.bounds[:-1]) if encoded.names else np.empty(0, np.int32)
        mask = (encoded.answer >= 0) & (encoded.answer == np.repeat(last, encoded.lengths))
    mask[encoded.bounds[:-1]] = False
    return mask
