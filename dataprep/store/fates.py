"""Write and read the fates and the near-duplicates of a build."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.common.errors import DamagedBuild
from dataprep.common.text import excerpt
from dataprep.tables import FATES

FATES_FILE = "fates/fates-00000.parquet"
DUPLICATES_FILE = "duplicates.parquet"

# Columns whose values repeat; for ids Parquet would begin a dictionary and give it up half-way.
_DICTIONARY_COLUMNS = ["kind", "source", "fate", "stage", "rule", "detail"]

_GROUP_ROWS = 1 << 16


def write_fates(folder: Path, fates: pl.DataFrame) -> None:
    """Write the fates of a build, in order of `row`."""
    path = folder / FATES_FILE
    path.parent.mkdir()
    order = fates["row"].arg_sort()
    fates = fates.with_columns(fates["repairs"].rechunk())  # a gather of lists from several chunks copies all of them
    schema = _to_arrow(fates.clear()).schema
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=_DICTIONARY_COLUMNS) as writer:
        for start in range(0, len(order), _GROUP_ROWS):  # one row group at a time is sorted and converted
            writer.write_table(_to_arrow(fates[order[start : start + _GROUP_ROWS]]))


def write_duplicates(folder: Path, pairs: pl.DataFrame) -> None:
    """Write the near-duplicates with both texts, if there are any: the columns of `near.duplicate_pairs`."""
    if not pairs.is_empty():
        _write_parquet(pairs, folder / DUPLICATES_FILE)


def _write_parquet(frame: pl.DataFrame, path: Path) -> None:
    pq.write_table(_to_arrow(frame), path, compression="zstd")


def _to_arrow(frame: pl.DataFrame) -> pa.Table:
    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


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
