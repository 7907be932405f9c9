"""Label the connected components of a graph of pairs."""

from __future__ import annotations

import numpy as np

from dataprep.dedup.normal_form import RowIndices


def connected_components(count: int, left: RowIndices, right: RowIndices) -> RowIndices:
    """[count] Return the smallest node that each node is connected with (itself if it is in no pair).

    Minimum labels spread along pairs and then jump to their own label, in O(log count) rounds.
    """
    label = np.arange(count)
    while True:
        minimum = np.minimum(label[left], label[right])
        before = label.copy()
        for side in (left, right):
            np.minimum.at(label, label[side], minimum)
            np.minimum.at(label, side, minimum)
        label = label[label]
        if (label == before).all():
            return label
