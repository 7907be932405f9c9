"""Convert decoded records one by one, for those that the column reader cannot convert."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pyarrow as pa

from dataprep.sources.coercion import (
    UNSUPPORTED_FIELD,
    CoercionError,
    coerce,
    excerpt_json,
    has_value,
    repair_surrogates,
)
from dataprep.sources.fields import account_value
from dataprep.sources.rows import FieldCounts
from dataprep.sources.schema import Column, Kind, Parsing, Record, RecordSchema

_PARTED = ("content", "value")  # keys of a turn whose value may be a list of parts


def convert_record(record: Record, parsing: Parsing, counts: FieldCounts) -> dict[str, Any]:
    """Convert a decoded record to a row of `parsing.line_schema`, and account for all of its keys.

    Raises:
        CoercionError: the record does not fit; the error names the key and the rule.
    """
    if parsing.renamed:
        record = rename_keys(record, parsing.renamed, counts)
    schema = parsing.line_schema
    if parsing.rewrite is not None:
        turns, rest = parsing.rewrite(record)
        if "messages" in rest:  # beside the keys from which the turns come
            account_value("messages", rest.pop("messages"), counts, parsing.drop_unknown)
        record = {**rest, "messages": turns}
    return coerce_record(record, schema.by_name, counts, parsing.drop_unknown, metadata=schema.metadata)


def rename_keys(record: Record, renamed: Mapping[str, str], counts: FieldCounts | None = None) -> Record:
    """Rename keys as `--columns` says; a key whose name another one takes over is not used."""
    if not renamed:
        return record
    present = {name: renamed[name] for name in renamed if name in record}
    taken_over = set(present.values()) - set(present)
    result = {}
    for name, value in record.items():
        if name in taken_over:
            if counts is not None and has_value(value):
                counts.unused[name] += 1
            continue
        result[present.get(name, name)] = value
    return result


def coerce_record(
    record: Record,
    columns: Mapping[str, Column],
    counts: FieldCounts,
    drop_unknown: bool = False,
    path: str = "",
    metadata: Collection[str] = (),
) -> dict[str, Any]:
    """Convert the known keys of one decoded record, or of a turn in it, to a row without nulls; account for the others.

    A value of the wrong type in a column that may be null is counted in `counts`. Arguments as for `account_value`.

    Raises:
        CoercionError: the value of a required or content column does not fit, or a key is unsupported.
    """
    row: dict[str, Any] = {}
    for name, value in record.items():
        column = columns.get(name)
        if column is None:
            account_value(name, value, counts, drop_unknown, path, metadata)
        elif type(value) is str and column.is_text:
            row[name] = value if value.isascii() else repair_surrogates(value)
        elif value is not None:
            try:
                row[name] = _coerce_column(value, column, counts, drop_unknown)
            except CoercionError as fault:
                if not column.may_be_null:
                    detail = str(fault) if column.kind is Kind.TURNS else f"'{name}' {fault}"
                    raise CoercionError(detail, fault.rule) from None
                counts.uncoercible[path + name] += 1
    return row


def _coerce_column(value: Any, column: Column, counts: FieldCounts, drop_unknown: bool) -> Any:
    if column.kind is not Kind.TURNS:
        return coerce(value, column.type, column.kind)
    if not isinstance(value, list):
        raise CoercionError(f"'{column.name}' is {excerpt_json(value)}")
    counts.turns += len(value)
    return [_coerce_turn(turn, number, column, counts, drop_unknown) for number, turn in enumerate(value, 1)]


def _coerce_turn(turn: Any, number: int, column: Column, counts: FieldCounts, drop_unknown: bool) -> dict[str, Any]:
    if turn is None:
        return {}
    if not isinstance(turn, dict):
        raise CoercionError(f"turn {number} is {excerpt_json(turn)}")
    try:
        row = coerce_record(turn, column.turns_by_name, counts, drop_unknown, "messages.")
        for name in _PARTED:
            if isinstance(turn.get(name), list):
                _account_parts(turn[name], f"messages.{name}.", counts, drop_unknown)
    except CoercionError as fault:
        colon = ":" if str(fault).startswith("'") else ""
        raise CoercionError(f"turn {number}{colon} {fault}", fault.rule) from None
    return row


def _account_parts(parts: list[Any], path: str, counts: FieldCounts, drop_unknown: bool) -> None:
    """Account for the keys of text parts."""
    for part in parts:
        if isinstance(part, dict):
            for name, value in part.items():
                if name not in ("type", "text"):
                    account_value(name, value, counts, drop_unknown, path)


def text_of(record: Record, name: str) -> str:
    """Return the text of a required key of a record that is rewritten.

    Raises:
        CoercionError: it is missing, not text, or a list of several texts.
    """
    value = record.get(name)
    if isinstance(value, list) and not (value and isinstance(value[0], dict)):
        raise CoercionError(f"has a list of {len(value)} texts in '{name}'", UNSUPPORTED_FIELD)
    try:
        text = coerce(value, pa.string())
    except CoercionError as fault:
        raise CoercionError(f"'{name}' {fault}", fault.rule) from None
    if text is None:
        raise CoercionError(f"has no '{name}'")
    return str(text)


def to_batch(rows: list[dict[str, Any]], schema: RecordSchema) -> pa.RecordBatch:
    """Make a batch of rows of `schema` with all of its columns."""
    return pa.RecordBatch.from_pylist(rows, schema.full)
