"""Write the shards of a build: Arrow IPC streams that `datasets.load_from_disk` maps without a copy."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.common.arrow import numbers, to_numpy
from dataprep.contract import SHARD_SCHEMA, ShardEntry, SplitEntry
from dataprep.store.manifest import write_json

_MAX_PENDING = 128  # buffers that may wait to be written or for their checksum; they stay in memory until then


def plain_array(column: pl.Series, kind: pa.DataType) -> pa.Array:
    """Convert a column to an Arrow array of `kind`, with plain strings and 32-bit offsets.

    Lists are converted part by part: Polars would convert the values of the whole column for each slice of it.
    """
    if isinstance(column.dtype, pl.List):
        values = plain_array(column.explode(empty_as_null=False, keep_nulls=False), kind.value_type)
        lengths = column.list.len().fill_null(0)
        offsets = pl.concat([pl.Series([0], dtype=pl.Int32), lengths.cum_sum().cast(pl.Int32)])
        return pa.ListArray.from_arrays(offsets.to_arrow(), values, type=kind)
    if isinstance(column.dtype, pl.Struct):
        fields = [plain_array(column.struct.field(field.name), field.type) for field in kind]
        return pa.StructArray.from_arrays(fields, fields=list(kind))
    return _with_clean_validity(column.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(kind))


def _with_clean_validity(array: pa.Array) -> pa.Array:
    """Return an equal array of texts, numbers or booleans whose validity bitmap has only zeros after its last row.

    Those bits have no meaning and depend on how a column was computed, but they are written to the shards.
    """
    if not array.null_count:
        return array
    if array.offset:
        array = array.take(numbers(np.arange(len(array))))
    is_valid = np.packbits(to_numpy(array.is_valid()), bitorder="little")
    return pa.Array.from_buffers(array.type, len(array), [pa.py_buffer(is_valid), *array.buffers()[1:]])


class _HashedFile(io.RawIOBase):
    """A new file that is written on one thread while its SHA-256 is computed on another."""

    def __init__(self, path: Path, writer: ThreadPoolExecutor, hasher: ThreadPoolExecutor) -> None:
        """`writer` and `hasher` have one thread each, which takes the buffers in order."""
        self._file = path.open("wb")
        self._hash = hashlib.sha256()
        self._writer, self._hasher = writer, hasher
        self._pending: deque[Future[Any]] = deque()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        """Take the next buffer.

        Raises:
            OSError: an earlier one could not be written.
        """
        self._pending += self._writer.submit(self._file.write, data), self._hasher.submit(self._hash.update, data)
        while len(self._pending) > _MAX_PENDING:
            self._pending.popleft().result()
        return len(data)

    def seal(self) -> str:
        """Wait until all is written, flush the file to disk, close it, and return its checksum in hex.

        Raises:
            OSError: a buffer could not be written.
        """
        for future in self._pending:
            future.result()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest()


class ShardWriter:
    """Writes the shards of one split, each an Arrow IPC stream of at most about `max_bytes`.

    One thread beside the caller's writes; another computes checksums and flushes full shards to disk.
    """

    def __init__(self, folder: Path, split: str, max_bytes: int, schema: pa.Schema = SHARD_SCHEMA) -> None:
        self._folder = folder / split
        self._schema = schema
        self._file_schema = file_schema(schema)
        self._split = split
        self._max_bytes = max_bytes
        self._finished: list[tuple[Path, int]] = []  # the path and rows of each finished shard
        self._checksums: list[Future[str]] = []
        self._writer_thread, self._hasher_thread = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._writer: pa.RecordBatchStreamWriter | None = None
        self._file: _HashedFile
        self._rows = self._bytes = 0
        self._folder.mkdir()

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch of the writer's schema, cut where a shard is full."""
        while batch.num_rows:
            size = max(batch.nbytes, 1)
            free = self._max_bytes - self._bytes
            rows = batch.num_rows if size <= free else max(int(batch.num_rows * free / size), 0 if self._rows else 1)
            if rows == 0:
                self._close()
                continue
            part = batch.slice(0, rows)
            self._open().write_batch(part if self._file_schema is self._schema else part.cast(self._file_schema))
            self._rows += rows
            self._bytes += max(part.nbytes, 1)
            batch = batch.slice(rows)

    def _open(self) -> pa.RecordBatchStreamWriter:
        if self._writer is None:
            path = self._folder / f"part-{len(self._finished):05d}"
            self._file = _HashedFile(path, self._writer_thread, self._hasher_thread)
            self._writer = pa.ipc.new_stream(self._file, self._file_schema)
        return self._writer

    def _close(self) -> None:
        path = self._folder / f"part-{len(self._finished):05d}"
        assert self._writer is not None
        self._writer.close()
        self._finished.append((path, self._rows))
        self._checksums.append(self._hasher_thread.submit(self._file.seal))
        self._writer, self._rows, self._bytes = None, 0, 0

    def finish(self, fingerprint: str) -> SplitEntry:
        """Close the last shard, write the files that `datasets` reads, and return the split's entry in the manifest."""
        if self._writer is not None or not self._finished:
            self._open()
            self._close()
        shards: list[ShardEntry] = []
        for number, ((path, rows), checksum) in enumerate(zip(self._finished, self._checksums, strict=True)):
            name = f"data-{number:05d}-of-{len(self._finished):05d}.arrow"
            sha256 = checksum.result()  # the file is whole now
            shards.append(
                {"file": f"{self._split}/{name}", "rows": rows, "bytes": path.stat().st_size, "sha256": sha256}
            )
            path.rename(self._folder / name)
        self._writer_thread.shutdown()
        self._hasher_thread.shutdown()
        write_json(self._folder / "dataset_info.json", dataset_info(self._schema))
        files = [Path(shard["file"]).name for shard in shards]
        write_json(self._folder / "state.json", _state(files, fingerprint, self._split))
        return {"rows": sum(rows for _, rows in self._finished), "shards": shards}


JSON_COLUMNS = ("tools", "tool_calls")  # strings that `datasets` decodes into Python objects


def dataset_info(schema: pa.Schema = SHARD_SCHEMA) -> dict[str, Any]:
    """Return the dataset_info.json of a schema, equal to `Features.to_dict()` without importing datasets."""
    return {"citation": "", "description": "", "features": _features(schema), "homepage": "", "license": ""}


def file_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of a shard's file: columns of JSON text are marked as such, so that datasets decodes them.

    The mark is Arrow's extension type `arrow.json`, whose storage is a plain string, and the features in the metadata. A
    schema without such columns stays as it is.
    """
    features = json.dumps({"info": {"features": _features(schema)}})
    if '"Json"' not in features:
        return schema
    return pa.schema(map(_json_field, schema), {"huggingface": features})


def _json_field(field: pa.Field) -> pa.Field:
    if field.name in JSON_COLUMNS:
        return field.with_type(pa.json_(pa.string()))
    if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
        return field.with_type(pa.list_(pa.struct(list(map(_json_field, field.type.value_type)))))
    return field


def _features(fields: Iterable[pa.Field]) -> dict[str, Any]:
    return {field.name: {"_type": "Json"} if field.name in JSON_COLUMNS else _feature(field.type) for field in fields}


def _feature(kind: pa.DataType) -> dict[str, Any]:
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return _features(kind)
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


def write_dataset_dict(folder: Path, splits: Iterable[str]) -> None:
    """Write the dataset_dict.json that `datasets.load_from_disk` reads."""
    write_json(folder / "dataset_dict.json", {"splits": list(splits)})
