"""Convert between NumPy and Arrow by way of Polars, without copying numbers; and replace some values of a column.

pyarrow's own `array`, `scalar` and `to_numpy` import pandas at their first call, to recognise its types; that takes a
fifth of a second. Reading guanaco text and flat messages does without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa


def numbers(values: npt.NDArray[Any]) -> pa.Array:
    """Convert a NumPy array of numbers or booleans to an Arrow array."""
    return pl.Series(values).to_arrow()


def strings(values: Sequence[str | None] | pl.Series) -> pa.StringArray:
    """Convert texts to an Arrow array of `string`."""
    return pl.Series(values, dtype=pl.String).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string())


def to_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """Convert an Arrow array of numbers or booleans to NumPy: read-only where no copy is needed, null numbers as NaN."""
    return pl.Series(array).to_numpy()


def replace_at(column: pl.Series, positions: npt.NDArray[np.integer], values: pl.Series) -> pl.Series:
    """Return `column` with `values` at `positions`; of texts and lists only the views are copied."""
    order = np.arange(len(column))
    order[positions] = len(column) + np.arange(len(positions))
    return pl.concat([column, values.alias(column.name)]).gather(order)


def delay_page_release() -> None:
    """Use jemalloc for Arrow's buffers where pyarrow has it, and return freed pages late: that saves page faults."""
    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
        pa.jemalloc_set_decay_ms(10_000)
