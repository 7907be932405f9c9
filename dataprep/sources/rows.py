"""Rows of a source on their way into a schema, and the records that did not find one.

`Rows` is what every container (JSON lines, JSON array, Parquet, Arrow) gives to a format: a record batch of
the format's schema, the record number of each row, and the rejects met on the way.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import numbers, numpied

Lines = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

# A record that never became a message or a conversation: its number in the file, its id where it has one, and why.
REJECTS: dict[str, pl.DataType] = {
    "line": pl.Int64(),
    "id": pl.String(),
    "kind": pl.String(),  # line, or message for one message of a nested tree
    "rule": pl.String(),
    "detail": pl.String(),
}

# Of JSON values that are all of one Python type, the column type that they are read as.
_READ_AS = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), dict: pa.struct([])}
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}
_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d*)?\s*", re.ASCII)

Untold = Counter[str]  # by column, the values that could not be understood and are taken as not told


class Rows(NamedTuple):
    """`batch` has the columns of a format's schema; `line` the record number of each row; `rejects` is of `REJECTS`."""

    batch: pa.RecordBatch
    line: Lines
    rejects: pl.DataFrame
    untold: Untold


# Marks a column that may be absent and is never left out: what it holds is said in the conversation.
CONTENT = {"content": "yes"}


class Unfit(ValueError):
    """A value that is not of the type a format gives it."""


def rejects(found: Iterable[tuple[int, str, str]] = ()) -> pl.DataFrame:
    """Rejects of whole lines, from (line, rule, detail)."""
    rows = [(line, None, "line", rule, detail) for line, rule, detail in found]
    return pl.DataFrame(rows, schema=REJECTS, orient="row")


def reject(rows: Rows, bad: Bools, rule: str, detail: str) -> Rows:
    """`rows` without those marked `bad`, which become rejects."""
    if not bad.any():
        return rows
    lost = rejects((line, rule, detail) for line in rows.line[bad].tolist()).with_columns(id=_ids(rows.batch, bad))
    return Rows(rows.batch.filter(numbers(~bad)), rows.line[~bad], pl.concat([rows.rejects, lost]), rows.untold)


def _ids(batch: pa.RecordBatch, bad: Bools) -> pl.Series:
    """What those marked `bad` call themselves, where they say so."""
    name = next((name for name in ("message_id", "id") if name in batch.schema.names), None)
    found = batch.column(name).filter(numbers(bad)).to_pylist() if name else [None] * int(bad.sum())
    return pl.Series("id", [None if own is None else str(own) for own in found], pl.String)


def complete(rows: Rows, schema: pa.Schema) -> Rows:
    """`rows` without those that lack a column which `schema` says cannot be null; they fit no schema."""
    for field in schema:
        if not field.nullable:
            absent = numpied(rows.batch.column(field.name).is_null())
            rows = reject(rows, absent, "wrong_schema", f"has no '{field.name}'")
    return rows


def readable(schema: pa.Schema) -> pa.Schema:
    """`schema` with every column nullable: a reader fills what is absent, and `complete` judges it."""
    return pa.schema([field.with_nullable(True) for field in schema])


def fitted(schema: pa.Schema, samples: Iterable[Mapping[str, Any]]) -> pa.Schema:
    """The types to read the JSON columns of `schema` as, so that the records are read by columns and not one by one.

    An optional column of which all samples are of one other type, such as ids that are numbers, is read as that type,
    and put into its own by `in_schema`.
    """
    samples = list(samples)
    fields = []
    for field in schema:
        found = {type(record[field.name]) for record in samples if record.get(field.name) is not None}
        if _is_dispensable(field) and len(found) == 1:
            field = field.with_type(_read_as(found.pop(), field.type))
        fields.append(field)
    return pa.schema(fields)


def _read_as(found: type, wanted: pa.DataType) -> pa.DataType:
    """The type to read values of the Python type `found` as, in a column that is `wanted` in the end."""
    kinds = pa.types
    is_number = found is int and (kinds.is_integer(wanted) or kinds.is_floating(wanted))
    kind = _READ_AS.get(found, wanted)
    return wanted if is_number or kind.id == wanted.id else kind


def in_schema(batch: pa.RecordBatch, schema: pa.Schema) -> tuple[pa.RecordBatch, Untold]:
    """`batch` with exactly the columns of `schema`: cast where they differ, null where they are missing.

    Raises:
        pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError: a column that cannot be cast.
    """
    have, untold = set(batch.schema.names), Untold()
    columns = []
    for field in schema:
        column = batch.column(field.name) if field.name in have else pa.nulls(len(batch), field.type)
        if column.type != field.type:
            nulls = column.null_count
            column = _understood(column, field)
            untold[field.name] += column.null_count - nulls
        columns.append(column)
    return pa.RecordBatch.from_arrays(columns, schema=readable(schema)), +untold


def _understood(column: pa.Array, field: pa.Field) -> pa.Array:
    """`column` in the type of `field`. Where a cast would guess, each value that occurs is coerced, as JSON's are."""
    found, wanted = column.type, field.type
    if not _is_dispensable(field) or not _needs_a_look(found, wanted):
        return pc.cast(column, wanted)
    if pa.types.is_nested(found) or pa.types.is_nested(wanted):
        return pa.nulls(len(column), wanted)
    coded = column.dictionary_encode()
    values = [_coerced_or_none(value, wanted) for value in coded.dictionary.to_pylist()]
    return pa.array(values, wanted).take(coded.indices)


def _needs_a_look(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether Arrow's cast from `found` to `wanted` says something else than `coerce`, or fails on the first odd value."""
    types = pa.types
    if types.is_null(found) or types.is_list(found) or types.is_nested(found) and types.is_nested(wanted):
        return False
    if types.is_nested(found) or types.is_nested(wanted):
        return True
    if types.is_boolean(wanted):
        return True
    if types.is_string(wanted):
        return bool(types.is_boolean(found) or types.is_floating(found))
    return not (types.is_integer(found) or types.is_floating(found))


def coerced(record: Mapping[str, Any], schema: pa.Schema, untold: Untold) -> dict[str, Any]:
    """One record as `schema` has it; a column of another type becomes null where it only describes the record.

    Args:
        untold: is added to where that is so.

    Raises:
        Unfit: a column of another type that is needed.
    """
    row: dict[str, Any] = {}
    for field in schema:
        try:
            row[field.name] = coerce(record.get(field.name), field.type)
        except Unfit as fault:
            if not _is_dispensable(field):
                raise Unfit(f"'{field.name}' {fault}") from None
            row[field.name] = None
            untold[field.name] += 1
    return row


def _is_dispensable(field: pa.Field) -> bool:
    return field.nullable and not field.metadata


def coerce(value: Any, kind: pa.DataType) -> Any:
    """A decoded JSON value as Arrow type `kind`, leniently: numbers where text is wanted, content in parts, `"0"` and
    `"false"` where a number or a boolean is.

    Raises:
        Unfit: says what was found.
    """
    if value is None:
        return None
    if pa.types.is_string(kind):
        return _text(value)
    if pa.types.is_list(kind) and isinstance(value, list):
        return [coerce(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return {field.name: coerce(value.get(field.name), field.type) for field in kind}
    if pa.types.is_boolean(kind):
        return _truth(value)
    number = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
    if isinstance(number, int | float) and not isinstance(number, bool):
        if pa.types.is_integer(kind) and number == number // 1 and abs(number) < 2 ** (kind.bit_width - 1):
            return int(number)
        if pa.types.is_floating(kind) and abs(number) < 1e300:
            return float(number)
    raise Unfit(f"is {_told(value)}")


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | str) and (found := _TRUTHS.get(str(value).strip().lower())) is not None:
        return found
    raise Unfit(f"is {_told(value)}")


def _coerced_or_none(value: Any, kind: pa.DataType) -> Any:
    try:
        return coerce(value, kind)
    except Unfit:
        return None


def _text(value: Any) -> str:
    """Text as it stands; a number's digits; the text parts of OpenAI's content, joined.

    A lone surrogate, which JSON can escape and UTF-8 cannot hold, becomes U+FFFD three times, one for each byte
    of its would-be encoding: rules then drop the conversation as broken Unicode.
    """
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return value.encode("utf-8", "surrogatepass").decode(errors="replace")
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        return "".join(_part(part) for part in value)
    raise Unfit(f"is {_told(value)}")


def _part(part: Any) -> str:
    if isinstance(part, str):
        return _text(part)
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return _text(part["text"])
    raise Unfit(f"holds a part that is no text: {_told(part)}")


def _told(value: Any) -> str:
    """A value as an error message shows it, cut to 40 characters."""
    shown = json.dumps(value, ensure_ascii=True, default=str)
    return shown if len(shown) <= 40 else shown[:37] + "..."
