"""The four layouts in which a build's rows are exported, and their columns.

| layout | columns | read by |
|---|---|---|
| text | `text` | trl, notebooks around mlabonne/guanaco-llama2-1k |
| messages | `messages` of role and content, and the origin of a row | trl, transformers, axolotl, dataprep |
| sharegpt | `conversations` of from and value, and the origin of a row | axolotl, LLaMA-Factory, dataprep |
| full | all columns of a build | training on spans, dataprep |
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import polars as pl
import pyarrow as pa

from dataprep.contract import SHARD_SCHEMA, Build
from dataprep.tables import ASSISTANT, SYSTEM, USER

Layout = Literal["text", "messages", "sharegpt", "full"]

_SHAREGPT_ROLES = {USER: "human", ASSISTANT: "gpt", SYSTEM: "system"}
_ORIGIN = [SHARD_SCHEMA.field(name) for name in ("id", "tree_id", "source", "lang", "message_ids")]
_SHAREGPT_TURN = pa.struct([("from", pa.string()), ("value", pa.string())])

SCHEMAS: Mapping[str, pa.Schema] = {
    "text": pa.schema([SHARD_SCHEMA.field("text")]),
    "messages": pa.schema([*_ORIGIN, SHARD_SCHEMA.field("messages")]),
    "sharegpt": pa.schema([*_ORIGIN, ("conversations", pa.list_(_SHAREGPT_TURN))]),
    "full": SHARD_SCHEMA,
}
assert tuple(SCHEMAS) == get_args(Layout)


def sorted_rows(table: pa.Table, layout: Layout) -> pl.DataFrame:
    """Return the rows of a split with the columns of `SCHEMAS[layout]`, sorted by id.

    Sorted rows change little from one version to the next, so a store that knows most chunks of a file (the Hub's)
    needs only the others.
    """
    frame = pl.DataFrame(table.select(sorted({"id", *_build_columns(layout)}))).sort("id")
    if layout == "sharegpt":
        turn = pl.element().struct
        turns = pl.struct(
            turn.field("role").replace(_SHAREGPT_ROLES).alias("from"), turn.field("content").alias("value")
        )
        frame = frame.with_columns(pl.col("messages").list.eval(turns).alias("conversations"))
    return frame.select(SCHEMAS[layout].names)


def _build_columns(layout: Layout) -> list[str]:
    """Return the columns of a build that a layout is made from."""
    return ["messages" if name == "conversations" else name for name in SCHEMAS[layout].names]


def filled_splits(build: Build) -> dict[str, pa.Table]:
    """Return the splits that have rows: `datasets` refuses a file without any."""
    return {split: table for split, table in build.splits.items() if table.num_rows}


def dataset_info(build: Build, layout: Layout, files: Mapping[str, int]) -> dict[str, Any]:
    """Return the `dataset_info` of a data set card, as the Hub and `datasets` read it.

    Args:
        build: the build.
        layout: the layout of the files.
        files: bytes of each data file.
    """
    splits = [
        {"name": split, "num_examples": table.num_rows, "num_bytes": table.select(_build_columns(layout)).nbytes}
        for split, table in filled_splits(build).items()
    ]
    return {
        "features": [{"name": field.name, **_feature(field.type)} for field in SCHEMAS[layout]],
        "splits": splits,
        "download_size": sum(files.values()),
        "dataset_size": sum(split["num_bytes"] for split in splits),
    }


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """Return a column's type as `Features.to_yaml` writes it."""
    if pa.types.is_list(kind):
        inner = _feature(kind.value_type)
        return {"list": inner.get("dtype") or inner["struct"]}
    if pa.types.is_struct(kind):
        return {"struct": [{"name": field.name, **_feature(field.type)} for field in kind]}
    return {"dtype": str(kind)}
