"""Is a build what it says: checksums, schemas, counts, and the sum of its fates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from dataprep.contract import MANIFEST, BuildError, DamagedFile, open_build, read_manifest, verify
from dataprep.conversations import FATES, KEPT
from dataprep.errors import DamagedBuild, StoreError
from dataprep.shards import FATES_FILE, read_fates


def verify_build(folder: Path) -> dict[str, Any]:
    """Check the build in `folder` from its bytes to its counts.

    Returns: `name, version, path, rows, files` (checked) and `fates` (rows).

    Raises:
        DamagedBuild: names the file that is off.
    """
    try:
        verify(read_manifest(folder))  # before anything is parsed: a flipped bit can look like any format
        build = open_build(folder, check=False)
    except DamagedFile as fault:
        raise DamagedBuild(str(fault)) from None
    except BuildError as fault:
        raise StoreError(str(fault)) from None
    manifest = build.manifest
    fates = _sound_fates(folder)
    kept = fates.filter(pl.col("fate") == KEPT)
    for split, table in build.splits.items():
        ids = pl.Series(table["id"].to_pylist(), dtype=pl.String)
        expected = kept.filter(pl.col("rule") == split)["id"]
        if table.num_rows != manifest.splits[split]["rows"] or not ids.sort().equals(expected.sort()):
            raise DamagedBuild(f"{folder / split} holds other rows than {folder / FATES_FILE} says were kept.")
    try:
        rows, came_in, counted = (
            manifest.facts["rows"],
            manifest.facts["funnel"][0]["in"],
            manifest.facts["fates"][KEPT],
        )
    except (LookupError, TypeError):
        raise DamagedBuild(
            f"{folder / MANIFEST} lacks its counts: the build is damaged, rebuild it with --force."
        ) from None
    if rows != sum(table.num_rows for table in build.splits.values()):
        raise DamagedBuild(f"{folder / MANIFEST} says {rows} rows, and its shards hold others.")
    if fates.height != came_in or kept.height != counted or not fates["row"].is_unique().all():
        raise DamagedBuild(f"{folder / FATES_FILE} does not add up: {fates.height} fates, {kept.height} of them kept.")
    files = len(manifest.files) + sum(len(split["shards"]) for split in manifest.splits.values())
    return {
        "name": manifest.name,
        "version": manifest.version,
        "path": str(folder),
        "rows": rows,
        "files": files,
        "fates": fates.height,
    }


def _sound_fates(folder: Path) -> pl.DataFrame:
    fates = read_fates(folder)
    if fates.schema != pl.Schema(FATES):
        raise DamagedBuild(f"{folder / FATES_FILE} has other columns than fates have.")
    return fates
