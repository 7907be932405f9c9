"""Connected components equal those of merging sets one pair at a time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.dedup.components import connected_components


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=30))
def test_each_node_is_labelled_with_the_smallest_one_it_is_connected_with(pairs: list[tuple[int, int]]) -> None:
    groups = [{i} for i in range(20)]
    for a, b in pairs:
        joined = groups[a] | groups[b]
        for member in joined:
            groups[member] = joined
    left, right = (np.array(side, np.intp) for side in (zip(*pairs, strict=True) if pairs else ([], [])))
    assert connected_components(20, left, right).tolist() == [min(group) for group in groups]
