"""Packing of whole conversations into windows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.training_builds import Row, table
from training.data.encode import IGNORED, EncodedRows, encode
from training.data.labels import LabelledRows, truncate_and_label
from training.data.windows import pack, window_dataset, with_empty_windows
from training.model.tokenizer import ChatTokenizer


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=200), st.integers(50, 90))
def test_each_row_is_in_one_window_and_no_window_is_over_its_size(lengths: list[int], size: int) -> None:
    packing = pack(np.array(lengths, np.int64), size, seed=0)
    assert sorted(row for window in packing.windows for row in window) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in window) <= size and window for window in packing.windows)


@settings(deadline=None)
@given(st.lists(st.integers(2, 50), min_size=1, max_size=60), st.integers(50, 90), st.integers(1, 8))
def test_windows_without_labels_make_the_number_of_windows_a_multiple(
    lengths: list[int], size: int, multiple: int
) -> None:
    labelled = labelled_rows(lengths)
    dataset, packing = window_dataset(labelled, size, seed=0)
    dataset = with_empty_windows(dataset, multiple)
    packed = len(packing.windows)
    assert len(dataset) % multiple == 0 and 0 <= len(dataset) - packed < multiple
    rows = [row for window in packing.windows for row in window]
    assert sorted(rows) == list(range(len(lengths)))
    ids = labelled.rows.ids
    for number, window in enumerate(packing.windows):
        assert dataset[number]["seq_lengths"] == [lengths[row] for row in window]
        starts = [sum(lengths[:row]) for row in window]
        expected = np.concatenate([ids[a : a + lengths[row]] for a, row in zip(starts, window, strict=True)])
        assert dataset[number]["input_ids"] == expected.tolist()
    for number in range(packed, len(dataset)):
        assert dataset[number]["labels"] == [IGNORED] and dataset[number]["seq_lengths"] == [1]
    labels = [label for window in dataset["labels"] for label in window if label != IGNORED]
    assert len(labels) == labelled.ledger.tokens_trained


def test_an_odd_number_of_full_windows_gets_one_empty_window_for_two_processes() -> None:
    dataset, packing = window_dataset(labelled_rows([50] * 7), 50, seed=0)
    dataset = with_empty_windows(dataset, 2)
    assert len(packing.windows) == 7 and len(dataset) == 8 and packing.fill == 1.0


def labelled_rows(lengths: list[int]) -> LabelledRows:
    """Rows of the given lengths, of which the last token is trained; ids count up."""
    span = np.concatenate([np.append(np.full(length - 1, -1), 0) for length in lengths]).astype(np.int32)
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    names = [f"r{number}" for number in range(len(lengths))]
    encoded = EncodedRows(names, np.arange(len(span), dtype=np.int32), span, bounds)
    return truncate_and_label(encoded, 99, "newest", "all-answers")


def test_the_seed_determines_the_order_of_the_windows() -> None:
    lengths = np.arange(1, 200)
    first, again, other = (pack(lengths, 300, seed=seed).windows for seed in (1, 1, 2))
    assert first == again and first != other and sorted(first) == sorted(other)


@pytest.mark.real
@pytest.mark.parametrize("rows", [200, 518])
def test_windows_of_real_conversations_are_at_least_97_percent_full(
    llama2: ChatTokenizer, guanaco: list[Row], rows: int
) -> None:
    labelled = truncate_and_label(encode(table(guanaco[:rows]), llama2), 2048, "newest", "all-answers")
    assert pack(labelled.rows.lengths, 2048, seed=0).fill >= 0.97
