"""Truncation, labels and the ledger: every token has one fate."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.encode import IGNORED, EncodedRows
from training.data.labels import Cut, TrainOn, truncate_and_label
from training.errors import DataError

Shape = list[tuple[int, int]]  # (masked tokens, trained tokens) of each turn of a row


def encoded_rows(rows: list[list[int]]) -> EncodedRows:
    """Rows given by the answer that each token belongs to (-1: none); ids count up."""
    answer = np.array([number for row in rows for number in row], np.int32)
    bounds = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    names = [f"r{number}" for number in range(len(rows))]
    return EncodedRows(names, np.arange(len(answer), dtype=np.int32), answer, bounds)


def answers_of(shape: Shape) -> list[int]:
    return [number for turn, (masked, trained) in enumerate(shape) for number in [-1] * masked + [turn] * trained]


shapes_of_rows = st.lists(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5), min_size=1, max_size=8
)


@settings(deadline=None)
@given(shapes=shapes_of_rows, window=st.integers(4, 60), cut=st.sampled_from(["newest", "drop"]))
def test_a_truncated_row_is_the_longest_prefix_that_ends_with_an_answer(
    shapes: list[Shape], window: int, cut: Cut
) -> None:
    encoded = encoded_rows([answers_of(shape) for shape in shapes])
    labelled = truncate_and_label(encoded, window, cut, "all-answers", strict=False)  # Ledger checks its own sum
    ledger = labelled.ledger
    assert ledger.tokens_read == len(encoded.ids)
    assert ledger.rows_read == ledger.rows + ledger.rows_dropped + ledger.rows_untrained
    by_name = {name: (number, shapes[number]) for number, name in enumerate(encoded.names)}
    for index, name in enumerate(labelled.rows.names):
        part = slice(labelled.rows.bounds[index], labelled.rows.bounds[index + 1])
        number, shape = by_name[name]
        kept = labelled.rows.ids[part]
        assert len(kept) <= window
        start = encoded.bounds[number]
        assert (kept == encoded.ids[start : start + len(kept)]).all()
        ends = np.cumsum([masked + trained for masked, trained in shape])
        assert len(kept) == max(end for end in ends if end <= window)
        assert (labelled.labels[part][labelled.rows.answer[part] < 0] == IGNORED).all()
    for name in ledger.dropped:
        shape = by_name[name][1]
        assert (sum(map(sum, shape)) if cut == "drop" else sum(shape[0])) > window
    if cut == "newest":
        lost = sum(len(by_name[name][1]) for name in ledger.dropped)
        remaining = sum(int(np.ptp(answers) + 1) if len(answers) else 0 for answers in _answers(labelled.rows))
        assert ledger.answers_read == ledger.answers_cut + lost + remaining


def _answers(rows: EncodedRows) -> Iterator[np.ndarray[Any, Any]]:
    """The answer numbers of each row's tokens."""
    for a, b in zip(rows.bounds, rows.bounds[1:], strict=False):
        part = rows.answer[a:b]
        yield part[part >= 0]


@pytest.mark.parametrize(
    "train_on, trained",
    [("all-answers", 4), ("last-answer", 2), ("everything", 6)],  # nothing predicts the first token
)
def test_train_on_selects_the_trained_tokens(train_on: TrainOn, trained: int) -> None:
    encoded = encoded_rows([[-1, -1, 0, 0, -1, 1, 1]])
    assert truncate_and_label(encoded, 99, "newest", train_on).ledger.tokens_trained == trained


def test_the_last_answer_of_a_truncated_row_is_the_last_that_fits() -> None:
    labelled = truncate_and_label(encoded_rows([[-1, 0, 0, -1, 1, 1]]), 5, "newest", "last-answer")
    assert labelled.labels.tolist() == [IGNORED, 1, 2]
    assert labelled.ledger.answers_cut == 1 and labelled.ledger.tokens_cut == 3


def test_rows_without_a_trained_token_are_named() -> None:
    labelled = truncate_and_label(encoded_rows([[-1, 0]] * 200 + [[-1, -1]]), 9, "newest", "all-answers")
    assert labelled.ledger.untrained == ["r200"] and "r200" in " ".join(labelled.ledger.sentences())


def test_more_than_one_percent_of_rows_without_a_trained_token_is_an_error() -> None:
    with pytest.raises(DataError, match="r2"):
        truncate_and_label(encoded_rows([[-1, 0], [-1, 0], [-1, -1]]), 9, "newest", "all-answers")


def test_a_window_into_which_no_row_fits_is_an_error() -> None:
    with pytest.raises(DataError, match="--max-tokens"):
        truncate_and_label(encoded_rows([[-1, 0, 0, 0, 0]]), 3, "newest", "all-answers")
