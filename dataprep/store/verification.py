"""Is a build what it says: checksums, schemas, counts, and the sums of its fates, stage by stage."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import polars as pl

from dataprep.common.errors import DamagedBuild
from dataprep.common.funnel import fate_counts, funnel_of, language_counts
from dataprep.contract import MANIFEST, Build, Manifest, open_build, read_manifest, verify
from dataprep.store.shards import FATES_FILE, read_fates
from dataprep.tables import FATES, KEPT

_VERSION = re.compile("[0-9a-f]{12}")
_CACHE = re.compile(r"\w+/(cache-.*\.arrow|tmp\w+)")  # what datasets puts beside the shards of a split


def verify_build(folder: Path) -> dict[str, Any]:
    """Check the build in `folder` from its bytes to its counts.

    Returns: `name, version, path, rows, files` (checked) and `fates` (rows).

    Raises:
        DamagedBuild: names the file that is off.
    """
    try:
        manifest = read_manifest(folder)
        verify(manifest)  # before anything is parsed: a flipped bit can look like any format
        build = open_build(folder, check=False)
        _check_files(manifest)
        _check_version(manifest)
        fates = _sound_fates(folder)
        _check_rows(build, fates)
        _check_counts(build, fates)
    except (LookupError, TypeError, AttributeError) as fault:  # JSON, but of another shape
        raise DamagedBuild(
            f"{folder / MANIFEST} lacks what a manifest has ({fault}): the build is damaged, rebuild it with --force."
        ) from fault
    return {
        "name": manifest.name,
        "version": manifest.version,
        "path": str(folder),
        "rows": sum(table.num_rows for table in build.splits.values()),
        "files": len(_named(manifest)) - 1,
        "fates": fates.height,
    }


def _named(manifest: Manifest) -> set[str]:
    """The files of a build by its manifest, which is one of them."""
    shards = {shard["file"] for split in manifest.splits.values() for shard in split["shards"]}
    return {MANIFEST, *shards, *manifest.files}


def _check_files(manifest: Manifest) -> None:
    """No file of a build is without a checksum, and none of those that make it one is left out."""
    named = _named(manifest)
    needed = {"dataset_dict.json", "template.jinja", FATES_FILE}
    needed |= {f"{split}/{name}" for split in manifest.splits for name in ("state.json", "dataset_info.json")}
    for name in sorted(needed - named):
        raise DamagedBuild(
            f"{manifest.path / MANIFEST} does not name {name}: the build is damaged, rebuild with --force."
        )
    paths = (path.relative_to(manifest.path) for path in manifest.path.rglob("*") if path.is_file())
    for path in sorted(path.as_posix() for path in paths if not path.name.startswith(".")):
        if path not in named and not _CACHE.fullmatch(path):
            raise DamagedBuild(
                f"{manifest.path / path} is in no entry of {MANIFEST}: move away what is no part of the build, "
                "or rebuild it with --force."
            )


def _check_version(manifest: Manifest) -> None:
    """The manifest's version is the one that the shards were written under, and the folder's, if that is called by one."""
    folder = manifest.path.resolve().name
    if _VERSION.fullmatch(folder) and folder != manifest.version:
        raise DamagedBuild(f"{manifest.path / MANIFEST} is the one of version {manifest.version}, not of {folder}.")
    for split in manifest.splits:
        state = json.loads((manifest.path / split / "state.json").read_bytes())
        if state["_fingerprint"] != f"{manifest.version}-{split}":
            raise DamagedBuild(
                f"{manifest.path / MANIFEST} says version {manifest.version}, and {split}/state.json "
                f"was written under {state['_fingerprint']}."
            )


def _check_rows(build: Build, fates: pl.DataFrame) -> None:
    """Each split has the rows that were kept for it."""
    kept = fates.filter(pl.col("fate") == KEPT)
    for split, table in build.splits.items():
        ids = pl.Series(table["id"].to_pylist(), dtype=pl.String)
        expected = kept.filter(pl.col("rule") == split)["id"]
        if table.num_rows != build.manifest.splits[split]["rows"] or not ids.sort().equals(expected.sort()):
            raise DamagedBuild(f"{build.path / split} holds other rows than {build.path / FATES_FILE} says were kept.")


def _check_counts(build: Build, fates: pl.DataFrame) -> None:
    """The counts of the manifest, its funnel among them, are those of the fates and the shards."""
    if not fates["row"].is_unique().all():
        raise DamagedBuild(f"{build.path / FATES_FILE} gives a record more than one fate.")
    rows = sum(table.num_rows for table in build.splits.values())
    counted = {
        "rows": rows,
        **fate_counts(fates),
        "languages": language_counts(pl.Series("lang", table["lang"], pl.String) for table in build.splits.values()),
        "funnel": funnel_of(fates),
    }
    for name, found in counted.items():
        if build.manifest.facts[name] != found:
            raise DamagedBuild(
                f"The {name} in {build.path / MANIFEST} are not what {FATES_FILE} and the shards add up to."
            )
    if counted["funnel"][-1]["out"] != rows:
        raise DamagedBuild(
            f"{build.path / FATES_FILE} does not add up: {counted['funnel'][-1]['out']} left for {rows} rows."
        )


def _sound_fates(folder: Path) -> pl.DataFrame:
    fates = read_fates(folder)
    if fates.schema != pl.Schema(FATES):
        raise DamagedBuild(f"{folder / FATES_FILE} has other columns than fates have.")
    return fates
