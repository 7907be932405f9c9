"""Read JSON that another program wrote: strict, of bounded size and depth, and checked against a TypedDict.

This module imports the standard library only, so that `training` may use it too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, NotRequired, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from dataprep.common.text import excerpt

MAX_BYTES = 256 * 2**20
MAX_DEPTH = 100

T = TypeVar("T")

_NAMES = {
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "a boolean",
    list: "a list",
    dict: "an object",
    NoneType: "null",
}


class InvalidJson(ValueError):
    """Why a file is not the JSON that is expected, as the end of a sentence about that file: "lacks version"."""


def read_json(path: Path, kind: type[T], max_bytes: int = MAX_BYTES) -> T:
    """Return the content of a JSON file, checked to be of the type `kind` (a TypedDict, or such as `list[str]`).

    Raises:
        InvalidJson: it is too large, no JSON, nested too deeply, or of another type.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InvalidJson(f"has more than {max_bytes:,} bytes")
    return typed(parse_json(data), kind)


def parse_json(data: bytes | str) -> Any:
    """Return the value of a JSON text; NaN, infinities and lone surrogates are refused.

    Raises:
        InvalidJson: as said above.
    """
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
        # Escapes such as \ud800 give strings that no file or terminal takes.
        json.dumps(value, ensure_ascii=False).encode()
    except InvalidJson:
        raise
    except UnicodeEncodeError:
        raise InvalidJson("holds a lone surrogate, which is no character") from None
    except RecursionError:
        raise InvalidJson(f"is nested more than {MAX_DEPTH} levels deep") from None
    except ValueError as fault:
        raise InvalidJson(f"is not valid JSON ({excerpt(str(fault), 120)})") from None
    if _depth_exceeds(value, MAX_DEPTH):
        raise InvalidJson(f"is nested more than {MAX_DEPTH} levels deep")
    return value


def _refuse_constant(name: str) -> None:
    raise InvalidJson(f"holds {name}, which is not valid JSON")


def _depth_exceeds(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return False
    return True


def _children(value: object) -> Sequence[object]:
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()


def typed(value: object, kind: type[T]) -> T:
    """Return `value` if it is of the type `kind`; keys that a TypedDict does not name are allowed and not checked.

    Raises:
        InvalidJson: names the first place that differs.
    """
    problem = _mismatch(value, kind, "")
    if problem:
        raise InvalidJson(problem)
    return value  # type: ignore[return-value]


def _mismatch(value: object, kind: Any, place: str) -> str:
    """Return where `value` is not of the type `kind`; empty where it is."""
    if kind is Any or kind is object:
        return ""
    if is_typeddict(kind):
        return _typed_dict_mismatch(value, kind, place)
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        problems = [_mismatch(value, option, place) for option in arguments]
        return "" if "" in problems else problems[0]
    container = dict if origin is Mapping else list if origin is Sequence else origin
    accepted = (int, float) if container is float else (container,)
    if type(value) not in accepted:  # exact: True is no integer
        return f"needs {_NAMES.get(container, container.__name__)}{f' as {place}' if place else ''}"
    if container is dict and arguments:
        parts = [(child, arguments[1], _below(place, key)) for key, child in value.items()]  # type: ignore[attr-defined]
    elif container is list and arguments:
        parts = [(child, arguments[0], f"{place}[{index}]") for index, child in enumerate(value)]  # type: ignore[arg-type, var-annotated]
    else:
        return ""
    return next(filter(None, (_mismatch(*part) for part in parts)), "")


def _typed_dict_mismatch(value: object, kind: Any, place: str) -> str:
    if type(value) is not dict:
        return f"needs an object{f' as {place}' if place else ''}"
    hints = _hints(kind)
    missing = [key for key, (_, required) in hints.items() if required and key not in value]
    if missing:
        return f"lacks {', '.join(missing)}" + (f" in {place}" if place else "")
    parts = ((value[key], hint, _below(place, key)) for key, (hint, _) in hints.items() if key in value)
    return next(filter(None, (_mismatch(*part) for part in parts)), "")


@cache
def _hints(kind: Any) -> dict[str, tuple[Any, bool]]:
    """Return the type of each key of a TypedDict, and whether the key is required.

    `__required_keys__` would not do: it is wrong where annotations are postponed (CPython issue 97727).
    """
    hints = get_type_hints(kind, include_extras=True)
    optional = {key for key, hint in hints.items() if get_origin(hint) is NotRequired}
    return {key: (get_args(hint)[0] if key in optional else hint, key not in optional) for key, hint in hints.items()}


def _below(place: str, key: object) -> str:
    return f"{place}.{excerpt(str(key), 60)}".lstrip(".")
