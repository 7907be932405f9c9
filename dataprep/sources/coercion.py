"""Convert decoded JSON values to Arrow types leniently, as records in the wild need it."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pyarrow as pa

from dataprep.sources.schema import Kind

WRONG_SCHEMA = "wrong_schema"
UNSUPPORTED_FIELD = "unsupported_field"

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d*)?\s*", re.ASCII)
_LARGEST_FLOAT = 1e300


class CoercionError(ValueError):
    """A value does not fit what a format requires; `rule` is the reason under which its record is rejected."""

    def __init__(self, detail: str, rule: str = WRONG_SCHEMA) -> None:
        super().__init__(detail)
        self.rule = rule


def has_value(value: Any) -> bool:
    """Whether a decoded JSON value says anything: null, NaN, an empty text, list or object do not."""
    if isinstance(value, dict):
        return any(has_value(part) for part in value.values())
    if isinstance(value, str | list | bytes):
        return len(value) > 0
    return value is not None and value == value  # NaN differs from itself


def coerce(value: Any, type: pa.DataType, kind: Kind = Kind.PLAIN) -> Any:
    """Convert a decoded JSON value to the Arrow type `type`; null and NaN become None.

    Numbers are accepted for text, content in parts for text, and `"0"` or `"false"` for numbers and booleans.

    Raises:
        CoercionError: the value does not fit; the message shows it.
    """
    if value is None or value != value:
        return None
    if kind is Kind.JSON:
        return value if isinstance(value, str) else to_json_text(value)
    if kind is Kind.FLAG and not isinstance(value, int | float):
        return float(_to_boolean(value))
    if kind is Kind.FLAG:
        return float(value)
    if pa.types.is_string(type):
        return _to_text(value)
    if pa.types.is_list(type) and isinstance(value, list):
        return [coerce(item, type.value_type) for item in value]
    if pa.types.is_struct(type) and isinstance(value, dict):
        return {field.name: coerce(value.get(field.name), field.type) for field in type}
    if pa.types.is_boolean(type):
        return _to_boolean(value)
    number = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
    if isinstance(number, int | float) and not isinstance(number, bool):
        if pa.types.is_integer(type) and number == number // 1 and abs(number) < 2 ** (type.bit_width - 1):
            return int(number)
        if pa.types.is_floating(type) and abs(number) < _LARGEST_FLOAT:
            return float(number)
    raise CoercionError(f"is {excerpt_json(value)}")


def coerce_or_none(value: Any, type: pa.DataType) -> Any:
    """Convert a value as `coerce` does; one that does not fit becomes None."""
    try:
        return coerce(value, type)
    except CoercionError:
        return None


def to_json_text(value: Any) -> str:
    """Write a value as compact JSON with its keys in order and non-ASCII characters unescaped; NaN becomes null."""
    try:
        return msgspec.json.encode(value).decode()
    except (UnicodeEncodeError, OverflowError, RecursionError):
        return repair_surrogates(json.dumps(value, ensure_ascii=False, separators=(",", ":")))


def repair_surrogates(text: str) -> str:
    """Replace each lone surrogate, which JSON can escape and UTF-8 cannot encode, by three U+FFFD.

    That is one for each byte of its would-be encoding. The rules later drop the conversation as broken Unicode.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode(errors="replace")
    return text


def _to_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | str):
        truth = _BOOLEANS.get(str(value).strip().lower())
        if truth is not None:
            return truth
    raise CoercionError(f"is {excerpt_json(value)}")


def _to_text(value: Any) -> str:
    """Return text unchanged, a number as its digits, and the text parts of OpenAI's `content` joined."""
    if isinstance(value, str):
        return repair_surrogates(value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    if isinstance(value, list):
        return "".join(_part_to_text(part) for part in value)
    raise CoercionError(f"is {excerpt_json(value)}")


def _part_to_text(part: Any) -> str:
    if isinstance(part, str):
        return _to_text(part)
    if isinstance(part, dict):
        kind = part.get("type", "text")
        if kind == "text" and isinstance(part.get("text"), str):
            return _to_text(part["text"])
        if kind != "text" and isinstance(kind, str):
            raise CoercionError(f"holds a part of type {excerpt_json(kind)}, which is not text", UNSUPPORTED_FIELD)
    raise CoercionError(f"holds a part that is not text: {excerpt_json(part)}")


def excerpt_json(value: Any) -> str:
    """Show a value in an error message, cut to 40 characters."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
