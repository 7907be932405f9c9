"""Convert the rows of a source to the schema of its format, and collect the records that do not fit.

Every container (JSON lines, JSON array, Parquet, Arrow) hands `ParsedRows` to a format: a record batch with the
format's schema, the record number of each row, and the records rejected so far.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import numbers, to_numpy
from dataprep.sources.coercion import CoercionError, coerce

Lines = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# A record that never became a message or a conversation: its number in the file, its id if it has one, and the reason.
REJECTS: dict[str, pl.DataType] = {
    "line": pl.Int64(),
    "id": pl.String(),
    "kind": pl.String(),  # line, or message for one message of a nested tree
    "rule": pl.String(),
    "detail": pl.String(),
}

# The column type to read JSON values as, if all of them have this Python type.
_READ_AS = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), dict: pa.struct([])}

UncoercibleCounts = Counter[str]  # by column: how many values of the wrong type were read as null

# Field metadata of an optional column that holds text of the conversation: a value that does not fit rejects the record.
CONTENT = {"content": "yes"}


class ParsedRows(NamedTuple):
    """`batch` has the columns of a format's schema, `line` the record number of each row, `rejects` the schema `REJECTS`."""

    batch: pa.RecordBatch
    line: Lines
    rejects: pl.DataFrame
    uncoercible: UncoercibleCounts


def rejects(faults: Iterable[tuple[int, str, str]] = ()) -> pl.DataFrame:
    """Make the rejects of whole lines from tuples of (line, rule, detail)."""
    rows = [(line, None, "line", rule, detail) for line, rule, detail in faults]
    return pl.DataFrame(rows, schema=REJECTS, orient="row")


def reject(rows: ParsedRows, is_bad: Bools, rule: str, detail: str) -> ParsedRows:
    """Move the rows selected by `is_bad` to the rejects."""
    if not is_bad.any():
        return rows
    new = rejects((line, rule, detail) for line in rows.line[is_bad].tolist())
    new = new.with_columns(id=_own_ids(rows.batch, is_bad))
    return ParsedRows(
        rows.batch.filter(numbers(~is_bad)), rows.line[~is_bad], pl.concat([rows.rejects, new]), rows.uncoercible
    )


def _own_ids(batch: pa.RecordBatch, selected: Bools) -> pl.Series:
    """Return the ids that the selected rows have in the source; null for those without one."""
    name = next((name for name in ("message_id", "id") if name in batch.schema.names), None)
    values = batch.column(name).filter(numbers(selected)).to_pylist() if name else [None] * int(selected.sum())
    return pl.Series("id", [None if value is None else str(value) for value in values], pl.String)


def reject_incomplete(rows: ParsedRows, schema: pa.Schema) -> ParsedRows:
    """Reject the rows that are null in a column which `schema` declares as not nullable."""
    for field in schema:
        if not field.nullable:
            is_missing = to_numpy(rows.batch.column(field.name).is_null())
            rows = reject(rows, is_missing, "wrong_schema", f"has no '{field.name}'")
    return rows


def all_nullable(schema: pa.Schema) -> pa.Schema:
    """Make every column of `schema` nullable: readers fill in nulls, and `reject_incomplete` deals with them."""
    return pa.schema([field.with_nullable(True) for field in schema])


def fit_to_samples(schema: pa.Schema, samples: Iterable[Mapping[str, Any]]) -> pa.Schema:
    """Choose the types in which to parse the JSON columns of `schema`, so that sound records are read by columns.

    An optional column whose samples all have one other type, such as numeric ids, is parsed as that type and then
    cast by `cast_to_schema`.
    """
    samples = list(samples)
    fields = []
    for field in schema:
        types = {type(record[field.name]) for record in samples if record.get(field.name) is not None}
        if _may_be_null(field) and len(types) == 1:
            field = field.with_type(_parsed_type(types.pop(), field.type))
        fields.append(field)
    return pa.schema(fields)


def _parsed_type(python_type: type, target: pa.DataType) -> pa.DataType:
    """Return the Arrow type in which to parse values of `python_type` that are cast to `target` afterwards."""
    is_number = python_type is int and (pa.types.is_integer(target) or pa.types.is_floating(target))
    parsed = _READ_AS.get(python_type, target)
    return target if is_number or parsed.id == target.id else parsed


def cast_to_schema(batch: pa.RecordBatch, schema: pa.Schema) -> tuple[pa.RecordBatch, UncoercibleCounts]:
    """Return `batch` with exactly the columns of `schema`: cast where types differ, null where columns are missing.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError: a column cannot be cast.
    """
    names, uncoercible = set(batch.schema.names), UncoercibleCounts()
    columns = []
    for field in schema:
        column = batch.column(field.name) if field.name in names else pa.nulls(len(batch), field.type)
        if column.type != field.type:
            null_count = column.null_count
            column = _cast_column(column, field)
            uncoercible[field.name] += column.null_count - null_count
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=all_nullable(schema)), +uncoercible


def _cast_column(column: pa.Array, field: pa.Field) -> pa.Array:
    """Cast `column` to the type of `field`; where Arrow's cast would differ from `coerce`, coerce each distinct value."""
    source, target = column.type, field.type
    if not _may_be_null(field) or not _needs_coercion(source, target):
        return pc.cast(column, target)
    if pa.types.is_nested(source) or pa.types.is_nested(target):
        return pa.nulls(len(column), target)
    coded = column.dictionary_encode()
    values = [_coerce_or_none(value, target) for value in coded.dictionary.to_pylist()]
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


def coerce_record(record: Mapping[str, Any], schema: pa.Schema, uncoercible: UncoercibleCounts) -> dict[str, Any]:
    """Convert one decoded record to a row of `schema`.

    A descriptive column (nullable, without `CONTENT`) whose value does not fit becomes null and is counted in
    `uncoercible`.

    Raises:
        CoercionError: the value of a required column does not fit.
    """
    row: dict[str, Any] = {}
    for field in schema:
        try:
            row[field.name] = coerce(record.get(field.name), field.type)
        except CoercionError as fault:
            if not _may_be_null(field):
                raise CoercionError(f"'{field.name}' {fault}") from None
            row[field.name] = None
            uncoercible[field.name] += 1
    return row


def _may_be_null(field: pa.Field) -> bool:
    """Whether an unusable value of this column becomes null instead of rejecting the record."""
    return field.nullable and not field.metadata


def _coerce_or_none(value: Any, kind: pa.DataType) -> Any:
    try:
        return coerce(value, kind)
    except CoercionError:
        return None
