"""View a column of texts as NumPy arrays over Arrow's own buffers, and walk over it in cache-sized blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]
PackedPairs = npt.NDArray[np.uint64]
Number = TypeVar("Number", bound=np.number)
Task = TypeVar("Task")
Result = TypeVar("Result")
BATCH_BYTES = 1 << 24  # text whose documents or n-grams are held at a time; n-grams take up to 30 times as much
MANY = 1 << 14  # values from which Polars sorts faster than NumPy
BLOCK_TEXTS = 1 << 12  # texts processed at a time
BLOCK_BYTES = 1 << 18  # text processed at a time: with its temporaries, a block stays in a core's caches

_POSITIONS = pl.Series(np.arange(2 * BLOCK_BYTES, dtype=np.uint32))


class TextBuffer(NamedTuple):
    """`n` texts in UTF-8, stored one after the other: text `i` is `data[offsets[i]:offsets[i + 1]]`."""

    data: Bytes
    offsets: Offsets  # [n + 1]

    def concatenated(self, counts: npt.NDArray[np.integer]) -> TextBuffer:
        """Return the same bytes as fewer texts: the first `counts[0]` texts become one, the next `counts[1]` one, …"""
        return TextBuffer(self.data, self.offsets[offsets_from_sizes(counts)])


def text_buffer(column: pl.Series) -> TextBuffer:
    """Return the buffers of a string column; null counts as empty. Copies the bytes once, because Polars keeps views."""
    array = column.rechunk().to_arrow()
    array = array if pa.types.is_large_string(array.type) else array.cast(pa.large_string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
    return TextBuffer(np.frombuffer(data, np.uint8)[: ends[-1]] if data else np.zeros(0, np.uint8), ends)


def ranges_of_size(offsets: Offsets, size: int) -> Iterator[tuple[int, int]]:
    """Yield ranges (start, stop) of texts that have about `size` bytes together; a longer text is a range of its own."""
    start, count = 0, len(offsets) - 1
    while start < count:
        stop = int(np.searchsorted(offsets, offsets[start] + size, "right")) - 1
        stop = min(max(stop, start + 1), count)
        yield start, stop
        start = stop


def offsets_from_sizes(sizes: npt.NDArray[np.integer]) -> Offsets:
    """[n + 1] Return where parts of these sizes begin when stored one after the other, and where the last one ends."""
    return np.cumsum(np.append(0, sizes), dtype=np.int64)


def selected(values: npt.NDArray[Number], mask: npt.NDArray[np.bool_]) -> npt.NDArray[Number]:
    """Return `values[mask]` (read-only); Polars takes a tenth of NumPy's time for small numbers."""
    chosen: npt.NDArray[Number] = pl.Series(values).filter(pl.Series(mask)).to_numpy()
    return chosen


def true_positions(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """Return the indices at which a mask is true; Polars takes a third of NumPy's time for what fits into a block."""
    if len(mask) > len(_POSITIONS):
        return np.flatnonzero(mask)
    return _POSITIONS.head(len(mask)).filter(pl.Series(mask)).to_numpy().astype(np.intp)


def sorted_numbers(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return the values in ascending order; Polars takes a third of NumPy's time for many of them."""
    return pl.Series(values).sort().to_numpy() if len(values) >= MANY else np.sort(values)


def sorted_unique(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """Return the values in ascending order, each once (`np.unique` hashes, which is slower if most values are repeated)."""
    values = sorted_numbers(values)
    unique: npt.NDArray[Number] = values[np.append(True, values[1:] != values[:-1])[: len(values)]]
    return unique


def packed(left: npt.NDArray[np.integer], right: npt.NDArray[np.integer]) -> PackedPairs:
    """Return each pair of numbers below 2^32 as one number, which sorts by `left`, then by `right`."""
    return left.astype(np.uint64) << np.uint64(32) | right.astype(np.uint64)


def unpacked(pairs: PackedPairs) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return (left, right) of pairs as `packed` returns them."""
    return (pairs >> np.uint64(32)).astype(np.intp), (pairs & np.uint64(0xFFFFFFFF)).astype(np.intp)


def on_threads(function: Callable[[Task], Result], tasks: Iterable[Task]) -> list[Result]:
    """Return `function` of each task, computed on as many threads as Polars uses; NumPy and Polars release the GIL."""
    tasks = list(tasks)
    if len(tasks) < 2:
        return [function(task) for task in tasks]  # starting threads takes longer than a small task
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        return list(pool.map(function, tasks))


def for_each_block(column: pl.Series, process: Callable[[TextBuffer, slice], None]) -> None:
    """Call `process(texts, rows)` for each block of a string column, on as many threads as Polars uses.

    `process` should write its results at `rows` of arrays of its own. NumPy releases the GIL in its loops, and the copy
    that `text_buffer` makes of one block is small and stays in the caches. A block has at most `BLOCK_TEXTS` texts.
    """
    sizes = np.maximum(column.str.len_bytes().fill_null(0).to_numpy(), BLOCK_BYTES // BLOCK_TEXTS)
    ranges = ranges_of_size(offsets_from_sizes(sizes), BLOCK_BYTES)

    def run(bounds: tuple[int, int]) -> None:
        start, stop = bounds
        process(text_buffer(column[start:stop]), slice(start, stop))

    on_threads(run, ranges)
