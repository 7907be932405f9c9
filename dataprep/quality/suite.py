"""The expectations file: what it must look like, and what it says under a recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.config import Recipe, flag
from dataprep.errors import RecipeError, nearest
from dataprep.facts import FACTS

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
    for key in _COLUMNS:
        named = arguments.get(key, [])
        for column in named if isinstance(named, list) else [named]:
            if column not in FACTS:
                raise RecipeError(f"{where} names the unknown column '{column}'. {nearest(str(column), FACTS)}")
    return Expectation(**{key: entry[key] for key in _TEXTS}, arguments=arguments)


def _filled(expectation: Expectation, recipe: Recipe, path: str) -> Expectation | None:
    """`recipe:OPTION` replaced by the option's value; None where all that it asks for is unset."""
    asked = {key: value for key, value in expectation.arguments.items() if str(value).startswith(_RECIPE)}
    if not asked:
        return expectation
    values: dict[str, Any] = {}
    for key, value in asked.items():
        field = value.removeprefix(_RECIPE).replace("-", "_")
        known = [option.name for option in dataclasses.fields(recipe)]
        if field not in known:
            raise RecipeError(f"'{expectation.name}' in {path} asks for '{value}'. {nearest(field, known)}")
        values[key] = getattr(recipe, field)
    if all(value is None for value in values.values()):
        return None
    stated = {key: value for key, value in {**expectation.arguments, **values}.items() if value is not None}
    said = ", ".join(f"{flag(value.removeprefix(_RECIPE))} {values[key]}" for key, value in asked.items())
    return dataclasses.replace(expectation, arguments=stated, says=f"{expectation.says} ({said})")
