"""Whole conversations into fixed windows: best fit over the whole data set.

Best fit decreasing fills 0.99 and more of the windows of real conversations (Johnson 1974: never more than
11/9 of the best number of windows). Windows only ever hold whole conversations; each keeps its own positions, and
attention never crosses (`attention.py`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packed:
    """`windows`: for each window the rows in it. `fill`: tokens over windows times the window's size, 0..1."""

    windows: list[list[int]]
    fill: float


def pack(lengths: NDArray[np.int64], size: int, *, seed: int) -> Packed:
    """Rows of the given `lengths` (tokens, each at most `size`) into windows of `size` tokens, in a seeded order."""
    windows = _best_fit(lengths, size)
    order = np.random.default_rng(seed).permutation(len(windows))
    full = float(lengths.sum()) / (len(windows) * size) if windows else 0.0
    return Packed([windows[number] for number in order], full)


def _best_fit(lengths: NDArray[np.int64], size: int) -> list[list[int]]:
    """Longest first, each into the window with the least room that still takes it: O(n log size)."""
    windows: list[list[int]] = []
    by_room: dict[int, list[int]] = {}
    rooms: list[int] = []  # the keys of by_room, sorted: at most `size` of them
    for row in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[row])
        place = bisect_left(rooms, length)
        if place == len(rooms):
            number, room = len(windows), size
            windows.append([])
        else:
            room = rooms[place]
            number = by_room[room].pop()
            if not by_room[room]:
                del by_room[room]
                rooms.pop(place)
        windows[number].append(row)
        left = room - length
        if left:
            if left not in by_room:
                insort(rooms, left)
                by_room[left] = []
            by_room[left].append(number)
    return windows
