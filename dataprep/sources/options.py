"""Options of reading, parsed from a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from dataprep.recipe import Recipe
from dataprep.sources.containers import MAX_RECORD_BYTES


@dataclass(frozen=True)
class ReadOptions:
    """How to read the sources; the options of the same names in `Recipe` say what each does.

    Attributes:
        columns: names of known keys, by the names that the records have for them.
        roles: standard roles, by the names that the records have for them.
        keep_split: whether conversations get a column `split` with the source's own split.
    """

    format: str = "auto"
    limit: int | None = None
    max_record_bytes: int = MAX_RECORD_BYTES
    columns: Mapping[str, str] = field(default_factory=dict)
    roles: Mapping[str, str] = field(default_factory=dict)
    unknown_fields: Literal["note", "drop", "error"] = "note"
    preference: Literal["refuse", "chosen"] = "refuse"
    skip_unknown: bool = False
    lang: tuple[str, ...] = ()
    assume_lang: str | None = None
    keep_split: bool = False

    @classmethod
    def of(cls, recipe: Recipe) -> ReadOptions:
        """Return the options that a recipe states."""
        return cls(
            format=recipe.format,
            limit=recipe.limit,
            max_record_bytes=recipe.record_bytes,
            columns=recipe.renamed_columns,
            roles=recipe.renamed_roles,
            unknown_fields=recipe.unknown_fields,
            preference=recipe.preference,
            skip_unknown=recipe.skip_unknown,
            lang=recipe.lang,
            assume_lang=recipe.assume_lang,
            keep_split=recipe.split == "keep",
        )
