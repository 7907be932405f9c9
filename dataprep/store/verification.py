"""Check that a build is what it says: checksums, schemas, counts, and the funnel, stage by stage."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, TypedDict

import polars as pl

from dataprep.common.errors import DamagedBuild
from dataprep.common.funnel import fate_counts, funnel_of, language_counts
from dataprep.common.jsonfile import InvalidJson, read_json
from dataprep.contract import MANIFEST, Build, Manifest, open_build, read_manifest, verify
from dataprep.store.fates import FATES_FILE, read_fates
from dataprep.tables import KEPT

_VERSION = re.compile("[0-9a-f]{12}")
_DATASETS_CACHE = re.compile(r"\w+/(cache-.*\.arrow|tmp\w+)")  # what datasets writes beside the shards of a split


class Verified(TypedDict):
    """What `verify_build` checked: the number of `files` and `fates`, and of the `rows` in all splits."""

    name: str
    version: str
    path: str
    rows: int
    files: int
    fates: int


def verify_build(folder: Path, *, record: bool = True) -> Verified:
    """Check the build in `folder`, from its bytes to its counts; `record` as in `contract.verify`.

    Raises:
        DamagedBuild: names the file that is wrong.
        BuildError: there is no build.
    """
    manifest = read_manifest(folder)
    verify(manifest, record=record)  # before anything is parsed: with a flipped bit any file can look like any format
    build = open_build(folder, check=False)
    _check_files(manifest)
    _check_version(manifest)
    fates = read_fates(folder)
    _check_rows(build, fates)
    _check_counts(build, fates)
    return {
        "name": manifest.name,
        "version": manifest.version,
        "path": str(folder),
        "rows": sum(table.num_rows for table in build.splits.values()),
        "files": len(dict(manifest.entries())),
        "fates": fates.height,
    }


def _check_files(manifest: Manifest) -> None:
    """Check that every file of the folder has a checksum, and that no file of a build is missing from the manifest."""
    named = {MANIFEST, *(file for file, _ in manifest.entries())}
    needed = {"dataset_dict.json", "template.jinja", FATES_FILE}
    needed |= {f"{split}/{name}" for split in manifest.splits for name in ("state.json", "dataset_info.json")}
    for name in sorted(needed - named):
        raise DamagedBuild(
            f"{manifest.path / MANIFEST} does not name {name}: the build is damaged, rebuild with --force."
        )
    paths = (path.relative_to(manifest.path) for path in manifest.path.rglob("*") if path.is_file())
    for file in sorted(path.as_posix() for path in paths if not path.name.startswith(".")):
        if file not in named and not _DATASETS_CACHE.fullmatch(file):
            raise DamagedBuild(
                f"{manifest.path / file} is in no entry of {MANIFEST}: move it away if it is not part of the build, "
                "or rebuild with --force."
            )


def _check_version(manifest: Manifest) -> None:
    """Check that the shards, and the folder if it is named by a version, are of the manifest's version."""
    folder = manifest.path.resolve().name
    if _VERSION.fullmatch(folder) and folder != manifest.version:
        raise DamagedBuild(f"{manifest.path / MANIFEST} is the one of version {manifest.version}, not of {folder}.")
    for split in manifest.splits:
        path = manifest.path / split / "state.json"
        try:
            fingerprint = read_json(path, dict[str, Any]).get("_fingerprint")
        except InvalidJson as fault:
            raise DamagedBuild(f"{path} {fault}: the build is damaged, rebuild it with --force.") from None
        if fingerprint != f"{manifest.version}-{split}":
            raise DamagedBuild(
                f"{manifest.path / MANIFEST} has version {manifest.version}, and {split}/state.json was written for "
                f"{fingerprint}."
            )


def _check_rows(build: Build, fates: pl.DataFrame) -> None:
    """Check that each split has exactly the rows that were kept for it."""
    kept = fates.filter(pl.col("fate") == KEPT)
    for split, table in build.splits.items():
        ids = pl.Series(table["id"].to_pylist(), dtype=pl.String)
        expected = kept.filter(pl.col("rule") == split)["id"]
        if table.num_rows != build.manifest.splits[split]["rows"] or not ids.sort().equals(expected.sort()):
            raise DamagedBuild(f"{build.path / split} has other rows than those kept by {build.path / FATES_FILE}.")


def _check_counts(build: Build, fates: pl.DataFrame) -> None:
    """Check that the counts in the manifest, its funnel among them, are those of the fates and the shards."""
    if not fates["row"].is_unique().all():
        raise DamagedBuild(f"{build.path / FATES_FILE} gives a record more than one fate.")
    rows = sum(table.num_rows for table in build.splits.values())
    funnel = funnel_of(fates)
    counted: dict[str, Any] = {
        "rows": rows,
        **fate_counts(fates),
        "languages": language_counts(pl.Series("lang", table["lang"], pl.String) for table in build.splits.values()),
        "funnel": funnel,
    }
    manifest: dict[str, Any] = {**build.manifest.complete()}
    for name, count in counted.items():
        if manifest[name] != count:
            raise DamagedBuild(
                f"The {name} in {build.path / MANIFEST} differ from what {FATES_FILE} and the shards add up to."
            )
    if funnel[-1]["out"] != rows:
        raise DamagedBuild(f"{build.path / FATES_FILE} does not add up: {funnel[-1]['out']} kept for {rows} rows.")
