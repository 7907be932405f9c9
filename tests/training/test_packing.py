"""Whole conversations into windows: nothing lost, nothing twice, nearly nothing empty."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.builds import table
from training.encode import encode
from training.ledger import prepare
from training.packing import pack


@settings(deadline=None)
@given(st.lists(st.integers(1, 50), max_size=200), st.integers(50, 90), st.integers(1, 8))
def test_each_row_once_and_no_window_over_its_size(lengths, size, multiple):
    packed = pack(np.array(lengths, np.int64), size, seed=0, multiple_of=multiple)
    assert sorted(row for window in packed.windows for row in window) == list(range(len(lengths)))
    assert all(sum(lengths[row] for row in window) <= size and window for window in packed.windows)
    if len(lengths) >= 2 * multiple * (len(packed.windows) or 1):
        assert len(packed.windows) % multiple == 0


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
