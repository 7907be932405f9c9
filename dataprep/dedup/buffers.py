"""A column of texts as two NumPy arrays over Arrow's own buffers, and walks over it in cache-sized blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
BATCH = 1 << 24  # bytes of text whose documents or grams are held at a time; grams take up to 30 times as much
BLOCK = 1 << 18  # bytes of text worked on at a time: with its temporaries, a block stays in a core's caches


class Texts(NamedTuple):
    """`n` texts in UTF-8, one after the other: text `i` is `data[offsets[i]:offsets[i + 1]]`."""

    data: Bytes
    offsets: Offsets  # [n + 1]

    def joined(self, lengths: npt.NDArray[np.integer]) -> Texts:
        """The same bytes as fewer texts: the first `lengths[0]` texts as one, the next `lengths[1]` as one, …"""
        return Texts(self.data, self.offsets[offsets_of(lengths)])


def texts_of(column: pl.Series) -> Texts:
    """The buffers of a string column; null counts as empty. One copy of the bytes (Polars keeps views)."""
    array = column.rechunk().to_arrow()
    array = array if pa.types.is_large_string(array.type) else array.cast(pa.large_string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return Texts(np.frombuffer(data, np.uint8)[: ends[-1]] if data else np.zeros(0, np.uint8), ends)


def blocks(offsets: Offsets, size: int) -> Iterator[tuple[int, int]]:
    """Ranges of texts of about `size` bytes together; a longer text is a block of its own."""
    start, count = 0, len(offsets) - 1
    while start < count:
        stop = int(np.searchsorted(offsets, offsets[start] + size, "right")) - 1
        stop = min(max(stop, start + 1), count)
        yield start, stop
        start = stop


def offsets_of(sizes: npt.NDArray[np.integer]) -> Offsets:
    """[n + 1] Where parts of these sizes begin when laid one after the other, and where the last one ends."""
    return np.cumsum(np.append(0, sizes), dtype=np.int64)


def each_block(column: pl.Series, work: Callable[[Texts, slice], None]) -> None:
    """`work(texts, place)` for each block of a string column, on as many threads as Polars uses.

    `work` should put what it finds at `place` of arrays of its own. NumPy lets go of the interpreter in its loops;
    a block at a time, the copy that `texts_of` makes is small and stays warm.
    """
    ranges = blocks(offsets_of(column.str.len_bytes().fill_null(0).to_numpy()), BLOCK)

    def run(start: int, stop: int) -> None:
        work(texts_of(column[start:stop]), slice(start, stop))

    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        for done in [pool.submit(run, *ends) for ends in ranges]:
            done.result()
