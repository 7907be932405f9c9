"""The files of a build: its shards, fates, near-duplicates and manifest, as they are written and read."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.common.errors import DamagedBuild
from dataprep.contract import MANIFEST, SHARD_SCHEMA, sha256_of

FATES_FILE = "fates/fates-00000.parquet"
_REPEATING = ["kind", "source", "fate", "stage", "rule", "detail"]  # a dictionary of ids would be given up half-way
DUPLICATES_FILE = "duplicates.parquet"


def sync(path: Path) -> None:
    """Ask the disk to hold a file, or a folder's entries."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def plain_array(column: pl.Series, kind: pa.DataType) -> pa.Array:
    """A column as an Arrow array of `kind`, with plain strings and 32-bit offsets, which datasets maps without a copy.

    Lists are taken apart by hand: Polars would convert the values of the whole column for each slice of it.
    """
    if isinstance(column.dtype, pl.List):
        values = plain_array(column.explode(empty_as_null=False, keep_nulls=False), kind.value_type)
        lengths = column.list.len().fill_null(0)
        offsets = pl.concat([pl.Series([0], dtype=pl.Int32), lengths.cum_sum().cast(pl.Int32)])
        return pa.ListArray.from_arrays(offsets.to_arrow(), values, type=kind)
    if isinstance(column.dtype, pl.Struct):
        fields = [plain_array(column.struct.field(field.name), field.type) for field in kind]
        return pa.StructArray.from_arrays(fields, fields=list(kind))
    return column.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(kind)


_UNSUMMED = 64  # buffers that may wait for their checksum; they are held until then


class _SummedFile(io.RawIOBase):
    """A new file, and the SHA-256 of what is written to it, taken on the one thread of `pool` beside the writing."""

    def __init__(self, path: Path, pool: ThreadPoolExecutor) -> None:
        self._file = path.open("wb")
        self._sum = hashlib.sha256()
        self._pool = pool
        self._waiting: deque[Future[None]] = deque()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._waiting.append(self._pool.submit(self._sum.update, data))
        if len(self._waiting) > _UNSUMMED:
            self._waiting.popleft().result()
        return self._file.write(data)

    def seal(self) -> str:
        """Ask the disk to hold the file, close it, and return its checksum in hex."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._sum.hexdigest()


class ShardWriter:
    """Writes the shards of one split, each an Arrow IPC stream of at most about `max_bytes`.

    Checksums are taken, and full shards given to the disk, on a thread beside the writing.
    """

    def __init__(self, folder: Path, split: str, max_bytes: int) -> None:
        self._folder = folder / split
        self._split = split
        self._max_bytes = max_bytes
        self._done: list[tuple[Path, int]] = []
        self._sums: list[Future[str]] = []
        self._pool = ThreadPoolExecutor(1)
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._file: _SummedFile
        self._rows = self._bytes = 0
        self._folder.mkdir()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch of `SHARD_SCHEMA`, cut where a shard is full."""
        while batch.num_rows:
            size = max(batch.nbytes, 1)
            room = self._max_bytes - self._bytes
            rows = batch.num_rows if size <= room else max(int(batch.num_rows * room / size), 0 if self._rows else 1)
            if rows == 0:
                self._close()
                continue
            part = batch.slice(0, rows)
            self._open().write_batch(part)
            self._rows += rows
            self._bytes += max(part.nbytes, 1)
            batch = batch.slice(rows)

    def _open(self) -> pa.RecordBatchStreamWriter:
        if self._writer is None:
            self._file = _SummedFile(self._folder / f"part-{len(self._done):05d}", self._pool)
            self._writer = pa.ipc.new_stream(self._file, SHARD_SCHEMA)
        return self._writer

    def _close(self) -> None:
        path = self._folder / f"part-{len(self._done):05d}"
        assert self._writer is not None
        self._writer.close()
        self._done.append((path, self._rows))
        self._sums.append(self._pool.submit(self._file.seal))
        self._writer, self._rows, self._bytes = None, 0, 0

    def finish(self, fingerprint: str) -> dict[str, Any]:
        """Close the last shard, write datasets' own files, and return the split's entry for the manifest."""
        if self._writer is not None or not self._done:
            self._open()
            self._close()
        shards: list[dict[str, Any]] = []
        for place, ((path, rows), checksum) in enumerate(zip(self._done, self._sums, strict=True)):
            name = f"data-{place:05d}-of-{len(self._done):05d}.arrow"
            summed = checksum.result()  # the file is whole now
            facts = {"rows": rows, "bytes": path.stat().st_size, "sha256": summed}
            path.rename(self._folder / name)
            shards.append({"file": f"{self._split}/{name}", **facts})
        self._pool.shutdown()
        write_json(self._folder / "dataset_info.json", dataset_info())
        write_json(
            self._folder / "state.json", _state([Path(s["file"]).name for s in shards], fingerprint, self._split)
        )
        return {"rows": sum(rows for _, rows in self._done), "shards": shards}


def dataset_info() -> dict[str, Any]:
    """datasets' dataset_info.json for `SHARD_SCHEMA`: what `Features.to_dict()` gives, without importing datasets."""
    features = {field.name: _feature(field.type) for field in SHARD_SCHEMA}
    return {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": str(kind), "_type": "Value"}


def _state(files: list[str], fingerprint: str, split: str) -> dict[str, Any]:
    return {
        "_data_files": [{"filename": file} for file in files],
        "_fingerprint": fingerprint,
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": split,
    }


def write_fates(folder: Path, fates: pl.DataFrame) -> None:
    """Write the fates of a build, in order of `row`."""
    path = folder / FATES_FILE
    path.parent.mkdir()
    _write_parquet(fates.sort("row"), path, use_dictionary=_REPEATING)


def write_duplicates(folder: Path, pairs: pl.DataFrame) -> None:
    """Write near-duplicates with the texts on both sides, where there are any: columns of `build.duplicate_pairs`."""
    if not pairs.is_empty():
        _write_parquet(pairs, folder / DUPLICATES_FILE)


def read_duplicates(folder: Path) -> pl.DataFrame | None:
    """The near-duplicates of the build in `folder`; None where it has none."""
    path = folder / DUPLICATES_FILE
    return _read_parquet(path) if path.exists() else None


def read_fates(folder: Path, columns: list[str] | None = None) -> pl.DataFrame:
    """The fates of the build in `folder`: columns of `conversations.FATES`, or some of them."""
    return _read_parquet(folder / FATES_FILE, columns)


def _write_parquet(frame: pl.DataFrame, path: Path, **options: Any) -> None:
    pq.write_table(frame.to_arrow(compat_level=pl.CompatLevel.oldest()), path, compression="zstd", **options)


def _read_parquet(path: Path, columns: list[str] | None = None) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, columns=columns, glob=False)
    except (OSError, pl.exceptions.PolarsError) as fault:
        raise DamagedBuild(f"{path} cannot be read ({fault}): the build is damaged, rebuild it with --force.") from None


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest, with every other file of `folder` in it by size and checksum; it is the last file written."""
    shards = {shard["file"] for split in facts["splits"].values() for shard in split["shards"]}
    others = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    files = {file: _seal(folder / file) for file in others if file not in shards}
    write_json(folder / MANIFEST, {**facts, "files": files})
    sync(folder / MANIFEST)


def _seal(path: Path) -> dict[str, Any]:
    sync(path)
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def write_dataset_dict(folder: Path, splits: Iterable[str]) -> None:
    """Write datasets' dataset_dict.json."""
    write_json(folder / "dataset_dict.json", {"splits": list(splits)})


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
