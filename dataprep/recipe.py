"""The recipe: every option that decides what a build holds, stated once.

The fields of `Recipe` become the flags of `dataprep build`, the keys of a recipe file (`recipe_file`), the table of
options in the documentation, and a part of the version. Options that do not change a build (its name, its store, what is
printed) are not part of it: see `dataprep.cli.building`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from dataprep.common.errors import RecipeError
from dataprep.options import HeldOut, flag, normal_split, parse_renames, parse_similarity, parse_size, parse_split

Format = Literal["auto", "oasst-trees", "oasst-messages", "guanaco", "messages", "sharegpt", "alpaca", "completion"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All options that decide what a build holds."""

    source: tuple[str, ...] = ()
    """Files, folders, globs or Hub ids (org/name[@revision][:split]) to read; default: the bundled synthetic sample."""
    format: Format = "auto"
    """Format of the sources; auto recognises it from the first records."""
    limit: int | None = None
    """Read at most this many records."""
    max_bad: float = 0.05
    """Maximum share (0 to 1) of records that cannot be read or fit no schema before the build is refused."""
    max_record_bytes: str = "64MB"
    """Maximum size of one record of a JSON file, at least 4 MiB; longer records are dropped."""
    columns: tuple[str, ...] = ()
    """New names of keys before the format is recognised (question=instruction,answer=output)."""
    roles: tuple[str, ...] = ()
    """Meaning of roles that are not known: system, user, assistant or tool (model=assistant,student=user)."""
    unknown_fields: Literal["note", "drop", "error"] = "note"
    """What to do with keys that are not used: note counts them, drop drops their records, error refuses the source."""
    preference: Literal["refuse", "chosen"] = "refuse"
    """What to do with preference records (chosen, rejected): refuse the source, or train on the chosen answer."""
    skip_unknown: bool = False
    """Skip files that have no known format; a note counts them."""
    assume_lang: str | None = None
    """Language of records that state none, such as en."""

    paths: Literal["reviewed", "guanaco", "all"] = "reviewed"
    """Which threads of a tree are taken: the best reviewed one, the one openassistant-guanaco took, or all."""
    system: str | None = None
    """System text for conversations that have none."""

    control_tokens: Literal["drop", "escape", "keep"] = "drop"
    """What to do with a conversation whose text holds a control token or marker of the template."""
    lang: tuple[str, ...] = ()
    """Languages to keep, comma-separated (en,pt-BR); a primary subtag also matches its regions."""
    min_turns: int | None = None
    """Minimum number of answers in a conversation."""
    max_turns: int | None = None
    """Maximum number of answers in a conversation."""
    min_chars: int | None = None
    """Minimum number of characters in all messages of a conversation together."""
    max_chars: int | None = None
    """Maximum number of characters in all messages of a conversation together."""
    accepted_only: bool = False
    """Keep only conversations of which every message is known to have passed review."""
    min_reviews: int | None = None
    """Minimum number of reviews of each message."""
    min_quality: float | None = None
    """Minimum quality label (0 to 1) of every answer; conversations without the label are kept, here and below."""
    min_helpfulness: float | None = None
    """Minimum helpfulness label (0 to 1) of every answer."""
    max_toxicity: float | None = None
    """Maximum toxicity label (0 to 1) of any message."""
    max_spam: float | None = None
    """Maximum spam label (0 to 1) of any message."""
    max_fails_task: float | None = None
    """Maximum fails_task label (0 to 1) of any message."""
    max_lang_mismatch: float | None = None
    """Maximum lang_mismatch label (0 to 1) of any message."""
    max_pii: float | None = None
    """Maximum pii label (0 to 1) of any message."""
    max_not_appropriate: float | None = None
    """Maximum not_appropriate label (0 to 1) of any message."""
    max_hate_speech: float | None = None
    """Maximum hate_speech label (0 to 1) of any message."""
    max_sexual_content: float | None = None
    """Maximum sexual_content label (0 to 1) of any message."""
    max_violence: float | None = None
    """Maximum violence label (0 to 1) of any message."""

    near_dup: str = "0.8"
    """Drop near-duplicates from this exact Jaccard similarity (0 to 1) on; off keeps them."""
    near_dup_on: Literal["thread", "prompt", "answer"] = "thread"
    """What near-duplicate detection compares: whole threads, the user's messages, or the answers."""
    near_dup_siblings: bool = False
    """Also compare threads of one tree, each by what follows their common beginning."""
    decontaminate: tuple[str, ...] = ()
    """Benchmark files (JSONL, gz, Parquet): conversations that hold a part of one are dropped."""

    sample: int | None = None
    """Number of rows to keep, in all splits together."""
    sample_method: Literal["nested", "shuffle"] = "nested"
    """nested: the smallest seeded hashes of the ids, in the order read; shuffle: the rows of datasets' shuffle(seed).select."""
    seed: int = 42
    """Seed of the sample and of the split."""
    split: str | None = None
    """Held-out split, by tree: 0.05 (a share), 200 (rows), or keep (the sources' own splits); test=0.05 means the same."""

    template: str = "llama2"
    """A bundled template, a .jinja file, a tokenizer_config.json, or a folder that holds one."""
    template_date: str | None = None
    """The date (YYYY-MM-DD) that a template writes where it asks for the current one."""
    gate: Literal["on", "warn", "off"] = "on"
    """The quality gate: on refuses a build with a critical fault, warn marks it, off checks nothing."""
    expectations: str | None = None
    """TOML file of expectations that the gate checks instead of dataprep's own."""
    tokenizer: str | None = None
    """A tokenizer.json, with which the gate counts the tokens of each conversation."""
    license: str | None = None
    """Licence of the data for its card, as a lower-case SPDX id (apache-2.0); default: that of a known source, or unknown."""
    shard_size: str = "256MB"
    """Maximum size of one shard."""

    def __post_init__(self) -> None:
        for name in ("lang", "columns", "roles"):
            parts = [part.strip() for text in getattr(self, name) for part in text.split(",")]
            object.__setattr__(self, name, tuple(part for part in parts if part))  # the instance is frozen from here on
        object.__setattr__(self, "split", normal_split(self.split))
        _check(self)

    @cached_property
    def near_threshold(self) -> float | None:
        """`near_dup` as a number; None if it is off."""
        return parse_similarity(self.near_dup)

    @cached_property
    def held_out(self) -> HeldOut:
        """`split` as a share or a number of rows."""
        return parse_split(self.split)

    @cached_property
    def record_bytes(self) -> int:
        """`max_record_bytes` as a number."""
        return parse_size(self.max_record_bytes)

    @cached_property
    def renamed_columns(self) -> dict[str, str]:
        """`columns` as new names by old names."""
        return parse_renames(self.columns, "columns")

    @cached_property
    def renamed_roles(self) -> dict[str, str]:
        """`roles` as standard roles by the roles of the sources."""
        return parse_renames(self.roles, "roles")

    @cached_property
    def shard_bytes(self) -> int:
        """`shard_size` in bytes."""
        return parse_size(self.shard_size)


# Options that name where input lies. They are not part of the version, which covers the bytes that were read.
PATHS = frozenset({"source", "template", "decontaminate", "expectations", "tokenizer"})

_LARGEST = 2**63 - 1  # larger numbers do not fit the columns that they are compared with
_MAX_TEXT = 100_000  # characters
_SMALLEST_RECORD_LIMIT = 2**22  # bytes: the size of the blocks in which files are read


def normalised(recipe: Recipe) -> dict[str, Any]:
    """Return the recipe as JSON values, every field in order of declaration: the `recipe` of a manifest."""
    return {
        key: list(value) if isinstance(value, tuple) else value for key, value in dataclasses.asdict(recipe).items()
    }


def _check(recipe: Recipe) -> None:
    """Refuse values out of range and combinations that contradict each other; the error names the flags.

    Raises:
        RecipeError: the first fault.
    """
    for field in dataclasses.fields(recipe):
        _check_value(field.name, getattr(recipe, field.name))
    if any(not source.strip() for source in recipe.source):
        raise RecipeError("--source is empty: name a file, a folder, a glob or a Hub id, or omit the option.")
    if recipe.system is not None and not recipe.system.strip():
        raise RecipeError("--system is blank: give a text, or omit the option.")
    for low, high in (("min_turns", "max_turns"), ("min_chars", "max_chars")):
        minimum, maximum = getattr(recipe, low), getattr(recipe, high)
        if minimum is not None and maximum is not None and minimum > maximum:
            raise RecipeError(f"{flag(low)} {minimum} is above {flag(high)} {maximum}: nothing could be kept.")
    parse_similarity(recipe.near_dup)
    parse_size(recipe.shard_size)
    if recipe.record_bytes < _SMALLEST_RECORD_LIMIT:
        raise RecipeError(f"--max-record-bytes is {recipe.max_record_bytes}; the minimum is 4MiB.")
    parse_renames(recipe.columns, "columns")
    parse_renames(recipe.roles, "roles")
    if recipe.assume_lang is not None and not recipe.assume_lang.strip():
        raise RecipeError("--assume-lang is blank: give a language tag such as en, or omit the option.")
    rows = parse_split(recipe.split).rows
    if rows is not None and recipe.sample is not None and rows >= recipe.sample:
        raise RecipeError(f"--split {recipe.split} leaves nothing to train on of --sample {recipe.sample}.")


def _check_value(name: str, value: object) -> None:
    texts = value if isinstance(value, tuple) else (value,)
    for text in texts:
        if isinstance(text, str) and (len(text) > _MAX_TEXT or "\0" in text or not _is_unicode(text)):
            raise RecipeError(
                f"{flag(name)} holds a text of over {_MAX_TEXT:,} characters, a NUL, or characters that are not valid "
                "Unicode: shorten or rename it."
            )
    if isinstance(value, float) and not 0 <= value <= 1:
        raise RecipeError(f"{flag(name)} is {value}, and must lie between 0 and 1.")
    if isinstance(value, int) and not isinstance(value, bool):
        minimum = 0 if name == "seed" else 1
        if value < minimum:
            raise RecipeError(f"{flag(name)} is {value}, and must be at least {minimum}.")
        if value > _LARGEST:
            raise RecipeError(f"{flag(name)} is too large: give a number below 2^63.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate
        return False
    return True
