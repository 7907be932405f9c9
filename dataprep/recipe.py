"""The recipe: every option that decides what a build holds, stated once.

The fields of `Recipe` become the flags of `dataprep build`, the keys of a recipe file (TOML, or the manifest of
an earlier build), the table in the README and a part of the version. Where a build is put, what it is called and
how it is told about are not part of it: see `dataprep.cli`.
"""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from dataprep.common.errors import RecipeError
from dataprep.common.text import nearest

Format = Literal["auto", "oasst-trees", "oasst-messages", "guanaco", "messages", "sharegpt", "alpaca"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What goes into a build and what is done to it."""

    source: tuple[str, ...] = ()
    """Files, folders, globs or Hub ids (org/name[@revision][:split]) to read; none: the bundled synthetic sample."""
    format: Format = "auto"
    """Format of the sources; auto recognises it from the first records."""
    limit: int | None = None
    """Read at most this many records."""
    max_bad: float = 0.05
    """Largest share (0 to 1) of records that cannot be read or fit no schema before the build is refused."""

    paths: Literal["reviewed", "guanaco", "all"] = "reviewed"
    """Which threads of a tree are taken: the best reviewed one, the one openassistant-guanaco took, or all."""
    system: str | None = None
    """System text for conversations that have none."""

    control_tokens: Literal["drop", "escape", "keep"] = "drop"
    """What becomes of a conversation in whose text somebody typed a control token or marker of the template."""
    lang: tuple[str, ...] = ()
    """Languages to keep, comma-separated (en,pt-BR); a primary subtag also matches its regions."""
    min_turns: int | None = None
    """Fewest answers in a conversation."""
    max_turns: int | None = None
    """Most answers in a conversation."""
    min_chars: int | None = None
    """Fewest characters in all messages of a conversation together."""
    max_chars: int | None = None
    """Most characters in all messages of a conversation together."""
    accepted_only: bool = False
    """Keep only conversations of which every message is known to have passed review."""
    min_reviews: int | None = None
    """Fewest reviews that each message must have had."""
    min_quality: float | None = None
    """Least quality label (0 to 1) of any answer; a missing label abstains, here and below."""
    min_helpfulness: float | None = None
    """Least helpfulness label (0 to 1) of any answer."""
    max_toxicity: float | None = None
    """Largest toxicity label (0 to 1) of any message."""
    max_spam: float | None = None
    """Largest spam label (0 to 1) of any message."""
    max_fails_task: float | None = None
    """Largest fails_task label (0 to 1) of any message."""
    max_lang_mismatch: float | None = None
    """Largest lang_mismatch label (0 to 1) of any message."""
    max_pii: float | None = None
    """Largest pii label (0 to 1) of any message."""
    max_not_appropriate: float | None = None
    """Largest not_appropriate label (0 to 1) of any message."""
    max_hate_speech: float | None = None
    """Largest hate_speech label (0 to 1) of any message."""
    max_sexual_content: float | None = None
    """Largest sexual_content label (0 to 1) of any message."""
    max_violence: float | None = None
    """Largest violence label (0 to 1) of any message."""

    near_dup: str = "0.8"
    """Drop conversations that are alike from this exact similarity (0 to 1) on, or off."""
    near_dup_on: Literal["thread", "prompt", "answer"] = "thread"
    """What is compared for it: the whole thread, the user's messages, or the answers."""
    near_dup_siblings: bool = False
    """Compare threads of one tree too, each by what follows their common beginning."""
    decontaminate: tuple[str, ...] = ()
    """Benchmark files (JSONL, gz, Parquet): conversations that hold a part of one are dropped."""

    sample: int | None = None
    """Rows to keep, of all splits together."""
    sample_method: Literal["nested", "shuffle"] = "nested"
    """nested: the smallest seeded hashes of the ids, in the order read; shuffle: what datasets' shuffle(seed).select gives."""
    seed: int = 42
    """Seed of the sample and of the split."""
    split: str | None = None
    """Held-out split, by tree: test=0.05 (a share) or test=200 (rows)."""

    template: str = "llama2"
    """A bundled template, a .jinja file, a tokenizer_config.json, or a folder that holds one."""
    gate: Literal["on", "warn", "off"] = "on"
    """The quality gate: on refuses a build with a critical fault, warn lets it through and marks it, off judges nothing."""
    expectations: str | None = None
    """TOML file of Great Expectations that the gate asks, in place of dataprep's own."""
    tokenizer: str | None = None
    """A tokenizer.json, to count the tokens of each conversation for the gate."""
    license: str | None = None
    """Licence of the data for its card, as an SPDX id in lower case (apache-2.0); none: unknown, if the source is."""
    shard_size: str = "256MB"
    """Bound on the size of one shard."""

    def __post_init__(self) -> None:
        tags = [tag.strip() for text in self.lang for tag in text.split(",")]
        object.__setattr__(self, "lang", tuple(tag for tag in tags if tag))  # frozen: one last touch
        _check(self)

    @property
    def near_threshold(self) -> float | None:
        """`near_dup` as a number; None: off."""
        return None if self.near_dup == "off" else float(self.near_dup)

    @property
    def held_out(self) -> tuple[float | None, int | None]:
        """`split` as (share, None), (None, rows) or (None, None)."""
        if self.split is None:
            return None, None
        value = self.split.removeprefix("test=")
        return (None, int(value)) if value.isdigit() else (float(value), None)

    @property
    def shard_bytes(self) -> int:
        """`shard_size` in bytes."""
        return parse_size(self.shard_size)


# Options that say where the input lies. They stay outside the version: what was read is in it by its bytes.
PATHS = frozenset({"source", "template", "decontaminate", "expectations", "tokenizer"})

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def parse_size(text: str) -> int:
    """Bytes meant by `256MB`, `1.5GiB` or `100000`.

    Raises:
        RecipeError: no such size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?i?B?)\s*", text, re.IGNORECASE)
    unit = (found[2].upper() or "B") if found else ""
    unit = unit if unit.endswith("B") else unit + "B"
    if not found or unit not in _UNITS or float(found[1]) * _UNITS[unit] < 1:
        raise RecipeError(f"'{text}' is no size: write a number with B, KB, MB, GB, KiB, MiB or GiB, such as 256MB.")
    return int(float(found[1]) * _UNITS[unit])


def flag(field: str) -> str:
    """The command line's name of a field: `max_bad` is `--max-bad`."""
    return "--" + field.replace("_", "-")


def _check(recipe: Recipe) -> None:
    """Refuse values out of range; a rule across options names the flags."""
    if any(not source.strip() for source in recipe.source):
        raise RecipeError("--source is empty: name a file, a folder, a glob or a Hub id, or leave the option out.")
    if recipe.system is not None and not recipe.system.strip():
        raise RecipeError("--system is blank: give a text, or leave the option out.")
    for field in ("limit", "sample", "min_turns", "max_turns", "min_chars", "max_chars", "min_reviews"):
        value = getattr(recipe, field)
        if value is not None and value < 1:
            raise RecipeError(f"{flag(field)} is {value}, and must be at least 1.")
    if recipe.seed < 0:
        raise RecipeError(f"--seed is {recipe.seed}, and must not be negative.")
    shares = [
        f.name for f in dataclasses.fields(recipe) if f.name.startswith(("max_", "min_")) and "float" in str(f.type)
    ]
    for field in shares:
        value = getattr(recipe, field)
        if value is not None and not 0 <= value <= 1:
            raise RecipeError(f"{flag(field)} is {value}, and must lie between 0 and 1.")
    for low, high in (("min_turns", "max_turns"), ("min_chars", "max_chars")):
        least, most = getattr(recipe, low), getattr(recipe, high)
        if least is not None and most is not None and least > most:
            raise RecipeError(f"{flag(low)} {least} is above {flag(high)} {most}: nothing could be kept.")
    if recipe.near_dup != "off" and not (
        re.fullmatch(r"\d*\.?\d+", recipe.near_dup) and 0 < float(recipe.near_dup) <= 1
    ):
        raise RecipeError(f"--near-dup is '{recipe.near_dup}', and must be off, or a similarity above 0 and up to 1.")
    if recipe.split is not None:
        _check_split(recipe.split, recipe.sample)
    parse_size(recipe.shard_size)


def _check_split(split: str, sample: int | None) -> None:
    found = re.fullmatch(r"test=(\d+|\d*\.\d+)", split)
    value = found[1] if found else ""
    sound = value.isdigit() and int(value) > 0 or (bool(value) and not value.isdigit() and 0 < float(value) < 1)
    if not sound:
        raise RecipeError(f"--split is '{split}', and must be test=SHARE (above 0, below 1) or test=ROWS.")
    if sample is not None and value.isdigit() and int(value) >= sample:
        raise RecipeError(f"--split {split} leaves nothing to train on of --sample {sample}.")


def normalised(recipe: Recipe) -> dict[str, Any]:
    """The recipe as JSON values, every field in order of declaration: what a manifest stores."""
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(recipe).items()
    }


def read_recipe(path: Path) -> dict[str, Any]:
    """Fields stated by a recipe file: TOML, or a build's manifest.json (its `recipe`).

    Returns: values by field name, of the fields' own types (lists become tuples).

    Raises:
        RecipeError: no such file, no such format, an unknown key (with the nearest), a value of another type.
    """
    try:
        raw = path.read_bytes()
    except OSError as fault:
        raise RecipeError(f"The recipe {path} cannot be read: {fault.strerror}.") from None
    try:
        if path.suffix == ".json":
            facts = json.loads(raw)
            stated = facts["recipe"]
        else:
            stated = tomllib.loads(raw.decode())
    except (ValueError, KeyError, TypeError) as fault:
        kind = "a build's manifest" if path.suffix == ".json" else "TOML"
        raise RecipeError(f"The recipe {path} is not {kind}: {fault}.") from None
    if not isinstance(stated, dict):
        raise RecipeError(f"The recipe {path} holds no options: its 'recipe' is no object.")
    hints = get_type_hints(Recipe)
    values = {}
    for key, value in stated.items():
        field = key.replace("-", "_")
        if field not in hints:
            raise RecipeError(f"The recipe {path} has an unknown key '{key}'. {nearest(field, hints)}")
        if value is not None:
            values[field] = _typed(value, hints[field], f"'{key}' in the recipe {path}")
    return values


def _typed(value: Any, hint: Any, where: str) -> Any:
    """`value` as a value of `hint`, or a RecipeError that says where it stands and what would do."""
    options = get_args(hint)
    if get_origin(hint) is Literal:
        if value not in options:
            raise RecipeError(f"{where} is '{value}'. {nearest(str(value), map(str, options))}")
        return value
    if get_origin(hint) is tuple:
        items = [value] if isinstance(value, str) else value
        if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
            raise RecipeError(f"{where} is {value!r}, and must be a list of texts.")
        return tuple(items)
    wanted = next(kind for kind in (options or (hint,)) if kind is not type(None))
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is str and type(value) in (int, float):
        return str(value)  # near_dup = 0.8
    if type(value) is not wanted:
        raise RecipeError(f"{where} is {value!r}, and must be of type {wanted.__name__}.")
    return value
