"""The formats that can be read, and how one is recognised from the first records of a file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.common.errors import InputError
from dataprep.common.text import nearest
from dataprep.sources import alpaca, chat, guanaco, jsonlines, oasst, trees
from dataprep.sources.containers import Unit
from dataprep.sources.jsonlines import Block
from dataprep.sources.rows import ParsedRows, cast_to_schema, reject_incomplete, rejects


@dataclass(frozen=True)
class Format:
    """How to `recognise` a record, `parse` JSON lines into rows of `schema`, and `convert` rows to a frame and rejects.

    The frame holds messages if the format `has_trees`, otherwise conversations. A `recursive` format has no Arrow type,
    so its records are parsed as JSON lines even if they come from a columnar file.
    """

    name: str
    recognise: Callable[[Mapping[str, Any]], bool]
    schema: pa.Schema
    convert: Callable[[ParsedRows], tuple[pl.DataFrame, pl.DataFrame]]
    parse: Callable[[Block, pa.Schema, pa.Schema], ParsedRows] = jsonlines.parse
    has_trees: bool = False
    recursive: bool = False


# Tried in this order: exports of our own builds have both `messages` and `text`.
FORMATS = (
    Format("oasst-trees", trees.is_tree, trees.SCHEMA, oasst.convert, trees.parse, has_trees=True, recursive=True),
    Format("oasst-messages", oasst.is_message, oasst.SCHEMA, oasst.convert, has_trees=True),
    Format("messages", chat.is_messages, chat.MESSAGES_SCHEMA, chat.convert_messages),
    Format("sharegpt", chat.is_sharegpt, chat.SHAREGPT_SCHEMA, chat.convert_sharegpt),
    Format("alpaca", alpaca.is_alpaca, alpaca.SCHEMA, alpaca.convert),
    Format("guanaco", guanaco.is_guanaco, guanaco.SCHEMA, guanaco.convert),
)

AUTO = "auto"
NAMES = tuple(format.name for format in FORMATS)
COLUMNS = frozenset(name for format in FORMATS for name in format.schema.names)


def format_named(name: str) -> Format | None:
    """Return the format called `name`; None for `auto`.

    Raises:
        InputError: there is no such format.
    """
    if name == AUTO:
        return None
    for format in FORMATS:
        if format.name == name:
            return format
    raise InputError(f"Unknown format '{name}'. {nearest(name, (AUTO, *NAMES))}")


def recognise(samples: Sequence[Mapping[str, Any]]) -> Format | None:
    """Return the format of the first of `samples` whose format is known."""
    return next((format for record in samples for format in FORMATS if format.recognise(record)), None)


def parse_unit(unit: Unit, format: Format, read_as: pa.Schema) -> ParsedRows:
    """Parse the rows of `unit` into the schema of `format`; a fault of the file becomes a reject.

    `read_as` is passed to `format.parse` for JSON lines.
    """
    rows: ParsedRows | None
    if isinstance(unit, Block):
        rows = format.parse(unit, format.schema, read_as)
    else:
        rows = None if format.recursive else _parse_batch(unit.data, unit.line, format.schema)
        rows = rows or format.parse(to_json_lines(unit.data, unit.line), format.schema, format.schema)
    if unit.fault:
        rows = rows._replace(rejects=pl.concat([rows.rejects, rejects([(unit.line, unit.rule, unit.fault)])]))
    return rows


def _parse_batch(batch: pa.RecordBatch, line: int, schema: pa.Schema) -> ParsedRows | None:
    """Cast a columnar batch to `schema`; return None if its types cannot be cast."""
    try:
        batch, uncoercible = cast_to_schema(batch, schema)
        batch.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return None
    return reject_incomplete(ParsedRows(batch, np.arange(line, line + len(batch)), rejects(), uncoercible), schema)


def to_json_lines(batch: pa.RecordBatch, line: int) -> Block:
    """Write rows that Arrow cannot cast to a format's schema as JSON lines, which are parsed leniently."""
    records = []
    for row in range(len(batch)):
        try:
            records.append(msgspec.json.encode(_decode_binary(batch.slice(row, 1).to_pylist()[0])))
        except UnicodeDecodeError as fault:
            records.append(fault.object.replace(b"\n", b" "))  # rejected by name when it is parsed as a line
    return Block(b"\n".join(records), line, 0)


def _decode_binary(value: Any) -> Any:
    """Decode the bytes in `value`: many data sets store text in binary columns.

    Raises:
        UnicodeDecodeError: the bytes are not UTF-8.
    """
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name: _decode_binary(part) for name, part in value.items()}
    return [_decode_binary(part) for part in value] if isinstance(value, list) else value
