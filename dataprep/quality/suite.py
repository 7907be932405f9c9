"""The expectations file: reading it, checking it, and filling in the options of a recipe."""

from __future__ import annotations

import dataclasses
import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.common.errors import RecipeError
from dataprep.common.text import excerpt, nearest
from dataprep.options import flag
from dataprep.quality.allowed import MAX_VALUES, TABLES, TYPES, count_values, fault_of
from dataprep.quality.facts import FACTS
from dataprep.recipe import Recipe

CRITICAL, WARNING, INFO = SEVERITIES = ("critical", "warning", "info")
MAX_BYTES = 1 << 20
MAX_EXPECTATIONS = 500

_BUNDLED = Path(__file__).parent / "expectations.toml"
_REQUIRED = ("name", "says", "severity", "type")
_COLUMN_ARGUMENTS = ("column", "column_A", "column_B", "column_list")
_OPTION_PREFIX = "recipe:"


@dataclass(frozen=True)
class Expectation:
    """One expectation; `arguments` are those of its Great Expectations type."""

    name: str
    says: str  # one sentence for people
    severity: str  # one of SEVERITIES
    type: str  # one of allowed.TYPES
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Suite:
    """The expectations of a file; `source` is the file's text."""

    name: str
    source: str
    expectations: tuple[Expectation, ...]

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.source.encode()).hexdigest()

    @property
    def columns(self) -> list[str]:
        """The facts that the expectations name."""
        stated = (expectation.arguments.get(key, []) for expectation in self.expectations for key in _COLUMN_ARGUMENTS)
        return list(dict.fromkeys(name for value in stated for name in (value if isinstance(value, list) else [value])))


def read_suite(recipe: Recipe) -> Suite:
    """Read the suite of `--expectations`, or the bundled one, and fill in the recipe's options.

    Raises:
        RecipeError: the file cannot be read, is not TOML, or states something that is not allowed (`allowed`).
    """
    path = Path(recipe.expectations) if recipe.expectations else _BUNDLED
    source, stated = _read(path)
    entries = stated.get("expect")
    if set(stated) != {"expect"} or not isinstance(entries, list) or not entries:
        raise RecipeError(f"The expectations file {path} must hold [[expect]] tables and nothing else, at least one.")
    if len(entries) > MAX_EXPECTATIONS:
        raise RecipeError(f"The expectations file {path} has over {MAX_EXPECTATIONS} expectations: split it.")
    expectations = [_expectation(entry, f"[[expect]] number {at} of {path}") for at, entry in enumerate(entries, 1)]
    name, count = Counter(expectation.name for expectation in expectations).most_common(1)[0]
    if count > 1:
        raise RecipeError(f"The expectations file {path} has {count} expectations named '{name}': rename all but one.")
    filled = (_filled(expectation, recipe, str(path)) for expectation in expectations)
    return Suite(path.name, source, tuple(expectation for expectation in filled if expectation))


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise RecipeError(f"The expectations file {path} is larger than {MAX_BYTES >> 20} MiB: shorten it.")
        source = content.decode()
        return source, tomllib.loads(source)
    except OSError as fault:
        raise RecipeError(f"The expectations file {path} cannot be read: {fault.strerror}.") from None
    except RecursionError:
        raise RecipeError(f"The expectations file {path} is nested too deeply.") from None
    except ValueError as fault:
        raise RecipeError(f"The expectations file {path} is not TOML: {excerpt(str(fault))}.") from None


def _expectation(entry: Any, where: str) -> Expectation:
    if not isinstance(entry, dict):
        raise RecipeError(f"{where} is not a table.")
    for key in _REQUIRED:
        if not isinstance(entry.get(key), str) or not 0 < len(entry[key]) <= 1_000:
            raise RecipeError(
                f"{where} has no text '{key}' of up to 1,000 characters: {', '.join(_REQUIRED)} are required."
            )
    if entry["severity"] not in SEVERITIES:
        raise RecipeError(
            f"{where} has the severity '{excerpt(entry['severity'], 80)}'. {nearest(entry['severity'], SEVERITIES)}"
        )
    if entry["type"] not in TYPES:
        raise RecipeError(
            f"{where} has a type that is unknown or not allowed, '{excerpt(entry['type'], 80)}'. {nearest(entry['type'], TYPES)}"
        )
    arguments = {key: value for key, value in entry.items() if key not in _REQUIRED}
    for key, value in arguments.items():
        _check_argument(key, value, entry["type"], where)
    if (count := sum(map(count_values, arguments.values()))) > MAX_VALUES:
        raise RecipeError(f"{where} has {count:,} values, and may have {MAX_VALUES:,}: state a range instead.")
    return Expectation(**{key: entry[key] for key in _REQUIRED}, arguments=arguments)


def _check_argument(key: str, value: Any, kind: str, where: str) -> None:
    if key not in TYPES[kind]:
        raise RecipeError(
            f"{where} has an argument that {kind} does not take here, '{excerpt(key, 80)}'. {nearest(key, TYPES[kind])}"
        )
    parts = {key: value}
    if key in TABLES:
        if not isinstance(value, dict) or not value.keys() <= TABLES[key]:
            raise RecipeError(f"{where} must have a table of {', '.join(sorted(TABLES[key]))} for '{key}'.")
        parts = value
    for name, part in parts.items():
        if fault := fault_of(part):
            raise RecipeError(f"{where} has {fault} for '{name}'.")
    if key in _COLUMN_ARGUMENTS:
        for column in value if isinstance(value, list) else [value]:
            if column not in FACTS:
                shown = excerpt(str(column), 80)
                raise RecipeError(f"{where} names the unknown column '{shown}'. {nearest(shown, FACTS)}")


def _filled(expectation: Expectation, recipe: Recipe, path: str) -> Expectation | None:
    """Replace each `recipe:OPTION` by the option's value; None if the expectation names options and none is set."""
    known = [option.name for option in dataclasses.fields(recipe)]
    options: dict[str, Any] = {}
    for value in _values(expectation.arguments):
        if isinstance(value, str) and value.startswith(_OPTION_PREFIX):
            field = value.removeprefix(_OPTION_PREFIX).replace("-", "_")
            if field not in known:
                raise RecipeError(
                    f"'{expectation.name}' in {path} names the unknown option '{value}'. {nearest(field, known)}"
                )
            options[value] = getattr(recipe, field)
    if not options:
        return expectation
    if all(value is None for value in options.values()):
        return None
    stated = ", ".join(f"{flag(name.removeprefix(_OPTION_PREFIX))} {value}" for name, value in options.items())
    arguments = _with_options(expectation.arguments, options)
    return dataclasses.replace(expectation, arguments=arguments, says=f"{expectation.says} ({stated})")


def _values(value: Any) -> Iterator[Any]:
    """Yield the single values of an argument, at any depth."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list):
        for part in value:
            yield from _values(part)
    else:
        yield value


def _with_options(value: Any, options: Mapping[str, Any]) -> Any:
    """Return `value` with the values of `options` in place of their names; what is unset is removed."""
    if isinstance(value, Mapping):
        filled = {key: _with_options(part, options) for key, part in value.items()}
        return {key: part for key, part in filled.items() if part is not None}
    if isinstance(value, list):
        return [part for part in (_with_options(part, options) for part in value) if part is not None]
    return options.get(value, value) if isinstance(value, str) else value
