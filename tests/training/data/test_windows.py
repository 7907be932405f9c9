"""Whole conversations into windows: nothing lost, nothing twice, nearly nothing empty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.training_builds import table
from training.data.encode import IGNORED, Encoded, encode
from training.data.holdout import Split, windows, with_empty_windows
from training.data.labels import prepare
from training.data.windows import pack


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=200), st.integers(50, 90))
def test_each_row_once_and_no_window_over_its_size(lengths, size):
    packed = pack(np.array(lengths, np.int64), size, seed=0)
    assert sorted(row for window in packed.windows for row in window) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in window) <= size and window for window in packed.windows)


@settings(deadline=None)
@given(st.lists(st.integers(2, 50), min_size=1, max_size=60), st.integers(50, 90), st.integers(1, 8))
def test_several_processes_share_the_windows_evenly(lengths, size, multiple):
    """Each row once, in as many windows as there are packed; what makes their number even is empty and trains nothing."""
    split = split_of(lengths)
    dataset, packed = windows(split, size, seed=0)
    dataset = with_empty_windows(dataset, multiple)
    real = len(packed.windows)
    assert len(dataset) % multiple == 0 and 0 <= len(dataset) - real < multiple
    rows = [row for window in packed.windows for row in window]
    assert sorted(rows) == list(range(len(lengths)))
    ids = split.prepared.rows.ids
    for number, window in enumerate(packed.windows):
        assert dataset[number]["seq_lengths"] == [lengths[row] for row in window]
        starts = [sum(lengths[:row]) for row in window]
        wanted = np.concatenate([ids[a : a + lengths[row]] for a, row in zip(starts, window, strict=True)])
        assert dataset[number]["input_ids"] == wanted.tolist()
    for number in range(real, len(dataset)):
        assert dataset[number]["labels"] == [IGNORED] and dataset[number]["seq_lengths"] == [1]
    labels = [label for window in dataset["labels"] for label in window if label != IGNORED]
    assert len(labels) == split.prepared.ledger.tokens_trained


def test_windows_that_cannot_be_halved_are_made_even():
    dataset, packed = windows(split_of([50] * 7), 50, seed=0)
    dataset = with_empty_windows(dataset, 2)
    assert len(packed.windows) == 7 and len(dataset) == 8 and packed.fill == 1.0


def split_of(lengths):
    span = np.concatenate([np.append(np.full(length - 1, -1), 0) for length in lengths]).astype(np.int32)
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    encoded = Encoded([f"r{n}" for n in range(len(lengths))], np.arange(len(span), dtype=np.int32), span, bounds)
    return Split(table([]), prepare(encoded, 99, "newest", "all-answers"))


def test_the_order_is_shuffled_and_seeded():
    lengths = np.arange(1, 200)
    first, again, other = (pack(lengths, 300, seed=seed).windows for seed in (1, 1, 2))
    assert first == again and first != other and sorted(first) == sorted(other)


@pytest.mark.real
@pytest.mark.parametrize("rows", [200, 518])
def test_fill_on_guanaco(llama2, guanaco, rows):
    ready = prepare(encode(table(guanaco[:rows]), llama2), 2048, "newest", "all-answers")
    fill = pack(ready.rows.lengths, 2048, seed=0).fill
    assert fill >= 0.97, fill
