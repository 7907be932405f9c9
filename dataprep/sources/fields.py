"""Account for every key of a record: known keys are used, unsupported ones reject the record, others are counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import numbers, to_numpy
from dataprep.common.text import MAX_NAME, excerpt
from dataprep.sources.coercion import UNSUPPORTED_FIELD, CoercionError, has_value
from dataprep.sources.rows import MAX_KEYS, FieldCounts, Problems, add_problem, positions

UNKNOWN_FIELD = "unknown_field"

_MEDIA = frozenset({"image", "images", "video", "videos", "audio", "audios"})
_TOOLS = frozenset({"tools", "functions"})  # inside a turn; those of a record are used
_PREFERENCE = frozenset({"chosen", "rejected"})
_HISTORY = "history"  # earlier turns; the formats that can use it know it
_JUDGEMENTS = frozenset({"label", "kto_tag"})  # KTO: whether the answer is a good one
_RECORD_FLAGS = frozenset({"weight", "train", "training"})  # of the whole record; only "do not train" matters


def unsupported_detail(name: str) -> str:
    """Say why a record with the key `name` is rejected."""
    if name in _PREFERENCE:
        return f"has '{name}', an answer of a preference pair: --preference chosen trains on the better answer"
    if name in _JUDGEMENTS:
        return f"has '{name}', a judgement of its answer, which cannot be used"
    if name in _RECORD_FLAGS:
        return f"has '{name}', which says not to train on the record"
    return f"has '{name}', which cannot be used"


def unknown_detail(name: str) -> str:
    """Say why a record with the key `name` is rejected with `--unknown-fields drop`."""
    return f"has '{excerpt(name, MAX_NAME)}', which is not used"


def is_unsupported(name: str, value: Any, in_turn: bool) -> bool:
    """Whether a key changes what is learnt and cannot be used; `value` is a decoded JSON value that says something."""
    if in_turn:
        return name in _MEDIA | _TOOLS
    return (
        name in _MEDIA
        or name == _HISTORY
        or (name in _PREFERENCE and not isinstance(value, bool | int | float))
        or (name in _JUDGEMENTS and isinstance(value, bool))
        or (name in _RECORD_FLAGS and isinstance(value, bool | int | float) and value == 0)
    )


def account_value(
    name: str, value: Any, counts: FieldCounts, drop_unknown: bool, path: str = "", metadata: Collection[str] = ()
) -> None:
    """Account for a key of a decoded record, or of a turn in it, that its format does not know.

    Args:
        name: the key.
        value: its decoded JSON value.
        counts: the key is counted there if its value says something.
        drop_unknown: whether the key rejects the record instead, unless it is among `metadata`.
        path: `messages.` for a key of a turn.
        metadata: keys that are known to describe records.

    Raises:
        CoercionError: the key is unsupported, or unknown while `drop_unknown`.
    """
    if not has_value(value):
        return
    if is_unsupported(name, value, in_turn=bool(path)):
        raise CoercionError(unsupported_detail(name), UNSUPPORTED_FIELD)
    if drop_unknown and name not in metadata:
        raise CoercionError(unknown_detail(name), UNKNOWN_FIELD)
    counts.unused[path + name] += 1
    if len(counts.unused) > 2 * MAX_KEYS:
        counts.limit_keys()


def account_columns(
    columns: Mapping[str, pa.Array],
    counts: FieldCounts,
    problems: Problems,
    drop_unknown: bool,
    path: str = "",
    metadata: Collection[str] = (),
    offsets: npt.NDArray[np.int32] | None = None,
) -> None:
    """Account for columns that a format does not know; `account_value` does the same for one value.

    `offsets` has the first turn of each row, if these are columns of turns.
    """
    for name, column in columns.items():
        mask = value_mask(column)
        rejected = _unsupported_mask(name, column, mask, in_turn=offsets is not None)
        rule, detail = UNSUPPORTED_FIELD, unsupported_detail(name)
        if rejected is None and drop_unknown and name not in metadata:
            rejected, rule, detail = mask, UNKNOWN_FIELD, unknown_detail(name)
        if rejected is not None:
            _reject(positions(rejected), rule, detail, problems, offsets)
            mask = pc.and_not(mask, rejected)
        count = pc.sum(mask).as_py()
        if count:
            counts.unused[path + name] += count


def _reject(
    selected: list[int], rule: str, detail: str, problems: Problems, offsets: npt.NDArray[np.int32] | None
) -> None:
    """Note the problem of the selected rows, or of the rows with the selected turns."""
    if offsets is None:
        add_problem(problems, selected, rule, detail)
        return
    for turn, row in zip(selected, rows_of_turns(offsets, np.asarray(selected, np.int64)), strict=True):
        add_problem(problems, [row], rule, f"turn {turn - int(offsets[row]) + 1} {detail}")


def rows_of_turns(offsets: npt.NDArray[np.int32], turns: npt.NDArray[np.int64]) -> list[int]:
    """Return the conversation of each turn."""
    rows: list[int] = (np.searchsorted(offsets, turns, side="right") - 1).tolist()
    return rows


def _unsupported_mask(name: str, column: pa.Array, mask: pa.BooleanArray, in_turn: bool) -> pa.BooleanArray | None:
    """Return where `is_unsupported` holds for the values of a column; None if it cannot hold."""
    types = pa.types
    if name in _MEDIA or in_turn and name in _TOOLS or not in_turn and name == _HISTORY:
        return mask
    if in_turn:
        return None
    is_boolean = types.is_boolean(column.type)
    is_number = is_boolean or types.is_integer(column.type) or types.is_floating(column.type)
    if name in _PREFERENCE and not is_number or name in _JUDGEMENTS and is_boolean:
        return mask
    if name in _RECORD_FLAGS and is_number:
        return pc.fill_null(pc.equal(pc.cast(column, pa.float64()), 0.0), False)
    return None


def value_mask(column: pa.Array) -> pa.BooleanArray:
    """Return where a column says anything, as `has_value` has it for decoded values."""
    types, kind = pa.types, column.type
    if types.is_null(kind):
        return _falses(len(column))
    if types.is_dictionary(kind):
        return value_mask(column.dictionary_decode())
    if types.is_string_view(kind) or types.is_binary_view(kind):
        column = pc.cast(column, pa.large_binary())
        kind = column.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return pc.fill_null(pc.greater(pc.binary_length(column), 0), False)
    if types.is_struct(kind):
        mask = _falses(len(column))
        for child in column.flatten():  # all at once: `struct_field` takes as long for each field as for all of them
            mask = pc.or_(mask, value_mask(child))
        return mask
    if types.is_map(kind):
        return pc.and_(column.is_valid(), numbers(np.diff(to_numpy(column.offsets)) > 0))
    if types.is_nested(kind):  # the several kinds of lists
        return pc.fill_null(pc.greater(pc.list_value_length(column), 0), False)
    if types.is_floating(kind):
        return pc.fill_null(pc.invert(pc.is_nan(column)), False)
    return column.is_valid()


def _falses(length: int) -> pa.BooleanArray:
    return pc.is_valid(pa.nulls(length))
