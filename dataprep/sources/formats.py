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
from dataprep.sources import chat, guanaco, jsonlines, oasst, trees
from dataprep.sources.containers import Unit
from dataprep.sources.jsonlines import Block
from dataprep.sources.rows import Rows, complete, in_schema, rejects


@dataclass(frozen=True)
class Format:
    """`recognise` a record; `parse` JSON lines into rows of `schema`; `convert` rows to a frame and rejects.

    The frame holds messages where the format `has_trees`, conversations otherwise. Records of a `recursive` format
    are of no Arrow type: those in columnar files are parsed as JSON lines, too.
    """

    name: str
    recognise: Callable[[Mapping[str, Any]], bool]
    schema: pa.Schema
    convert: Callable[[Rows], tuple[pl.DataFrame, pl.DataFrame]]
    parse: Callable[[Block, pa.Schema, pa.Schema], Rows] = jsonlines.parse
    has_trees: bool = False
    recursive: bool = False


# In the order in which they are tried: our own exports have `messages` and `text`.
FORMATS = (
    Format("oasst-trees", trees.recognise, trees.SCHEMA, oasst.convert, trees.parse, has_trees=True, recursive=True),
    Format("oasst-messages", oasst.recognise, oasst.SCHEMA, oasst.convert, has_trees=True),
    Format("messages", chat.recognise_messages, chat.MESSAGES_SCHEMA, chat.convert_messages),
    Format("sharegpt", chat.recognise_sharegpt, chat.SHAREGPT_SCHEMA, chat.convert_sharegpt),
    Format("alpaca", chat.recognise_alpaca, chat.ALPACA_SCHEMA, chat.convert_alpaca),
    Format("guanaco", guanaco.recognise, guanaco.SCHEMA, guanaco.convert),
)

AUTO = "auto"
NAMES = tuple(form.name for form in FORMATS)
COLUMNS = frozenset(name for form in FORMATS for name in form.schema.names)


def named(name: str) -> Format | None:
    """The format called `name`; None for `auto`.

    Raises:
        InputError: no such format.
    """
    if name == AUTO:
        return None
    for form in FORMATS:
        if form.name == name:
            return form
    raise InputError(f"Unknown format '{name}'. {nearest(name, (AUTO, *NAMES))}")


def recognised(samples: Sequence[Mapping[str, Any]]) -> Format | None:
    """The format of the first of `samples` that has one."""
    return next((form for record in samples for form in FORMATS if form.recognise(record)), None)


def rows_of(unit: Unit, form: Format, read_as: pa.Schema) -> Rows:
    """The rows of `unit` in `form`'s schema, a break of the file among the rejects; `read_as` is for `form.parse`."""
    rows: Rows | None
    if isinstance(unit, Block):
        rows = form.parse(unit, form.schema, read_as)
    else:
        rows = None if form.recursive else _by_columns(unit.data, unit.line, form.schema)
        rows = rows or form.parse(as_json(unit.data, unit.line), form.schema, form.schema)
    if unit.fault:
        rows = rows._replace(rejects=pl.concat([rows.rejects, rejects([(unit.line, "truncated", unit.fault)])]))
    return rows


def _by_columns(batch: pa.RecordBatch, line: int, schema: pa.Schema) -> Rows | None:
    """The rows of a columnar batch, or None where its types are not the format's."""
    try:
        batch, untold = in_schema(batch, schema)
        batch.validate(full=True)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError):
        return None
    return complete(Rows(batch, np.arange(line, line + len(batch)), rejects(), untold), schema)


def as_json(batch: pa.RecordBatch, line: int) -> Block:
    """Rows that Arrow's casts cannot bring into a format's schema, as JSON lines, which are read leniently."""
    records = []
    for row in range(len(batch)):
        try:
            records.append(msgspec.json.encode(_with_text(batch.slice(row, 1).to_pylist()[0])))
        except UnicodeDecodeError as fault:
            records.append(fault.object.replace(b"\n", b" "))  # refused by name when it is read as a line
    return Block(b"\n".join(records), line, 0)


def _with_text(value: Any) -> Any:
    """`value` with the bytes in it as text: binary columns hold it as often as string columns do.

    Raises:
        UnicodeDecodeError: bytes that are no UTF-8.
    """
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name: _with_text(part) for name, part in value.items()}
    return [_with_text(part) for part in value] if isinstance(value, list) else value
