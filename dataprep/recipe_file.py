"""Recipe files: options in TOML, or the manifest of an earlier build, whose recipe is built again.

Recipe files are passed between people, so they are untrusted: size and nesting are bounded, and values are quoted in
errors only in part.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dataprep.common.errors import RecipeError
from dataprep.common.text import excerpt, nearest
from dataprep.recipe import Recipe

MAX_BYTES = 16 << 20  # a manifest holds checksums of all shards: 150 bytes a shard


def read_recipe(path: Path) -> dict[str, Any]:
    """Return the options that a recipe file states.

    Args:
        path: TOML, or a build's manifest.json (its `recipe`).

    Returns:
        Values by field name, of the fields' own types (lists become tuples).

    Raises:
        RecipeError: the file cannot be read, is neither TOML nor a manifest, has an unknown key (names the nearest), or a
            value of another type.
    """
    return typed_options(_stated_options(path), f"the recipe {path}")


def typed_options(stated: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Return stated options as values of the fields of `Recipe`; an option that is None is not stated.

    Args:
        stated: values by the name of an option, with `-` or `_`.
        origin: where they are stated, for errors.

    Raises:
        RecipeError: an unknown name (names the nearest), or a value of another type.
    """
    hints = get_type_hints(Recipe)
    values = {}
    for key, value in stated.items():
        field = key.replace("-", "_")
        if field not in hints:
            raise RecipeError(
                f"{origin[0].upper()}{origin[1:]} has an unknown key '{excerpt(key, 80)}'. {nearest(field[:80], hints)}"
            )
        if value is not None:
            values[field] = _typed(value, hints[field], f"'{key}' in {origin}")
    return values


def _stated_options(path: Path) -> dict[str, Any]:
    is_manifest = path.suffix == ".json"
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as fault:  # ValueError: a NUL in the path
        reason = getattr(fault, "strerror", None) or fault
        raise RecipeError(f"The recipe {path} cannot be read: {reason}.") from None
    if len(content) > MAX_BYTES:
        raise RecipeError(f"The recipe {path} is larger than {MAX_BYTES >> 20} MiB: give a recipe or a manifest.")
    try:
        stated = json.loads(content)["recipe"] if is_manifest else tomllib.loads(content.decode())
    except RecursionError:
        raise RecipeError(f"The recipe {path} is nested too deeply: options are texts, numbers and lists.") from None
    except (ValueError, KeyError, TypeError) as fault:
        kind = "a build's manifest" if is_manifest else "TOML"
        raise RecipeError(f"The recipe {path} is not {kind}: {excerpt(str(fault))}.") from None
    if not isinstance(stated, dict):
        raise RecipeError(f"The recipe {path} holds no options: its 'recipe' is not an object.")
    return stated


def _typed(value: Any, hint: Any, where: str) -> Any:
    """Return `value` as a value of the type `hint`.

    Raises:
        RecipeError: it is of another type; says where, and which type or values would work.
    """
    alternatives = get_args(hint)
    if get_origin(hint) is Literal:
        if value not in alternatives:
            raise RecipeError(f"{where} is '{_quoted(value)}'. {nearest(_quoted(value), map(str, alternatives))}")
        return value
    if get_origin(hint) is tuple:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list | tuple) or not all(isinstance(item, str) for item in items):
            raise RecipeError(f"{where} is {_quoted(value)}, and must be a list of texts.")
        return tuple(items)
    expected = next(kind for kind in (alternatives or (hint,)) if kind is not type(None))
    if expected is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if expected is str and type(value) in (int, float):
        return _quoted(value)  # near_dup = 0.8
    if type(value) is not expected:
        raise RecipeError(f"{where} is {_quoted(value)}, and must be of type {expected.__name__}.")
    return value


def _quoted(value: Any) -> str:
    """Return a short text of a value of any type and size."""
    try:
        return excerpt(str(value), 80)
    except (ValueError, RecursionError):  # a number of over 4,300 digits, a list inside a thousand lists
        return f"a {type(value).__name__}"
