"""Convert decoded JSON values to Arrow types leniently, as records in the wild need it."""

from __future__ import annotations

import json
import re
from typing import Any

import pyarrow as pa

_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
_NUMBER = re.compile(r"\s*[+-]?\d+(\.\d*)?\s*", re.ASCII)
_LARGEST_FLOAT = 1e300


class CoercionError(ValueError):
    """A value does not fit the type that a format requires."""


def coerce(value: Any, kind: pa.DataType) -> Any:
    """Convert a decoded JSON value to the Arrow type `kind`.

    Numbers are accepted for text, content in parts for text, and `"0"` or `"false"` for numbers and booleans.

    Raises:
        CoercionError: the value does not fit; the message shows it.
    """
    if value is None:
        return None
    if pa.types.is_string(kind):
        return _to_text(value)
    if pa.types.is_list(kind) and isinstance(value, list):
        return [coerce(item, kind.value_type) for item in value]
    if pa.types.is_struct(kind) and isinstance(value, dict):
        return {field.name: coerce(value.get(field.name), field.type) for field in kind}
    if pa.types.is_boolean(kind):
        return _to_boolean(value)
    number = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
    if isinstance(number, int | float) and not isinstance(number, bool):
        if pa.types.is_integer(kind) and number == number // 1 and abs(number) < 2 ** (kind.bit_width - 1):
            return int(number)
        if pa.types.is_floating(kind) and abs(number) < _LARGEST_FLOAT:
            return float(number)
    raise CoercionError(f"is {_excerpt(value)}")


def _to_boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | str):
        truth = _BOOLEANS.get(str(value).strip().lower())
        if truth is not None:
            return truth
    raise CoercionError(f"is {_excerpt(value)}")


def _to_text(value: Any) -> str:
    """Return text unchanged, a number as its digits, and the text parts of OpenAI's `content` joined.

    JSON can escape a lone surrogate, which UTF-8 cannot encode. It becomes three U+FFFD, one for each byte of its
    would-be encoding, and the rules later drop the conversation as broken Unicode.
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
        return "".join(_part_to_text(part) for part in value)
    raise CoercionError(f"is {_excerpt(value)}")


def _part_to_text(part: Any) -> str:
    if isinstance(part, str):
        return _to_text(part)
    if isinstance(part, dict) and part.get("type", "text") == "text" and isinstance(part.get("text"), str):
        return _to_text(part["text"])
    raise CoercionError(f"holds a part that is not text: {_excerpt(part)}")


def _excerpt(value: Any) -> str:
    """Show a value in an error message, cut to 40 characters."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
