"""Compare two versions: recipe, rows added, removed and changed, each with the rule that caused it, and languages."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import polars as pl

from dataprep.contract import Build, Manifest
from dataprep.store.fates import read_fates
from dataprep.tables import KEPT, SYSTEM

# Causes of a difference that is due to no rule.
NOT_IN_INPUT = "not in the input"
INPUT = "input"  # the record itself
SYSTEM_TEXT = "system"  # the system text that the option --system adds to conversations without one
SOURCE = "source"  # the name of the source file
TEMPLATE = "template"  # the rendering
SPLIT = "split"

# Columns of a row by their cause; messages, source, split and id are compared separately.
_CONTENT_COLUMNS = ("tree_id", "lang", "message_ids")
_RENDERED_COLUMNS = ("text", "spans", "controls")

_FATE_COLUMNS = ["kind", "id", "fate", "rule", "detail", "repairs"]


@dataclass(frozen=True)
class Difference:
    """What changed from one version to another.

    `recipe`: (before, after) of each option, source, template and library version that differs. `added`, `removed`,
    `changed`: frames `id, lang, rule, detail`; `rule` is the rule that dropped the row from the version without it. For
    changed rows it has all causes, separated by commas: the repairs that only one version made, and constants of this
    module.
    `languages`: (rows before, rows after) by language.
    """

    rows: tuple[int, int]
    recipe: Mapping[str, tuple[Any, Any]]
    added: pl.DataFrame
    removed: pl.DataFrame
    changed: pl.DataFrame
    languages: Mapping[str, tuple[int, int]]

    def frames(self) -> dict[str, pl.DataFrame]:
        """Return the rows `added`, `removed` and `changed`."""
        return {"added": self.added, "removed": self.removed, "changed": self.changed}

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values, with `rules`: the number of rows that each rule added, removed or changed."""
        return {
            "rows": self.rows,
            "recipe": self.recipe,
            "languages": self.languages,
            "rules": {kind: rows_by_rule(frame) for kind, frame in self.frames().items()},
            **{kind: frame.to_dicts() for kind, frame in self.frames().items()},
        }


def rows_by_rule(frame: pl.DataFrame) -> dict[str, int]:
    """Return the number of rows of each rule, the largest first."""
    return dict(frame.group_by("rule").len().sort("len", "rule", descending=[True, False]).rows())


def diff(before: Build, after: Build) -> Difference:
    """Compare two versions, of the same or of different names."""
    systems = [build.manifest.recipe.get("system") for build in (before, after)]
    with ThreadPoolExecutor(2) as pool:  # Polars releases the GIL, and its conversion from Arrow uses one core
        rows = pool.map(_comparable_rows, (before, after), systems if systems[0] != systems[1] else (None, None))
        fates = pool.map(lambda build: read_fates(build.path, _FATE_COLUMNS), (before, after))
        (old, new), (old_fates, new_fates) = rows, fates
    common = old.join(new, on="id", how="inner", suffix="_new")
    return Difference(
        rows=(old.height, new.height),
        recipe=_recipe_changes(before.manifest, after.manifest),
        added=_with_reasons(new.join(old, on="id", how="anti"), old_fates),
        removed=_with_reasons(old.join(new, on="id", how="anti"), new_fates),
        changed=_changes(common, old_fates, new_fates, _template_of(before) != _template_of(after)),
        languages=_language_counts(old, new),
    )


def _comparable_rows(build: Build, system: str | None) -> pl.DataFrame:
    """Return `id, lang, split, source, system`, and 64-bit hashes of a row's `content` and of its `rendering`.

    Contents are compared by their hashes: joining two large versions would take gigabytes, and two numbers a row do not.
    Polars' own hashes are the fastest; that they differ between its releases does not matter within one process.

    A first turn that has the text of the option `system` is not part of `content`, but of the column `system`.
    """
    messages, system_column = pl.col("messages"), pl.lit(None, pl.String)
    if system is not None:
        first = messages.list.first().struct
        from_option = (first.field("role") == SYSTEM) & (first.field("content") == system)
        messages = pl.when(from_option).then(messages.list.slice(1)).otherwise(messages)
        system_column = pl.when(from_option).then(pl.lit(system))
    frames = []
    for split, table in build.splits.items():
        optional = [pl.col("tools")] if "tools" in table.column_names else []
        frames.append(
            pl.DataFrame(table).select(
                "id",
                "lang",
                "source",
                pl.lit(split).alias("split"),
                system_column.alias("system"),
                _hash(messages, *map(pl.col, _CONTENT_COLUMNS), *optional).alias("content"),
                _hash(*map(pl.col, _RENDERED_COLUMNS)).alias("rendering"),
            )
        )
    return pl.concat(frames)


def _hash(*columns: pl.Expr) -> pl.Expr:
    return pl.struct(column.hash().alias(str(number)) for number, column in enumerate(columns)).hash()


def _recipe_changes(before: Manifest, after: Manifest) -> dict[str, tuple[Any, Any]]:
    old, new = _inputs(before), _inputs(after)
    changes = {key: (old.get(key), new.get(key)) for key in [*old, *(key for key in new if key not in old)]}
    return {key: pair for key, pair in changes.items() if pair[0] != pair[1]}


def _inputs(manifest: Manifest) -> dict[str, Any]:
    """Return what a version was made from: its recipe, the digests of its sources and template, and library versions."""
    sources = manifest.data.get("sources", [])
    return {
        **manifest.recipe,
        "contents of sources": [f"{source['name']} {source['digest'][:12]}" for source in sources],
        "text of the template": str(manifest.template.get("sha256", ""))[:12],
        "dataprep": manifest.data.get("dataprep"),
        **manifest.data.get("libraries", {}),
    }


def _template_of(build: Build) -> tuple[Any, ...]:
    """Return what decides the rendering of the same messages."""
    return build.manifest.template.get("sha256"), build.manifest.recipe.get("template_date")


def _with_reasons(rows: pl.DataFrame, fates: pl.DataFrame) -> pl.DataFrame:
    """Return why `rows` are missing from the version that `fates` belongs to: `id, lang, rule, detail`, by id."""
    dropped = fates.filter(pl.col("fate") != KEPT).sort("kind").unique("id", keep="first")
    rule = pl.coalesce("rule", "fate", pl.lit(NOT_IN_INPUT))
    return rows.join(dropped, on="id", how="left").select("id", "lang", rule.alias("rule"), "detail").sort("id")


def _changes(
    common: pl.DataFrame, old_fates: pl.DataFrame, new_fates: pl.DataFrame, templates_differ: bool
) -> pl.DataFrame:
    """Return the rows of both versions that differ, with all causes: `id, lang, rule, detail`, by id."""
    compared = ("content", "system", "rendering", "source", "split")
    differs = {name: pl.col(name).ne_missing(pl.col(f"{name}_new")) for name in compared}
    rows = common.filter(pl.any_horizontal(differs.values()))
    repairs = _repairs(rows, old_fates, "before").join(_repairs(rows, new_fates, "after"), on="id", how="full")
    repairs = repairs.select(pl.coalesce("id", "id_right").alias("id"), "before", "after")
    only_one = pl.col("before").fill_null([]).list.set_symmetric_difference(pl.col("after").fill_null([]))
    by_repair = differs["content"] & (only_one.list.len() > 0)
    # another content or system text always gives another rendering
    by_template = differs["rendering"] & (pl.lit(templates_differ) | ~(differs["content"] | differs["system"]))
    causes = [
        pl.when(by_repair).then(only_one.list.sort().list.join(", ")),
        pl.when(differs["content"] & ~by_repair).then(pl.lit(INPUT)),
        *(
            pl.when(applies).then(pl.lit(name))
            for applies, name in (
                (differs["system"], SYSTEM_TEXT),
                (by_template, TEMPLATE),
                (differs["source"], SOURCE),
                (differs["split"], SPLIT),
            )
        ),
    ]
    cause = pl.concat_str(causes, separator=", ", ignore_nulls=True)
    moved = pl.when(differs["split"]).then(pl.format("{} to {}", "split", "split_new"))
    changed = rows.join(repairs, on="id", how="left")
    return changed.select("id", "lang", cause.alias("rule"), moved.alias("detail")).sort("id")


def _repairs(rows: pl.DataFrame, fates: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return `id` and, as the column `name`, the rules that repaired a row, for the repaired ones among `rows`."""
    repaired = fates.filter(pl.col("repairs").list.len() > 0).join(rows.select("id"), on="id", how="semi")
    rules = pl.col("repairs").list.eval(pl.element().struct.field("rule"))
    return repaired.select("id", rules.alias(name)).unique("id")


def _language_counts(old: pl.DataFrame, new: pl.DataFrame) -> dict[str, tuple[int, int]]:
    before, after = (dict(frame.group_by("lang").len().rows()) for frame in (old, new))
    languages = sorted({*before, *after}, key=lambda lang: (-after.get(lang, 0), lang or ""))
    return {lang or "unknown": (before.get(lang, 0), after.get(lang, 0)) for lang in languages}
