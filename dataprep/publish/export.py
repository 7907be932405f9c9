"""A build's rows in the shapes that other programs read: Parquet or JSON lines, in one of four layouts.

| layout | columns | read by |
|---|---|---|
| text | `text` | notebooks around mlabonne/guanaco-llama2-1k, trl |
| messages | `messages` of role and content, and where a row is from | trl, transformers, axolotl, dataprep |
| sharegpt | `conversations` of from and value, and where a row is from | axolotl, LLaMA-Factory, dataprep |
| full | all columns of a build | training on spans, dataprep |

Rows are sorted by id, and Parquet pages are cut where the content says so: from one version to the next, most bytes
stay the same, and a store that knows them (the Hub's) takes only the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from dataprep.common.errors import StoreError
from dataprep.contract import SHARD_SCHEMA, Build
from dataprep.store.builds import telling_os_errors
from dataprep.store.shards import plain_array
from dataprep.tables import ASSISTANT, SYSTEM, USER

Format = Literal["parquet", "jsonl"]
Layout = Literal["text", "messages", "sharegpt", "full"]

DATA = "data"  # the folder of the files
SHARD_BYTES = 500_000_000  # of Arrow data in one file: what `datasets` takes
ROW_GROUP_BYTES = 64_000_000  # what a reader must hold at once

# How Parquet is written, here and in the benchmark.
PARQUET: dict[str, Any] = {"compression": "zstd", "use_content_defined_chunking": True}

_SHAREGPT_ROLES = {USER: "human", ASSISTANT: "gpt", SYSTEM: "system"}
_FROM = [SHARD_SCHEMA.field(name) for name in ("id", "tree_id", "source", "lang", "message_ids")]
_SHAREGPT_TURN = pa.struct([("from", pa.string()), ("value", pa.string())])

SCHEMAS: Mapping[str, pa.Schema] = {
    "text": pa.schema([SHARD_SCHEMA.field("text")]),
    "messages": pa.schema([*_FROM, SHARD_SCHEMA.field("messages")]),
    "sharegpt": pa.schema([*_FROM, ("conversations", pa.list_(_SHAREGPT_TURN))]),
    "full": SHARD_SCHEMA,
}
assert tuple(SCHEMAS) == get_args(Layout)


def export(build: Build, target: Path, layout: Layout = "text", form: Format = "parquet") -> dict[str, int]:
    """Write the rows of `build` into the new folder `target`: `data/<split>-00000-of-00001.<form>` and so on.

    Returns: bytes of each file, by its path in the folder.

    Raises:
        StoreError: the folder is not empty, or cannot be written; nothing is left then.
    """
    with new_folder(target) as folder:
        return write_data(build, folder, layout, form)


def write_data(
    build: Build, folder: Path, layout: Layout, form: Format = "parquet", shard_bytes: int = SHARD_BYTES
) -> dict[str, int]:
    """Write the data files below `folder`; gives the bytes of each, by its path there."""
    (folder / DATA).mkdir()
    sizes = {}
    for split, table in filled(build).items():
        rows = sorted_rows(table, layout)
        lengths = row_bytes(rows.to_struct())
        shards = parts(lengths, shard_bytes)
        for number, part in enumerate(shards):
            name = f"{DATA}/{split}-{number:05d}-of-{len(shards):05d}.{form}"
            if form == "jsonl":
                rows[part].write_ndjson(folder / name)
            else:
                _write_parquet(rows[part], lengths[part], folder / name, SCHEMAS[layout])
            sizes[name] = (folder / name).stat().st_size
    return sizes


def filled(build: Build) -> dict[str, pa.Table]:
    """The splits that hold a row: `datasets` loads no file without one."""
    return {split: table for split, table in build.splits.items() if table.num_rows}


def sorted_rows(table: pa.Table, layout: Layout) -> pl.DataFrame:
    """The rows of a split as a frame of the columns of `SCHEMAS[layout]`, sorted by id."""
    frame = pl.DataFrame(table.select(sorted({"id", *_origin(layout)}))).sort("id")
    if layout == "sharegpt":
        turn = pl.element().struct
        turns = pl.struct(
            turn.field("role").replace(_SHAREGPT_ROLES).alias("from"), turn.field("content").alias("value")
        )
        frame = frame.with_columns(pl.col("messages").list.eval(turns).alias("conversations"))
    return frame.select(SCHEMAS[layout].names)


def _origin(layout: Layout) -> list[str]:
    """The build's columns that a layout is made from."""
    return ["messages" if name == "conversations" else name for name in SCHEMAS[layout].names]


def row_bytes(column: pl.Series) -> NDArray[np.int64]:
    """About how many bytes of Arrow data each row of a column is."""
    if isinstance(column.dtype, pl.List):
        values = row_bytes(column.explode(empty_as_null=False, keep_nulls=False))
        before = np.concatenate([[0], np.cumsum(values)])
        turns = column.list.len().fill_null(0).to_numpy().astype(np.int64)
        ends = np.cumsum(turns)
        inside: NDArray[np.int64] = before[ends] - before[ends - turns]
        return inside + 4
    if isinstance(column.dtype, pl.Struct):
        return sum(
            (row_bytes(column.struct.field(field.name)) for field in column.dtype.fields),
            np.zeros(len(column), np.int64),
        )
    if column.dtype == pl.String:
        return column.str.len_bytes().fill_null(0).to_numpy().astype(np.int64) + 4
    return np.full(len(column), 4)


def parts(lengths: NDArray[np.int64], bound: int) -> list[slice]:
    """Rows in parts of at most `bound` bytes, but for a row that is larger; `lengths` has the bytes of each row."""
    ends = np.cumsum(lengths)
    cuts = [0]
    while cuts[-1] < len(lengths):
        before = ends[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(ends, before + bound, side="right"))))
    return [slice(start, end) for start, end in zip(cuts, cuts[1:], strict=False)]


def _write_parquet(rows: pl.DataFrame, lengths: NDArray[np.int64], path: Path, schema: pa.Schema) -> None:
    """Write one file; to memory first, since pyarrow ends the program where a disk is full and chunks are cut by content."""
    table = pa.Table.from_arrays([plain_array(rows[field.name], field.type) for field in schema], schema=schema)
    whole = pa.BufferOutputStream()
    with pq.ParquetWriter(whole, schema, **PARQUET) as writer:
        for group in parts(lengths, ROW_GROUP_BYTES):
            writer.write_table(table[group])
    path.write_bytes(whole.getvalue())


def dataset_info(build: Build, layout: Layout, files: Mapping[str, int]) -> dict[str, Any]:
    """`dataset_info` of a data set's card, as the Hub and `datasets` read it; `files` has the bytes of each file."""
    splits = [
        {"name": split, "num_examples": table.num_rows, "num_bytes": table.select(_origin(layout)).nbytes}
        for split, table in filled(build).items()
    ]
    return {
        "features": [{"name": field.name, **_feature(field.type)} for field in SCHEMAS[layout]],
        "splits": splits,
        "download_size": sum(files.values()),
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """A column's type as `Features.to_yaml` writes it."""
    if pa.types.is_list(kind):
        inner = _feature(kind.value_type)
        return {"list": inner.get("dtype") or inner["struct"]}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": field.name, **_feature(field.type)} for field in kind]}
    return {"dtype": str(kind)}


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside `target`, which it becomes when all went well; nothing is left otherwise.

    What a killed writer left there is removed first.

    Raises:
        StoreError: there is something at `target` already, another process is writing it, or it cannot be written.
    """
    target = check_free(target)
    folder = target.parent / f".{target.name}-unfinished"
    with telling_os_errors(target, "nothing was written there; free some room or choose another --to"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(folder, target):
            try:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                yield folder
                folder.rename(target)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def check_free(target: Path) -> Path:
    """The full path of `target`, if a new folder can be put there.

    Raises:
        StoreError: something is there already.
    """
    target = target.expanduser().resolve()
    with telling_os_errors(target, "choose another --to"):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise StoreError(f"{target} is there already and is no empty folder: choose another --to, or remove it.")
    return target


@contextmanager
def _alone(folder: Path, target: Path) -> Iterator[None]:
    lock = FileLock(f"{folder}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StoreError(f"Another process is writing {target}: wait for it, or choose another --to.") from None
    try:
        yield
    finally:
        lock.release()
        Path(lock.lock_file).unlink(missing_ok=True)
