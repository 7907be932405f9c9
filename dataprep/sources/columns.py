"""Convert a batch of columns to the schema of a format, and account for the columns that the schema does not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import numbers, to_numpy
from dataprep.sources.coercion import coerce_or_none
from dataprep.sources.fields import account_columns, value_mask
from dataprep.sources.rows import FieldCounts, ParsedRows, Problems, reject, reject_incomplete, rejects
from dataprep.sources.schema import Column, Kind, RecordSchema

CONVERSION_ERRORS = (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError)


class NeedsLineReader(Exception):
    """A value of a batch can only be converted record by record."""


def convert_batch(
    batch: pa.RecordBatch, line: np.ndarray[Any, Any], schema: RecordSchema, drop_unknown: bool
) -> ParsedRows:
    """Convert a batch to `schema`: cast where types differ, null where columns are missing, without other columns.

    Raises:
        NeedsLineReader, pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError: a column cannot be converted.
    """
    counts, problems = FieldCounts(), Problems()
    given = dict(zip(batch.schema.names, batch.columns, strict=True))
    columns: dict[str, pa.Array] = {}
    for column in schema.columns:
        array = given.pop(column.name, None)
        if column.optional and (array is None or not pc.any(value_mask(array)).as_py()):
            continue
        if array is None:
            array = pa.nulls(len(batch), column.arrow_type(with_optional=False))
        elif column.kind is Kind.LINE:
            raise NeedsLineReader
        elif column.kind is Kind.TURNS:
            array = _convert_turns(array, column, counts, problems, drop_unknown)
        else:
            array = _convert_column(array, column, counts)
        columns[column.name] = array
    account_columns(given, counts, problems, drop_unknown, metadata=schema.metadata)
    converted = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    rows = ParsedRows(converted, line, rejects(), counts)
    return reject_incomplete(reject(rows, problems) if problems else rows, schema)


def _convert_turns(
    lists: pa.Array, column: Column, counts: FieldCounts, problems: Problems, drop_unknown: bool
) -> pa.ListArray:
    """Convert a list of turns: the known keys that occur, and always those that are not optional."""
    types = pa.types
    if types.is_null(lists.type):
        return pa.nulls(len(lists), column.arrow_type(with_optional=False))
    if not types.is_nested(lists.type) or types.is_struct(lists.type) or types.is_map(lists.type):
        raise NeedsLineReader
    if not types.is_list(lists.type):
        lists = pc.cast(lists, pa.list_(lists.type.value_type))
    turns = lists.flatten()
    if types.is_null(turns.type):
        turns = pa.nulls(len(turns), pa.struct([]))
    if not types.is_struct(turns.type):
        raise NeedsLineReader
    counts.turns += len(turns)
    given = dict(zip([field.name for field in turns.type], turns.flatten(), strict=True))
    known: dict[str, pa.Array] = {}
    for part in column.turn_columns:
        array = given.pop(part.name, None)
        if part.optional and (array is None or not pc.any(value_mask(array)).as_py()):
            continue
        known[part.name] = (
            pa.nulls(len(turns), part.type) if array is None else _convert_column(array, part, counts, "messages.")
        )
    lengths = (
        to_numpy(pc.fill_null(pc.list_value_length(lists), 0)) if lists.null_count else np.diff(to_numpy(lists.offsets))
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    if given:
        account_columns(given, counts, problems, drop_unknown, "messages.", offsets=offsets)
    values = pa.StructArray.from_arrays(list(known.values()), list(known))
    mask = lists.is_null() if lists.null_count else None
    return pa.ListArray.from_arrays(numbers(offsets), values, mask=mask)


def _convert_column(array: pa.Array, column: Column, counts: FieldCounts, path: str = "") -> pa.Array:
    """Convert one column; values of the wrong type become null and are counted if the column allows it."""
    types, target = pa.types, column.type
    if array.type == target and column.kind is not Kind.FLAG:
        return array
    if types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)  # NaN stands for a missing value in many data sets
    if column.kind is Kind.JSON and types.is_nested(array.type):
        raise NeedsLineReader
    if column.kind is Kind.FLAG:
        if types.is_boolean(array.type) or types.is_integer(array.type) or types.is_floating(array.type):
            return pc.cast(array, target)
        raise NeedsLineReader
    null_count = array.null_count
    array = _cast(array, column)
    if array.null_count > null_count:
        counts.uncoercible[path + column.name] += array.null_count - null_count
    return array


def _cast(array: pa.Array, column: Column) -> pa.Array:
    """Cast to the type of `column`; where Arrow's cast would differ from `coerce`, coerce each distinct value."""
    source, target = array.type, column.type
    if not column.may_be_null or not _needs_coercion(source, target):
        return pc.cast(array, target)
    if pa.types.is_nested(source) or pa.types.is_nested(target):
        return pa.nulls(len(array), target)
    coded = array.dictionary_encode()
    values = [coerce_or_none(value, target) for value in coded.dictionary.to_pylist()]
    return pa.array(values, target).take(coded.indices)


def _needs_coercion(source: pa.DataType, target: pa.DataType) -> bool:
    """Whether Arrow's cast from `source` to `target` differs from `coerce`, or fails at the first unusual value."""
    types = pa.types
    if types.is_null(source) or types.is_list(source) or types.is_nested(source) and types.is_nested(target):
        return False
    if types.is_nested(source) or types.is_nested(target):
        return True
    if types.is_boolean(target):
        return True
    if types.is_string(target):
        return bool(types.is_boolean(source) or types.is_floating(source))
    return not (types.is_integer(source) or types.is_floating(source))
