"""The expectations file: what it must look like, and what it says under a recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.common.errors import RecipeError
from dataprep.common.text import nearest
from dataprep.quality.facts import FACTS
from dataprep.recipe import Recipe, flag

CRITICAL, WARNING, INFO = SEVERITIES = ("critical", "warning", "info")

_BUNDLED = Path(__file__).parent / "expectations.toml"
_TEXTS = ("name", "says", "severity", "type")
_COLUMNS = ("column", "column_A", "column_B", "column_list", "column_set")
_RECIPE = "recipe:"


@dataclass(frozen=True)
class Expectation:
    """One expectation; `arguments` are those of its Great Expectations type."""

    name: str
    says: str
    severity: str
    type: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Suite:
    """An expectations file as it was read; `source` is its text."""

    name: str
    source: str
    expectations: tuple[Expectation, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()


def read_suite(recipe: Recipe) -> Suite:
    """The suite of `--expectations`, or the one that comes with dataprep, with the recipe's options filled in.

    Raises:
        RecipeError: no such file, no TOML, something missing, twice or unknown in it.
    """
    path = Path(recipe.expectations) if recipe.expectations else _BUNDLED
    try:
        source = path.read_text(encoding="utf-8")
        stated = tomllib.loads(source)
    except OSError as fault:
        raise RecipeError(f"The expectations file {path} cannot be read: {fault.strerror}.") from None
    except ValueError as fault:
        raise RecipeError(f"The expectations file {path} is not TOML: {fault}.") from None
    entries = stated.get("expect")
    if set(stated) != {"expect"} or not isinstance(entries, list) or not entries:
        raise RecipeError(f"The expectations file {path} must hold [[expect]] tables and nothing else, at least one.")
    expectations = [_expectation(entry, f"[[expect]] number {at} of {path}") for at, entry in enumerate(entries, 1)]
    names = [expectation.name for expectation in expectations]
    for name in names:
        if names.count(name) > 1:
            raise RecipeError(
                f"The expectations file {path} has two expectations named '{name}': give one another name."
            )
    filled = (_filled(expectation, recipe, str(path)) for expectation in expectations)
    return Suite(path.name, source, tuple(expectation for expectation in filled if expectation))


def _expectation(entry: Any, where: str) -> Expectation:
    if not isinstance(entry, dict):
        raise RecipeError(f"{where} is no table.")
    for key in _TEXTS:
        if not isinstance(entry.get(key), str) or not entry[key]:
            raise RecipeError(f"{where} has no text '{key}': each needs {', '.join(_TEXTS)}.")
    if entry["severity"] not in SEVERITIES:
        raise RecipeError(f"{where} has the severity '{entry['severity']}'. {nearest(entry['severity'], SEVERITIES)}")
    arguments = {key: value for key, value in entry.items() if key not in _TEXTS}
    for key, value in _values(arguments):
        if not isinstance(value, str | bool | int | float):
            raise RecipeError(f"{where} has a date or a time for '{key}', which no fact is: give a number or a text.")
        if isinstance(value, float) and not math.isfinite(value):
            raise RecipeError(f"{where} has {value} for '{key}', which is no bound: leave it out.")
        if key in _COLUMNS and value not in FACTS:
            raise RecipeError(f"{where} names the unknown column '{value}'. {nearest(str(value), FACTS)}")
    return Expectation(**{key: entry[key] for key in _TEXTS}, arguments=arguments)


def _values(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """What stands in an argument, however deep, with the argument's name."""
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else ((key, part) for part in value)
        for name, part in parts:
            yield from _values(part, key or name)
    else:
        yield key, value


def _filled(expectation: Expectation, recipe: Recipe, path: str) -> Expectation | None:
    """`recipe:OPTION` replaced by the option's value, however deep; None where all that it asks for is unset."""
    known = [option.name for option in dataclasses.fields(recipe)]
    asked: dict[str, Any] = {}
    for _, value in _values(expectation.arguments):
        if str(value).startswith(_RECIPE):
            field = value.removeprefix(_RECIPE).replace("-", "_")
            if field not in known:
                raise RecipeError(f"'{expectation.name}' in {path} asks for '{value}'. {nearest(field, known)}")
            asked[value] = getattr(recipe, field)
    if not asked:
        return expectation
    if all(value is None for value in asked.values()):
        return None
    said = ", ".join(f"{flag(name.removeprefix(_RECIPE))} {value}" for name, value in asked.items())
    return dataclasses.replace(
        expectation, arguments=_with(expectation.arguments, asked), says=f"{expectation.says} ({said})"
    )


def _with(value: Any, asked: Mapping[str, Any]) -> Any:
    """`value` with what is `asked` in place of its name; what is unset is left out."""
    if isinstance(value, Mapping):
        filled = {key: _with(part, asked) for key, part in value.items()}
        return {key: part for key, part in filled.items() if part is not None}
    if isinstance(value, list):
        return [part for part in (_with(part, asked) for part in value) if part is not None]
    return asked.get(value, value) if isinstance(value, str) else value
