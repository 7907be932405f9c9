"""The formats that can be read, and how one is recognised from the first records of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.common.errors import InputError
from dataprep.common.text import nearest
from dataprep.sources import alpaca, chat, completion, guanaco, jsonlines, oasst, preference, trees
from dataprep.sources.arrow_checks import python_row
from dataprep.sources.columns import CONVERSION_ERRORS, NeedsLineReader, convert_batch
from dataprep.sources.containers import Batch, Unit
from dataprep.sources.jsonlines import Block, rename_columns
from dataprep.sources.options import ReadOptions
from dataprep.sources.rows import ParsedRows, rejects
from dataprep.sources.schema import Column, Parsing, Record, RecordSchema, Rewrite

Frames = tuple[pl.DataFrame, pl.DataFrame]

# The Arrow type in which to parse JSON values that are all of one Python type.
_PARSED_TYPES = {bool: pa.bool_(), int: pa.int64(), float: pa.float64(), str: pa.string(), dict: pa.struct([])}


@dataclass(frozen=True)
class Format:
    """How to recognise, parse and convert the records of one format.

    Attributes:
        name: as `--format` has it.
        recognise: whether a decoded record has the format.
        schema: the columns of its records.
        convert: turns parsed rows into a frame (of messages if the format `has_trees`, otherwise of conversations) and
            rejects.
        rewrite: splits a record that fits no columns into its turns, as of the `messages` format, and its other keys.
        parse: parses JSON lines.
        recursive: the records have no Arrow type, so those of a columnar file are parsed as JSON lines too.
    """

    name: str
    recognise: Callable[[Record], bool]
    schema: RecordSchema
    convert: Callable[[ParsedRows, ReadOptions], Frames]
    rewrite: Rewrite | None = None
    parse: Callable[[Block, Parsing], list[ParsedRows]] = jsonlines.parse
    has_trees: bool = False
    recursive: bool = False

    def parsing(self, samples: Iterable[Record], options: ReadOptions) -> Parsing:
        """Return how to parse the records of a file that begins with `samples` (whose keys are renamed already)."""
        names = {new: old for old, new in options.columns.items()}
        read_as = _fit_to_samples(self.schema, samples)
        return Parsing(
            schema=self.schema,
            read_as=pa.schema([field.with_name(names.get(field.name, field.name)) for field in read_as]),
            rewrite=self.rewrite,
            line_schema=chat.MESSAGES if self.rewrite else self.schema,
            renamed=options.columns,
            drop_unknown=options.unknown_fields == "drop",
        )


_MESSAGES = Format("messages", chat.is_messages, chat.MESSAGES, chat.convert_messages, chat.rewrite_messages)
_PREFERENCE = Format(
    "preference", preference.is_preference, preference.SCHEMA, chat.convert_messages, preference.rewrite, recursive=True
)
# Tried in this order: exports of our own builds have both `messages` and `text`.
FORMATS = (
    Format(
        "oasst-trees", trees.is_tree, trees.SCHEMA, oasst.convert, parse=trees.parse, has_trees=True, recursive=True
    ),
    Format("oasst-messages", oasst.is_message, oasst.SCHEMA, oasst.convert, has_trees=True),
    _MESSAGES,
    Format("sharegpt", chat.is_sharegpt, chat.SHAREGPT, chat.convert_sharegpt, chat.rewrite_sharegpt),
    Format("alpaca", alpaca.is_alpaca, alpaca.SCHEMA, alpaca.convert, alpaca.rewrite),
    Format("completion", completion.is_completion, completion.SCHEMA, completion.convert, completion.rewrite),
    Format("guanaco", guanaco.is_guanaco, guanaco.SCHEMA, guanaco.convert),
)

AUTO = "auto"
NAMES = tuple(format.name for format in FORMATS)
KNOWN_KEYS = frozenset(name for format in FORMATS for name in format.schema.by_name)


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


def format_called(name: str) -> Format:
    """Return the format whose `name` is this one: of `FORMATS`, or that of preference records."""
    return next(format for format in (_PREFERENCE, *FORMATS) if format.name == name)


def recognise(samples: Sequence[Record]) -> Format | None:
    """Return the format of the first of `samples` whose format is known; preference records are recognised first."""
    if any(map(preference.is_preference, samples)):
        return _PREFERENCE
    return next((format for record in samples for format in FORMATS if format.recognise(record)), None)


def is_preference(format: Format) -> bool:
    """Whether the records of a format hold two answers, of which `--preference` selects one."""
    return format is _PREFERENCE


def parse_unit(unit: Unit, format: Format, parsing: Parsing) -> list[ParsedRows]:
    """Parse the records of `unit`; records that its container cannot read become rejects."""
    parts = format.parse(unit, parsing) if isinstance(unit, Block) else _parse_batch(unit, format, parsing)
    faults = list(unit.rejected)
    if unit.fault:
        faults.append((unit.line, unit.rule, unit.fault))
    if faults:
        parts[0] = parts[0]._replace(rejects=pl.concat([parts[0].rejects, rejects(faults)]))
    return parts


def _parse_batch(unit: Batch, format: Format, parsing: Parsing) -> list[ParsedRows]:
    """Parse a columnar batch by columns, or as JSON lines if its types need that."""
    batch, line = unit.data, unit.line
    if not format.recursive:
        try:
            batch.validate(full=True)
            numbers = np.arange(line, line + len(batch))
            return [convert_batch(rename_columns(batch, parsing), numbers, parsing.schema, parsing.drop_unknown)]
        except (*CONVERSION_ERRORS, NeedsLineReader):
            pass
    return format.parse(to_json_lines(batch, line), parsing)


def convert_rows(rows: ParsedRows, format: Format, options: ReadOptions) -> Frames:
    """Convert parsed rows to a frame and rejects."""
    return (_MESSAGES if rows.rewritten else format).convert(rows, options)


def to_json_lines(batch: pa.RecordBatch, line: int) -> Block:
    """Write the rows of a columnar batch as JSON lines, without the keys that are null."""
    records = []
    for row in range(len(batch)):
        try:
            records.append(msgspec.json.encode(_to_plain(python_row(batch, row)), enc_hook=str))
        except UnicodeDecodeError as fault:
            records.append(fault.object.replace(b"\n", b" "))  # rejected by name when it is parsed as a line
    return Block(b"\n".join(records), line, 0)


def _to_plain(value: Any) -> Any:
    """Decode the bytes in `value`, which many data sets use for text, and remove the keys that Arrow filled with null.

    Raises:
        UnicodeDecodeError: the bytes are not UTF-8.
    """
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name: _to_plain(part) for name, part in value.items() if part is not None}
    return [_to_plain(part) for part in value] if isinstance(value, list) else value


def _fit_to_samples(schema: RecordSchema, samples: Iterable[Mapping[str, Any]]) -> pa.Schema:
    """Choose the types in which to parse the JSON columns of `schema`, so that sound records are read by columns.

    A descriptive column whose samples all have one other type, such as numeric ids, is parsed as that type and then
    cast by `convert_batch`.
    """
    samples = list(samples)
    fields = []
    for field in schema.always:
        types = {type(record[field.name]) for record in samples if record.get(field.name) is not None}
        if schema.by_name[field.name].may_be_null and len(types) == 1:
            field = field.with_type(_parsed_type(types.pop(), schema.by_name[field.name]))
        fields.append(field)
    return pa.schema(fields)


def _parsed_type(python_type: type, column: Column) -> pa.DataType:
    """Return the Arrow type in which to parse values of `python_type` that are cast to the column's type afterwards."""
    target = column.type
    is_number = python_type is int and (pa.types.is_integer(target) or pa.types.is_floating(target))
    parsed = _PARSED_TYPES.get(python_type, target)
    return target if is_number or parsed.id == target.id else parsed
