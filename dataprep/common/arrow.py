"""Between NumPy and Arrow by way of Polars, without a copy of what is not text; and columns with some values replaced.

pyarrow's own `array`, `scalar` and `to_numpy` load pandas at their first call, only to know whether they deal with
something of its kind: a fifth of a second, for nothing. The ways of guanaco text and of flat messages do without them.
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
    """A NumPy array of numbers or booleans as an Arrow array."""
    return pl.Series(values).to_arrow()


def strings(values: Sequence[str] | pl.Series) -> pa.StringArray:
    """Texts as an Arrow array of `string`."""
    return pl.Series(values, dtype=pl.String).to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.string())


def numpied(array: pa.Array) -> npt.NDArray[Any]:
    """An Arrow array of numbers or booleans as a NumPy array; read-only where no copy is needed; of numbers null is NaN."""
    return pl.Series(array).to_numpy()


def replaced(column: pl.Series, at: npt.NDArray[np.integer], values: pl.Series) -> pl.Series:
    """`column` with `values` at the places `at`: of texts and lists only the views are copied."""
    order = np.arange(len(column))
    order[at] = len(column) + np.arange(len(at))
    return pl.concat([column, values.alias(column.name)]).gather(order)


def delay_page_release() -> None:
    """Use jemalloc for Arrow's buffers where pyarrow has it, and return freed pages late: that saves page faults."""
    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
        pa.jemalloc_set_decay_ms(10_000)
