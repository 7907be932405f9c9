"""The versions of a store: which there are, what changed between two of them, and which may go."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dataprep.common.errors import BuildError, StoreError
from dataprep.contract import Build, Manifest, read_manifest
from dataprep.store import builds as store
from dataprep.store import shards
from dataprep.tables import KEPT, SYSTEM

RUN = "run.json"  # what a training run leaves; its `provenance` names the build (`bond` in older files)
RUNS = "runs"  # where runs lie by default: beside the store, or where training was started

# What made a row differ where no rule did.
NOT_IN_INPUT = "not in the input"
INPUT = "input"  # what was read
SYSTEM_TEXT = "system"  # the text that the option --system gives to conversations without one
SOURCE = "source"  # the name of the file that it is from
TEMPLATE = "template"  # how it was rendered
SPLIT = "split"  # where it was put

# The columns of a row by what would change them; messages, source, split and id are looked at by themselves.
_SAID = ("tree_id", "lang", "message_ids")
_RENDERED = ("text", "spans", "controls")

_OF_FATES = ["kind", "id", "fate", "rule", "detail", "repairs"]  # the columns that a diff looks at


def listing(store_dir: Path) -> list[dict[str, Any]]:
    """Every version in a store, by name and then by age.

    Returns: for each `name, version, latest, created, parent, rows, splits, bytes, template, gate, path`; for one whose
    manifest cannot be read only `name, version, latest, path` and `problem`.
    """
    return [
        facts
        for name in store.names(store_dir)
        for facts in sorted(_of_name(store_dir, name), key=lambda facts: (facts.get("created", ""), facts["version"]))
    ]


def _of_name(store_dir: Path, name: str) -> list[dict[str, Any]]:
    latest = store.latest_version(store_dir, name)
    return [
        {"name": name, "version": version, "latest": version == latest, **_facts(store_dir / name / version)}
        for version in store.versions(store_dir, name)
    ]


def _facts(folder: Path) -> dict[str, Any]:
    try:
        manifest = read_manifest(folder)
    except BuildError as fault:
        return {"path": str(folder), "problem": str(fault)}
    return {
        "created": manifest.facts.get("created", ""),
        "parent": manifest.facts.get("parent"),
        "rows": sum(split["rows"] for split in manifest.splits.values()),
        "splits": {split: facts["rows"] for split, facts in manifest.splits.items()},
        "bytes": sum(size_of(manifest).values()),
        "template": manifest.template.get("name"),
        "gate": manifest.gate,
        "path": str(folder),
    }


def size_of(manifest: Manifest) -> dict[str, int]:
    """Bytes of each file that a manifest names."""
    shards = {shard["file"]: shard["bytes"] for split in manifest.splits.values() for shard in split["shards"]}
    return shards | {file: facts["bytes"] for file, facts in manifest.files.items()}


@dataclass(frozen=True)
class Difference:
    """What changed from one version to another.

    `recipe`: (before, after) of each option and fact of the making that differs. `added`, `removed`, `changed`: frames
    `id, lang, rule, detail`; `rule` is the one that kept a row out of the version it is missing from, the repairs that
    only one version made, or one of the constants of this module.
    `languages`: (rows before, rows after) by language.
    """

    rows: tuple[int, int]
    recipe: Mapping[str, tuple[Any, Any]]
    added: pl.DataFrame
    removed: pl.DataFrame
    changed: pl.DataFrame
    languages: Mapping[str, tuple[int, int]]

    def as_json(self) -> dict[str, Any]:
        """All of it as JSON values, with `rules`: how many rows each rule added, removed or changed."""
        kinds = {"added": self.added, "removed": self.removed, "changed": self.changed}
        return {
            "rows": self.rows,
            "recipe": self.recipe,
            "languages": self.languages,
            "rules": {kind: by_rule(frame) for kind, frame in kinds.items()},
            **{kind: frame.to_dicts() for kind, frame in kinds.items()},
        }


def by_rule(frame: pl.DataFrame) -> dict[str, int]:
    """Rows of each rule, most first."""
    return dict(frame.group_by("rule").len().sort("len", "rule", descending=[True, False]).rows())


def diff(before: Build, after: Build) -> Difference:
    """What changed between two versions, of the same or of different names."""
    systems = [build.manifest.recipe.get("system") for build in (before, after)]
    apart = systems[0] != systems[1]
    with ThreadPoolExecutor(2) as pool:  # Polars leaves Python's lock, and its conversion from Arrow takes one core
        rows = pool.map(_rows, (before, after), systems if apart else (None, None))
        fates = pool.map(lambda build: shards.read_fates(build.path, _OF_FATES), (before, after))
        (old, new), (old_fates, new_fates) = rows, fates
    both = old.join(new, on="id", how="inner", suffix="_new")
    return Difference(
        rows=(old.height, new.height),
        recipe=_recipe_changes(before.manifest, after.manifest),
        added=_reasons(new.join(old, on="id", how="anti"), old_fates),
        removed=_reasons(old.join(new, on="id", how="anti"), new_fates),
        changed=_changes(both, old_fates, new_fates),
        languages=_languages(old, new),
    )


def _rows(build: Build, system: str | None) -> pl.DataFrame:
    """`id, lang, split, source`, and 64-bit hashes of what a row says (`said`) and of how it is rendered (`rendered`).

    Hashes stand for contents: two large versions are a gigabyte to join, and two numbers a row are not. Polars' own are
    the quickest; that they differ from release to release does no harm inside one process.

    A turn that says what the option `system` gives is no part of `said`, but in a column `system` of its own.
    """
    messages, given = pl.col("messages"), pl.lit(None, pl.String)
    if system is not None:
        turn = messages.list.first().struct
        is_given = (turn.field("role") == SYSTEM) & (turn.field("content") == system)
        messages = pl.when(is_given).then(messages.list.slice(1)).otherwise(messages)
        given = pl.when(is_given).then(pl.lit(system))
    frames = [
        pl.DataFrame(table).select(
            "id",
            "lang",
            "source",
            pl.lit(name).alias("split"),
            given.alias("system"),
            _hash(messages, *map(pl.col, _SAID)).alias("said"),
            _hash(*map(pl.col, _RENDERED)).alias("rendered"),
        )
        for name, table in build.splits.items()
    ]
    return pl.concat(frames)


def _hash(*columns: pl.Expr) -> pl.Expr:
    return pl.struct(column.hash().alias(str(number)) for number, column in enumerate(columns)).hash()


def _recipe_changes(before: Manifest, after: Manifest) -> dict[str, tuple[Any, Any]]:
    old, new = _making(before), _making(after)
    changes = {key: (old.get(key), new.get(key)) for key in [*old, *(key for key in new if key not in old)]}
    return {key: pair for key, pair in changes.items() if pair[0] != pair[1]}


def _making(manifest: Manifest) -> dict[str, Any]:
    """What a version was made by: its recipe, the bytes it read, the template's text, and the programs."""
    facts = manifest.facts
    return {
        **manifest.recipe,
        "contents of sources": [f"{file['name']} {file['digest'][:12]}" for file in facts.get("sources", [])],
        "text of the template": manifest.template.get("sha256", "")[:12],
        "dataprep": facts.get("dataprep"),
        **facts.get("libraries", {}),
    }


def _reasons(rows: pl.DataFrame, fates: pl.DataFrame) -> pl.DataFrame:
    """Why `rows` are not in the version that `fates` is of: `id, lang, rule, detail`, by id."""
    wanted = fates.filter(pl.col("fate") != KEPT).sort("kind").unique("id", keep="first")
    rule = pl.coalesce("rule", "fate", pl.lit(NOT_IN_INPUT))
    return rows.join(wanted, on="id", how="left").select("id", "lang", rule.alias("rule"), "detail").sort("id")


def _changes(both: pl.DataFrame, old_fates: pl.DataFrame, new_fates: pl.DataFrame) -> pl.DataFrame:
    """Rows of both versions that differ, and by what: `id, lang, rule, detail`, by id."""
    causes = ("said", "system", "rendered", "source", "split")
    differs = {name: pl.col(name).ne_missing(pl.col(f"{name}_new")) for name in causes}
    rows = both.filter(pl.any_horizontal(differs.values()))
    repairs = _repairs(rows, old_fates, "before").join(_repairs(rows, new_fates, "after"), on="id", how="full")
    told = rows.join(repairs.select(pl.coalesce("id", "id_right").alias("id"), "before", "after"), on="id", how="left")
    only_one = pl.col("before").fill_null([]).list.set_symmetric_difference(pl.col("after").fill_null([]))
    rule = (
        pl.when(differs["said"] & (only_one.list.len() > 0))
        .then(only_one.list.sort().list.join(", "))
        .when(differs["said"])
        .then(pl.lit(INPUT))
        .when(differs["system"])
        .then(pl.lit(SYSTEM_TEXT))
        .when(differs["rendered"])
        .then(pl.lit(TEMPLATE))
        .when(differs["source"])
        .then(pl.lit(SOURCE))
        .otherwise(pl.lit(SPLIT))
    )
    moved = pl.when(differs["split"]).then(pl.format("{} to {}", "split", "split_new"))
    return told.select("id", "lang", rule.alias("rule"), moved.alias("detail")).sort("id")


def _repairs(rows: pl.DataFrame, fates: pl.DataFrame, name: str) -> pl.DataFrame:
    """`id` and, as `name`, the rules that repaired it, for those of `rows` that were repaired."""
    repaired = fates.filter(pl.col("repairs").list.len() > 0).join(rows.select("id"), on="id", how="semi")
    rules = pl.col("repairs").list.eval(pl.element().struct.field("rule"))
    return repaired.select("id", rules.alias(name)).unique("id")


def _languages(old: pl.DataFrame, new: pl.DataFrame) -> dict[str, tuple[int, int]]:
    counts = [dict(frame.group_by("lang").len().rows()) for frame in (old, new)]
    known = sorted({*counts[0], *counts[1]}, key=lambda lang: (-counts[1].get(lang, 0), lang or ""))
    return {lang or "unknown": (counts[0].get(lang, 0), counts[1].get(lang, 0)) for lang in known}


def gc(store_dir: Path, keep: int = 3, *, dry_run: bool = False) -> list[tuple[Path, int]]:
    """Remove old versions and the remains of killed builds: what goes, with its bytes.

    Of each name stay the `keep` newest versions, the one that `latest` points to, those that a training run was made
    from, and those whose manifest cannot be read.

    Raises:
        StoreError: `keep` is negative, there is no such store, or a run.json does not tell its build.
    """
    if keep < 0:
        raise StoreError(f"--keep is {keep}, and must not be negative.")
    if not store_dir.is_dir():
        raise StoreError(f"There is no store {store_dir}.")
    trained = trained_on(store_dir)

    def old(name: str) -> list[str]:
        known = [facts for facts in _of_name(store_dir, name) if "problem" not in facts]
        by_age = sorted(known, key=lambda f: (f["created"], f["latest"], f["version"]), reverse=True)
        return [f["version"] for f in by_age[keep:] if not f["latest"] and f["version"] not in trained]

    return [
        gone
        for name in store.names(store_dir)
        for gone in store.collect(store_dir, name, lambda name=name: old(name), dry_run=dry_run)  # type: ignore[misc]
    ]


def trained_on(store_dir: Path) -> set[str]:
    """The versions that training runs in or beside the store, or below ./runs, were made from.

    Raises:
        StoreError: a run.json that does not say which.
    """
    places = {place.resolve() for place in (store_dir, store_dir.parent / RUNS, Path(RUNS)) if place.is_dir()}
    found = set()
    folders = (walked for place in places for walked in os.walk(place))  # which passes over what a writer takes away
    for path in sorted(Path(home) / RUN for home, _, files in folders if RUN in files):
        try:
            record = json.loads(path.read_bytes())
            found.add(str((record["bond"] if "bond" in record else record["provenance"])["version"]))
        except (OSError, ValueError, LookupError, TypeError):
            raise StoreError(
                f"{path} does not tell which build its run was made from, so nothing is removed: mend it or move it away."
            ) from None
    return found
