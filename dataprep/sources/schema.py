"""Describe the records of a format: which keys are read, as which type, and what happens to values that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import pyarrow as pa

Record = Mapping[str, Any]
Rewrite = Callable[[Record], tuple[Any, dict[str, Any]]]


class Kind(Enum):
    """How the value of a column is converted."""

    PLAIN = "plain"  # to the column's Arrow type
    JSON = "json"  # to JSON text, unless it is text already
    FLAG = "flag"  # a boolean or number to a number: 1 true, 0 false
    LINE = "line"  # of any shape; only the line reader converts it
    TURNS = "turns"  # a list of records with columns of their own


@dataclass(frozen=True)
class Column:
    """One key of a record.

    A value of the wrong type rejects the record if the column is `required` or `content` (part of the conversation);
    otherwise it is counted and read as null. A missing value rejects the record if the column is `required`.
    The column reader looks for an `optional` column only if it occurs, so records without it cost nothing.
    """

    name: str
    type: pa.DataType = pa.string()
    required: bool = False
    content: bool = False
    optional: bool = False
    kind: Kind = Kind.PLAIN
    turn_columns: tuple[Column, ...] = ()

    @property
    def may_be_null(self) -> bool:
        """Whether a value of the wrong type becomes null instead of rejecting the record."""
        return not (self.required or self.content)

    @cached_property
    def is_text(self) -> bool:
        """Whether text is stored as it is."""
        return self.kind in (Kind.PLAIN, Kind.JSON) and pa.types.is_string(self.type)

    @cached_property
    def turns_by_name(self) -> dict[str, Column]:
        """The columns of a turn by their names."""
        return {column.name: column for column in self.turn_columns}

    def arrow_type(self, with_optional: bool) -> pa.DataType:
        """Return the Arrow type; that of turns has their optional columns only if `with_optional`."""
        if self.kind is not Kind.TURNS:
            return self.type
        columns = [column for column in self.turn_columns if with_optional or not column.optional]
        return pa.list_(pa.struct([(column.name, column.type) for column in columns]))


@dataclass(frozen=True)
class RecordSchema:
    """The columns of a format, in order.

    `metadata` names keys that describe a record without being part of it: they are counted as not used, and never
    reject a record. Records of a schema that `is_line_only` have no columns of fixed types.
    """

    columns: tuple[Column, ...]
    metadata: frozenset[str] = frozenset()
    is_line_only: bool = False

    @cached_property
    def by_name(self) -> dict[str, Column]:
        """The columns by their names."""
        return {column.name: column for column in self.columns}

    @cached_property
    def always(self) -> pa.Schema:
        """The Arrow schema that the column reader parses: all columns that are not optional, nullable."""
        return pa.schema([(c.name, c.arrow_type(False)) for c in self.columns if not c.optional])

    @cached_property
    def full(self) -> pa.Schema:
        """The Arrow schema of all columns, nullable."""
        return pa.schema([(column.name, column.arrow_type(True)) for column in self.columns])


@dataclass(frozen=True)
class Parsing:
    """How to parse the records of one file.

    Attributes:
        schema: what the column reader parses.
        read_as: the columns of `schema.always` with the types that they have in this file.
        rewrite: splits a record into its turns and its other keys, for the line reader; None if it has no turns.
        line_schema: what the line reader parses.
        renamed: new names of keys, by the names that they have in the file.
        drop_unknown: whether a key that is not used rejects its record instead of being counted.
    """

    schema: RecordSchema
    read_as: pa.Schema
    rewrite: Rewrite | None
    line_schema: RecordSchema
    renamed: Mapping[str, str]
    drop_unknown: bool
