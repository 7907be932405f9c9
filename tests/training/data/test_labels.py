"""Every token has one fate; long conversations end after the last answer that fits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.encode import IGNORED, EncodedRows
from training.data.labels import truncate_and_label
from training.errors import DataError


def made(rows: list[list[int]]) -> EncodedRows:
    """Rows given by the answer each token belongs to (-1: none); ids count up."""
    span = np.array([number for row in rows for number in row], np.int32)
    bounds = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return EncodedRows([f"r{n}" for n in range(len(rows))], np.arange(len(span), dtype=np.int32), span, bounds)


# A row: pairs of (masked tokens, trained tokens).
pairs = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5)


def row_of(shape):
    return [number for place, (masked, trained) in enumerate(shape) for number in [-1] * masked + [place] * trained]


@settings(deadline=None)
@given(
    shapes=st.lists(pairs, min_size=1, max_size=8), window=st.integers(4, 60), cut=st.sampled_from(["newest", "drop"])
)
def test_sum_and_prefix(shapes, window, cut):
    encoded = made([row_of(shape) for shape in shapes])
    ready = truncate_and_label(encoded, window, cut, "all-answers", strict=False)  # Ledger checks its own sum
    ledger = ready.ledger
    assert ledger.tokens_read == len(encoded.ids)
    assert ledger.rows_read == ledger.rows + ledger.rows_dropped + ledger.rows_untrained
    by_name = {name: (n, shapes[n]) for n, name in enumerate(encoded.names)}
    for place, name in enumerate(ready.rows.names):
        part = slice(ready.rows.bounds[place], ready.rows.bounds[place + 1])
        number, shape = by_name[name]
        kept = ready.rows.ids[part]
        assert len(kept) <= window
        start = encoded.bounds[number]
        assert (kept == encoded.ids[start : start + len(kept)]).all()  # a prefix
        ends = np.cumsum([masked + trained for masked, trained in shape])
        best = max(end for end in ends if end <= window)
        assert len(kept) == best
        assert (ready.labels[part][ready.rows.span[part] < 0] == IGNORED).all()
    for name in ledger.dropped:
        shape = by_name[name][1]
        limit = sum(map(sum, shape)) if cut == "drop" else sum(shape[0])
        assert limit > window
    if cut == "newest":
        lost = sum(len(shapes[by_name[name][0]]) for name in ledger.dropped)
        left = sum(int(np.ptp(s) + 1) if len(s) else 0 for s in _spans(ready.rows))
        assert ledger.answers_read == ledger.answers_cut + lost + left


def _spans(rows):
    for a, b in zip(rows.bounds, rows.bounds[1:], strict=False):
        part = rows.span[a:b]
        yield part[part >= 0]


def test_train_on():
    encoded = made([[-1, -1, 0, 0, -1, 1, 1]])
    trained = {kind: truncate_and_label(encoded, 99, "newest", kind).ledger.tokens_trained for kind in
               ("all-answers", "last-answer", "everything")}  # fmt: skip
    assert trained == {"all-answers": 4, "last-answer": 2, "everything": 6}  # the first token has no predecessor


def test_last_answer_is_the_last_that_fits():
    ready = truncate_and_label(made([[-1, 0, 0, -1, 1, 1]]), 5, "newest", "last-answer")
    assert ready.labels.tolist() == [IGNORED, 1, 2] and ready.ledger.answers_cut == 1 and ready.ledger.tokens_cut == 3


def test_rows_without_a_trained_token_are_named_and_an_error_over_one_percent():
    rows = [[-1, 0]] * 200 + [[-1, -1]]
    ready = truncate_and_label(made(rows), 9, "newest", "all-answers")
    assert ready.ledger.untrained == ["r200"] and "r200" in " ".join(ready.ledger.sentences())
    with pytest.raises(DataError, match="r2"):
        truncate_and_label(made([[-1, 0], [-1, 0], [-1, -1]]), 9, "newest", "all-answers")


def test_nothing_fits():
    with pytest.raises(DataError, match="--max-tokens"):
        truncate_and_label(made([[-1, 0, 0, 0, 0]]), 3, "newest", "all-answers")
