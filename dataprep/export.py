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

import math
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.contract import SHARD_SCHEMA, Build
from dataprep.conversations import ASSISTANT, SYSTEM, USER
from dataprep.errors import StoreError
from dataprep.shards import plain_array
from dataprep.store import telling_os_errors

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
    for split, table in build.splits.items():
        rows = sorted_rows(table, layout)
        count = max(1, math.ceil(table.select(_origin(layout)).nbytes / shard_bytes))
        for number, part in enumerate(_parts(rows, count)):
            name = f"{DATA}/{split}-{number:05d}-of-{count:05d}.{form}"
            _write(part, folder / name, layout, form)
            sizes[name] = (folder / name).stat().st_size
    return sizes


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


def _parts(rows: pl.DataFrame, count: int) -> Iterator[pl.DataFrame]:
    """`rows` in `count` parts of equal length; ids are hashes, so their bytes are much alike."""
    length = math.ceil(rows.height / count)
    return (rows.slice(number * length, length) for number in range(count))


def _write(rows: pl.DataFrame, path: Path, layout: Layout, form: Format) -> None:
    if form == "jsonl":
        rows.write_ndjson(path)
        return
    schema = SCHEMAS[layout]
    table = pa.Table.from_arrays([plain_array(rows[field.name], field.type) for field in schema], schema=schema)
    groups = max(1, math.ceil(table.nbytes / ROW_GROUP_BYTES))
    pq.write_table(table, path, row_group_size=max(1, math.ceil(rows.height / groups)), **PARQUET)


def dataset_info(build: Build, layout: Layout, files: Mapping[str, int]) -> dict[str, Any]:
    """`dataset_info` of a data set's card, as the Hub and `datasets` read it; `files` has the bytes of each file."""
    splits = [
        {"name": split, "num_examples": table.num_rows, "num_bytes": table.select(_origin(layout)).nbytes}
        for split, table in build.splits.items()
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

    Raises:
        StoreError: there is something at `target` already, or it cannot be written.
    """
    target = target.expanduser().resolve()
    advice = "nothing was written there; free some room or choose another --to"
    with telling_os_errors(target, advice):
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise StoreError(f"{target} is there already and is no empty folder: choose another --to, or remove it.")
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = target.parent / f".{target.name}-{uuid4().hex[:12]}"
        try:
            folder.mkdir()
            yield folder
            folder.rename(target)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
