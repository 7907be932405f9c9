"""Write and read the fates and the near-duplicates of a build."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from dataprep.common.errors import DamagedBuild
from dataprep.common.text import excerpt
from dataprep.tables import FATES

FATES_FILE = "fates/fates-00000.parquet"
DUPLICATES_FILE = "duplicates.parquet"

# Columns whose values repeat; for ids Parquet would begin a dictionary and give it up half-way.
_DICTIONARY_COLUMNS = ["kind", "source", "fate", "stage", "rule", "detail"]


def write_fates(folder: Path, fates: pl.DataFrame) -> None:
    """Write the fates of a build, in order of `row`."""
    path = folder / FATES_FILE
    path.parent.mkdir()
    _write_parquet(fates.sort("row"), path, use_dictionary=_DICTIONARY_COLUMNS)


def write_duplicates(folder: Path, pairs: pl.DataFrame) -> None:
    """Write the near-duplicates with both texts, if there are any: the columns of `near.duplicate_pairs`."""
    if not pairs.is_empty():
        _write_parquet(pairs, folder / DUPLICATES_FILE)


def _write_parquet(frame: pl.DataFrame, path: Path, **options: Any) -> None:
    pq.write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), path, compression="zstd", **options)


def read_fates(folder: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """Return the fates of the build in `folder`: the columns of `tables.FATES`, or some of them.

    Raises:
        DamagedBuild: the file cannot be read, or has other columns.
    """
    path = folder / FATES_FILE
    fates = _read_parquet(path, columns)
    if fates.schema != pl.Schema({name: FATES[name] for name in columns or FATES}):
        raise DamagedBuild(f"{path} has other columns than fates have: the build is damaged, rebuild it with --force.")
    return fates


def read_duplicates(folder: Path) -> pl.DataFrame | None:
    """Return the near-duplicates of the build in `folder`; None where it has none.

    Raises:
        DamagedBuild: the file cannot be read.
    """
    path = folder / DUPLICATES_FILE
    return _read_parquet(path) if path.exists() else None


def _read_parquet(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, columns=columns, glob=False)
    except (OSError, pl.exceptions.PolarsError) as fault:
        raise DamagedBuild(
            f"{path} cannot be read ({excerpt(str(fault))}): the build is damaged, rebuild it with --force."
        ) from None
