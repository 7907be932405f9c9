"""Check the buffers of untrusted Arrow data: wrong offsets and indices would make later code read outside of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa


def python_row(batch: pa.RecordBatch, row: int) -> dict[str, Any]:
    """Return a row as Python values; a column whose value Python does not have, such as the year 300000, is null.

    Raises:
        UnicodeDecodeError: a text is not UTF-8.
    """
    one = batch.slice(row, 1)
    try:
        values: dict[str, Any] = one.to_pylist()[0]
        return values
    except UnicodeDecodeError:
        raise
    except (OverflowError, ValueError):
        return {name: _python_value(column[0]) for name, column in zip(one.schema.names, one.columns, strict=True)}


def _python_value(scalar: pa.Scalar) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        raise
    except (OverflowError, ValueError):
        return None


def check_batch(batch: pa.RecordBatch) -> None:
    """Check the names and every value of `batch`.

    Text that is not UTF-8 passes: such rows are rejected one by one when they are read.

    Raises:
        pa.ArrowInvalid: an offset, an index, a length or a child does not fit its buffers, or two columns have one name.
    """
    names = batch.schema.names
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise pa.ArrowInvalid(f"several columns have the name '{repeated[:100]}'")
    for column in batch.columns:
        _check_array(column)


def _check_array(array: pa.Array) -> None:
    try:
        array.validate(full=True)
        return
    except pa.ArrowInvalid as fault:
        if "UTF8" not in str(fault):
            raise
    # The full validation stops at the first text that is not UTF-8, so the rest of the array is checked part by part.
    array.validate()
    kind = array.type
    if pa.types.is_struct(kind):
        for number in range(kind.num_fields):
            _check_array(array.field(number))
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        offsets = array.offsets.to_numpy()
        values = array.values
        if len(offsets) and (offsets[0] < 0 or offsets[-1] > len(values) or (np.diff(offsets) < 0).any()):
            raise pa.ArrowInvalid("the offsets of a list are not in order")
        _check_array(values)
    elif pa.types.is_fixed_size_list(kind):
        _check_array(array.values)
    else:
        _check_as_bytes(array)


_BYTES = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary(), pa.string_view(): pa.binary_view()}


def _check_as_bytes(array: pa.Array) -> None:
    if array.type not in _BYTES:
        raise pa.ArrowInvalid(f"text of type {array.type} is not UTF-8")
    as_bytes = pa.Array.from_buffers(_BYTES[array.type], len(array), array.buffers(), offset=array.offset)
    as_bytes.validate(full=True)
