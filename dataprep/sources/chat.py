"""Chat formats with a list of turns: OpenAI's `messages` and ShareGPT's `conversations`.

A turn is `{role, content}` or `{from, value}`; data sets use either shape in either column. Beside these it may have
reasoning, tool calls, and flags that say whether to train on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import numbers, strings, to_numpy
from dataprep.sources.coercion import UNSUPPORTED_FIELD, WRONG_SCHEMA, CoercionError, excerpt_json
from dataprep.sources.fields import rows_of_turns
from dataprep.sources.options import ReadOptions
from dataprep.sources.rows import FieldCounts, ParsedRows, Problems, add_problem, positions, reject
from dataprep.sources.schema import Column, Kind, Record, RecordSchema
from dataprep.sources.tools import normalise_tool_calls, normalise_tools
from dataprep.sources.turns import (
    CONTEXT_COLUMNS,
    EXTRA_FIELDS,
    RECORD_COLUMNS,
    ROLE_NAMES,
    Turns,
    prepend_system,
    standard_roles,
    to_conversations,
)
from dataprep.tables import ASSISTANT, SYSTEM

_ROLE_KEYS = ("role", "from")
_TEXT_KEYS = ("content", "value")
_REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
_CALL_KEYS = ("tool_calls", "function_call")
# Flags that say whether to train on a turn. `mask` has the opposite sense: what is masked is not trained.
_FLAGS = ("weight", "train", "training", "trained", "loss", "mask")
# Columns of our own builds that are derived from the messages.
_DERIVED = frozenset({"text", "spans", "controls"})
_IMAGE_MARKER = "<image>"
_CALL_ROLE = "function_call"  # ShareGPT's role of an assistant turn whose text is a call

TURN_COLUMNS = (
    *(Column(name) for name in _ROLE_KEYS),
    *(Column(name, content=True) for name in _TEXT_KEYS),
    *(Column(name, content=True, optional=True) for name in _REASONING_KEYS),
    *(Column(name, content=True, optional=True, kind=Kind.JSON) for name in _CALL_KEYS),
    *(Column(name, optional=True) for name in ("name", "tool_call_id")),
    *(Column(name, pa.float64(), optional=True, kind=Kind.FLAG) for name in _FLAGS),
)


def _schema(column: str) -> RecordSchema:
    turns = Column(column, required=True, kind=Kind.TURNS, turn_columns=TURN_COLUMNS)
    return RecordSchema((*RECORD_COLUMNS, *CONTEXT_COLUMNS, turns), _DERIVED)


MESSAGES = _schema("messages")
SHAREGPT = _schema("conversations")


def is_messages(record: Record) -> bool:
    """Whether `record` has OpenAI's `messages`."""
    return _is_list_of_turns(record.get("messages"))


def is_sharegpt(record: Record) -> bool:
    """Whether `record` has ShareGPT's `conversations`."""
    return _is_list_of_turns(record.get("conversations"))


def _is_list_of_turns(value: Any) -> bool:
    value = decode_turns(value)
    if not isinstance(value, list):
        return False
    return not value or (isinstance(value[0], dict) and any(name in value[0] for name in _ROLE_KEYS))


def rewrite_messages(record: Record) -> tuple[Any, dict[str, Any]]:
    """Split a record into its turns, decoded if they are JSON text, and its other keys."""
    return _split_turns(record, "messages")


def rewrite_sharegpt(record: Record) -> tuple[Any, dict[str, Any]]:
    """Split a record into its turns, decoded if they are JSON text, and its other keys."""
    return _split_turns(record, "conversations")


def _split_turns(record: Record, column: str) -> tuple[Any, dict[str, Any]]:
    turns = decode_turns(record.get(column))
    if turns is None:
        raise CoercionError(f"has no '{column}'")
    if not isinstance(turns, list):
        raise CoercionError(f"'{column}' is {excerpt_json(turns)}")
    return turns, {name: value for name, value in record.items() if name != column}


def decode_turns(value: Any) -> Any:
    """Decode turns that are JSON text, all together or one by one, as `datasets` stores columns of mixed types."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _decode_json(value)
    if isinstance(value, list):
        return [
            _decode_json(turn) if isinstance(turn, str) and turn.lstrip().startswith("{") else turn for turn in value
        ]
    return value


def _decode_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def convert_messages(rows: ParsedRows, options: ReadOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert rows of `MESSAGES` to conversations (as `turns.to_conversations` returns them) and rejects."""
    return _convert(rows, "messages", options)


def convert_sharegpt(rows: ParsedRows, options: ReadOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert rows of `SHAREGPT` to conversations (as `turns.to_conversations` returns them) and rejects."""
    return _convert(rows, "conversations", options)


def _convert(rows: ParsedRows, column: str, options: ReadOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    problems: Problems = {}
    counts = FieldCounts()
    turns = _Reader(rows.batch.column(column), options, counts, problems).turns()
    turns, tools = add_context(rows.batch, turns, counts, problems)
    if problems:
        return _convert(reject(rows, problems), column, options)
    rows.counts.add(counts)
    return to_conversations(rows, turns, tools), rows.rejects


class _Reader:
    """Reads the turns of many conversations; notes the problems of each conversation and counts what is not used."""

    def __init__(self, lists: pa.ListArray, options: ReadOptions, counts: FieldCounts, problems: Problems) -> None:
        offsets = to_numpy(lists.offsets)
        self._offsets = offsets - offsets[0]
        self._turns: pa.StructArray = lists.flatten()
        self._names = {field.name for field in self._turns.type}
        self._options, self._counts, self._problems = options, counts, problems

    def turns(self) -> Turns:
        """Return all turns in their standard form."""
        stated_roles = self._coalesce(_ROLE_KEYS)
        self._report(stated_roles.is_null(), WRONG_SCHEMA, lambda number: f"turn {number} has no role")
        roles = standard_roles(
            pc.fill_null(stated_roles, "") if stated_roles.null_count else stated_roles, self._options.roles
        )
        contents = self._coalesce(_TEXT_KEYS)
        extras = self._extras(stated_roles, roles, contents)
        is_call = None
        if "tool_calls" in extras:
            is_call = _equals(stated_roles, _CALL_ROLE)
            roles = pc.if_else(is_call, ASSISTANT, roles)
            contents = pc.if_else(is_call, "", contents)
        if contents.null_count:
            contents = self._fill_contents(contents, extras)
        self._count_unknown_roles(roles)
        return Turns(roles, contents, self._offsets, extras)

    def _coalesce(self, keys: tuple[str, ...]) -> pa.Array:
        """Return the values under the first key, or under the others where it has none; others that differ are counted."""
        values = pc.struct_field(self._turns, keys[0])
        for name in keys[1:]:
            column = pc.struct_field(self._turns, name)
            if column.null_count == len(column):
                continue
            differing = pc.sum(pc.not_equal(values, column)).as_py()
            if differing:
                self._counts.unused[f"messages.{name}"] += differing
            values = pc.coalesce(values, column)
        return values

    def _report(self, mask: pa.BooleanArray, rule: str, detail: Callable[[int], str]) -> None:
        """Note a problem of the conversations with a turn in `mask`; `detail` gets the turn's number, from 1."""
        turns = positions(mask)
        for turn, row in zip(turns, rows_of_turns(self._offsets, np.asarray(turns, np.int64)), strict=True):
            add_problem(self._problems, [row], rule, detail(turn - int(self._offsets[row]) + 1))

    def _fill_contents(self, contents: pa.StringArray, extras: Mapping[str, pa.Array]) -> pa.StringArray:
        """Give turns that only call a tool or reason an empty content; other turns without text are a problem."""
        missing = contents.is_null()
        for name in ("tool_calls", "reasoning_content"):
            if name in extras:
                missing = pc.and_(missing, extras[name].is_null())
        keys = " and ".join(f"'{name}'" for name in _TEXT_KEYS)
        self._report(missing, WRONG_SCHEMA, lambda number: f"turn {number} has no text: {keys} have no value")
        return pc.fill_null(contents, "")

    def _extras(self, found: pa.StringArray, roles: pa.StringArray, contents: pa.StringArray) -> dict[str, pa.Array]:
        """Return those of `EXTRA_FIELDS` that have a value."""
        fields: dict[str, pa.Array | None] = {
            "reasoning_content": self._reasoning(roles),
            "tool_calls": self._tool_calls(found, contents),
            "name": self._optional("name"),
            "tool_call_id": self._optional("tool_call_id"),
            "trained": self._trained(found, roles),
        }
        return {
            name: column
            for name in EXTRA_FIELDS
            if (column := fields[name]) is not None and column.null_count < len(column)
        }

    def _optional(self, name: str) -> pa.Array | None:
        """Return an optional text column with null for empty texts."""
        if name not in self._names:
            return None
        column = pc.struct_field(self._turns, name)
        return pc.if_else(pc.equal(column, ""), None, column)

    def _reasoning(self, roles: pa.StringArray) -> pa.Array | None:
        columns = [column for name in _REASONING_KEYS if (column := self._optional(name)) is not None]
        if not columns:
            return None
        reasoning = pc.coalesce(*columns)
        elsewhere = pc.and_(reasoning.is_valid(), pc.not_equal(roles, ASSISTANT))
        self._report(
            elsewhere, UNSUPPORTED_FIELD, lambda number: f"turn {number} has reasoning but is not the assistant's"
        )
        for column in columns:  # the others must agree with the one that is used
            differs = pc.and_(column.is_valid(), pc.not_equal(column, reasoning))
            self._report(
                differs, UNSUPPORTED_FIELD, lambda number: f"turn {number} has two different texts of reasoning"
            )
        return reasoning

    def _tool_calls(self, found: pa.StringArray, contents: pa.StringArray) -> pa.Array | None:
        """Return the calls of each turn as normal JSON text, from either key or from a turn with ShareGPT's role."""
        columns = [column for name in _CALL_KEYS if (column := self._optional(name)) is not None]
        is_call = _equals(found, _CALL_ROLE)
        if pc.any(is_call).as_py():
            without = pc.and_(is_call, contents.is_null())
            self._report(without, WRONG_SCHEMA, lambda number: f"turn {number} is a function call without a text")
            columns.append(pc.if_else(is_call, contents, None))
        if not columns:
            return None
        calls = self._normalised_calls(columns[0])
        for column in columns[1:]:
            others = self._normalised_calls(column)
            differs = pc.fill_null(pc.not_equal(calls, others), False)
            self._report(differs, UNSUPPORTED_FIELD, lambda number: f"turn {number} has two different tool calls")
            calls = pc.coalesce(calls, others)
        return calls

    def _normalised_calls(self, texts: pa.StringArray) -> pa.StringArray:
        values: list[str | None] = [None] * len(texts)
        turns = positions(texts.is_valid())
        rows = rows_of_turns(self._offsets, np.asarray(turns, np.int64))
        for turn, row, text in zip(turns, rows, texts.drop_null().to_pylist(), strict=True):
            try:
                values[turn] = normalise_tool_calls(text, self._counts)
            except CoercionError as fault:
                number = turn - int(self._offsets[row]) + 1
                add_problem(self._problems, [row], fault.rule, f"turn {number} {fault}")
        return strings(values)

    def _trained(self, found: pa.StringArray, roles: pa.StringArray) -> pa.Array | None:
        """Return false for assistant turns that a flag excludes from training, null for all others."""
        names = [name for name in _FLAGS if name in self._names]
        if not names:
            return None
        is_answer = pc.or_(pc.equal(roles, ASSISTANT), _equals(found, _CALL_ROLE))
        excluded = pc.is_valid(pa.nulls(len(roles)))
        for name in names:
            flag = pc.struct_field(self._turns, name)
            yes, no = (0.0, 1.0) if name == "mask" else (1.0, 0.0)
            is_yes, is_no = (pc.fill_null(pc.equal(flag, value), False) for value in (yes, no))
            is_other = pc.and_(flag.is_valid(), pc.invert(pc.or_(is_yes, is_no)))
            self._report(
                is_other,
                UNSUPPORTED_FIELD,
                lambda number, name=name: f"turn {number} has a '{name}' other than 0 and 1, which cannot be used",  # type: ignore[misc]
            )
            excluded = pc.or_(excluded, is_no)
            # only answers are trained: a flag that asks for more is counted as not used
            asks = pc.sum(pc.and_(is_yes, pc.invert(is_answer))).as_py() or 0
            if asks:
                self._counts.unused[f"messages.{name}"] += asks
        return pc.if_else(pc.and_(excluded, is_answer), False, pa.nulls(len(roles), pa.bool_()))

    def _count_unknown_roles(self, roles: pa.StringArray) -> None:
        counted = roles.value_counts()
        known = set(ROLE_NAMES.values())
        for name, count in zip(counted.field(0).to_pylist(), counted.field(1).to_pylist(), strict=True):
            if name not in known and name:
                self._counts.unknown_roles[name] += count


def _equals(roles: pa.StringArray, name: str) -> pa.BooleanArray:
    """Return where a role has this name, in any case."""
    coded = roles.dictionary_encode()
    matches = np.array([value.lower() == name for value in coded.dictionary.to_pylist()], np.bool_)
    if not matches.any():
        return pc.is_valid(pa.nulls(len(roles)))
    return pc.fill_null(numbers(matches).take(coded.indices), False)


def add_context(
    batch: pa.RecordBatch, turns: Turns, counts: FieldCounts, problems: Problems
) -> tuple[Turns, pa.StringArray | None]:
    """Add the system text of each record to its turns, and return its tools in their normal form.

    A text that holds `<image>`, where a vision model gets a picture, is a problem of its conversation.
    """
    _report_image_markers(turns, problems)
    systems = _first_of(batch, ("system", "system_prompt"), counts)
    if systems is not None:
        is_blank = pc.equal(pc.utf8_trim_whitespace(systems), "")
        systems = pc.if_else(is_blank, None, systems)
        has_turn = np.diff(turns.offsets) > 0
        first = np.minimum(turns.offsets[:-1], max(len(turns.roles) - 1, 0))
        if len(turns.roles):
            own = numbers(has_turn & to_numpy(pc.fill_null(pc.equal(turns.roles, SYSTEM), False))[first])
            other = pc.and_(own, pc.not_equal(pc.coalesce(systems, ""), turns.contents.take(numbers(first))))
            differs = pc.and_(other, systems.is_valid())
            rule, detail = UNSUPPORTED_FIELD, "has 'system' and a system turn with another text"
            add_problem(problems, positions(differs), rule, detail)
            systems = pc.if_else(own, None, systems)
        turns = prepend_system(turns, systems)
    texts = _first_of(batch, ("tools", "functions"), counts)
    return turns, None if texts is None else _normalised_tools(texts, counts, problems)


def _report_image_markers(turns: Turns, problems: Problems) -> None:
    is_marked = pl.Series(turns.contents, dtype=pl.String).str.contains(_IMAGE_MARKER, literal=True)
    if not is_marked.any():
        return
    marked = is_marked.arg_true().to_numpy().astype(np.int64)
    for turn, row in zip(marked.tolist(), rows_of_turns(turns.offsets, marked), strict=True):
        number = turn - int(turns.offsets[row]) + 1
        add_problem(problems, [row], UNSUPPORTED_FIELD, f"turn {number} has '{_IMAGE_MARKER}' in its text")


def _first_of(batch: pa.RecordBatch, names: tuple[str, str], counts: FieldCounts) -> pa.StringArray | None:
    """Return the first of two synonymous columns that has a value in a row; where both have one, the second is counted."""
    present = [name for name in names if name in batch.schema.names]
    if not present:
        return None
    columns = [pc.if_else(pc.equal(batch.column(name), ""), None, batch.column(name)) for name in present]
    if len(columns) > 1:
        both = pc.sum(pc.and_(columns[0].is_valid(), columns[1].is_valid())).as_py()
        if both:
            counts.unused[names[1]] += both
    return pc.coalesce(*columns)


def _normalised_tools(texts: pa.StringArray, counts: FieldCounts, problems: Problems) -> pa.StringArray:
    """Normalise the tools of each row, each distinct text once."""
    coded = texts.dictionary_encode()
    normal: list[str | None] = []
    faults: dict[int, CoercionError] = {}
    for code, text in enumerate(coded.dictionary.to_pylist()):
        try:
            normal.append(normalise_tools(text, counts))
        except CoercionError as fault:
            normal.append(None)
            faults[code] = fault
    for code, error in faults.items():
        add_problem(problems, positions(pc.fill_null(pc.equal(coded.indices, code), False)), error.rule, str(error))
    return strings(normal).take(coded.indices)
