"""Pack whole conversations into windows of a fixed size, by best fit over the whole data set.

Best fit decreasing fills at least 0.99 of the windows on real conversations (Johnson 1974: it never needs more than 11/9
of the minimum number of windows). A window holds whole conversations only. Each conversation keeps its own positions, and
attention does not cross conversations (`training.model.attention`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.data.encode import IGNORED
from training.data.labels import LabelledRows

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Packing:
    """`windows`: the row numbers in each window. `fill`: share of all windows' positions that hold a token, 0 to 1."""

    windows: list[list[int]]
    fill: float


def pack(lengths: NDArray[np.int64], size: int, *, seed: int) -> Packing:
    """Assign rows of `lengths` tokens (each at most `size`) to windows of `size` tokens; the windows are shuffled."""
    windows = _best_fit(lengths, size)
    order = np.random.default_rng(seed).permutation(len(windows))
    fill = float(lengths.sum()) / (len(windows) * size) if windows else 0.0
    return Packing([windows[index] for index in order], fill)


def _best_fit(lengths: NDArray[np.int64], size: int) -> list[list[int]]:
    """Put each row, longest first, into the fullest window that still has space for it: O(n log size)."""
    windows: list[list[int]] = []
    windows_by_space: dict[int, list[int]] = {}  # free tokens -> windows with that many
    spaces: list[int] = []  # the sorted keys of `windows_by_space`, at most `size` of them
    for row in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[row])
        index = bisect_left(spaces, length)
        if index == len(spaces):
            window, space = len(windows), size
            windows.append([])
        else:
            space = spaces[index]
            window = windows_by_space[space].pop()
            if not windows_by_space[space]:
                del windows_by_space[space]
                spaces.pop(index)
        windows[window].append(row)
        remaining = space - length
        if remaining:
            if remaining not in windows_by_space:
                insort(spaces, remaining)
                windows_by_space[remaining] = []
            windows_by_space[remaining].append(window)
    return windows


def one_row_each(lengths: NDArray[np.int64], *, seed: int) -> Packing:
    """Assign every row to a window of its own; the windows are shuffled. `fill` assumes padding to the longest row."""
    order = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    longest = int(lengths.max(initial=1))
    return Packing([[row] for row in order], float(lengths.sum()) / (max(1, len(lengths)) * longest))


def window_dataset(labelled: LabelledRows, size: int, *, seed: int, packed: bool = True) -> tuple[Dataset, Packing]:
    """Pack rows into a data set of windows; without `packed`, every row has a window of its own.

    Its columns are `input_ids` and `labels` (one value for each token) and `seq_lengths` (one for each conversation).
    `collate` concatenates windows to one row of the model's input.
    """
    from datasets import Dataset

    lengths = labelled.rows.lengths
    packing = pack(lengths, size, seed=seed) if packed else one_row_each(lengths, seed=seed)
    order = np.array([row for window in packing.windows for row in window], np.int64)
    rows = labelled.rows.take(order)
    labels = replace(labelled.rows, ids=labelled.labels).take(order).ids
    row_bounds = np.concatenate([[0], np.cumsum([len(window) for window in packing.windows])]).astype(np.int64)
    token_bounds = rows.bounds[row_bounds]
    table = pa.table(
        {
            "input_ids": pa.LargeListArray.from_arrays(pa.array(token_bounds), pa.array(rows.ids)),
            "labels": pa.LargeListArray.from_arrays(pa.array(token_bounds), pa.array(labels)),
            "seq_lengths": pa.LargeListArray.from_arrays(pa.array(row_bounds), pa.array(rows.lengths)),
        }
    )
    return Dataset(table), packing


def with_empty_windows(windows: Dataset, multiple_of: int) -> Dataset:
    """Append windows of one token without a label until the number of windows is a multiple of `multiple_of`.

    Without them accelerate would repeat real windows in the last round if several processes share the windows.
    """
    from datasets import Dataset

    missing = -len(windows) % multiple_of
    if not missing:
        return windows
    table = windows.data.table
    token = windows[0]["input_ids"][:1]
    empty = {"input_ids": [token] * missing, "labels": [[IGNORED]] * missing, "seq_lengths": [[1]] * missing}
    return Dataset(pa.concat_tables([table, pa.table(empty, schema=table.schema)]))
