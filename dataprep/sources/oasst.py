"""OpenAssistant's flat messages: one row a message, its tree told by `message_tree_id` and `parent_id`.

Source of the format: the export of LAION-AI/Open-Assistant and the data sets OpenAssistant/oasst1 and oasst2. Older
exports lack many fields, so all are optional but id, text and role. `labels` has two shapes, parallel lists
`{name, value, count}` and a mapping `{label: {value, count}}`: one struct type holds them both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import numbers
from dataprep.sources.rows import Rows
from dataprep.sources.turns import standard_roles
from dataprep.tables import LABELS

_VALUE = pa.struct([("value", pa.float64())])
_LABELS = pa.struct(
    [("name", pa.list_(pa.string())), ("value", pa.list_(pa.float64())), *((name, _VALUE) for name in LABELS)]
)

SCHEMA = pa.schema(
    [
        pa.field("message_tree_id", pa.string()),
        pa.field("tree_state", pa.string()),
        pa.field("message_id", pa.string(), nullable=False),
        pa.field("parent_id", pa.string()),
        pa.field("text", pa.string(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("lang", pa.string()),
        pa.field("rank", pa.int32()),
        pa.field("deleted", pa.bool_()),
        pa.field("review_result", pa.bool_()),
        pa.field("review_count", pa.int32()),
        pa.field("labels", _LABELS),
    ]
)


def recognise(record: Mapping[str, Any]) -> bool:
    """Whether `record` is a flat OASST message."""
    return all(record.get(name) is not None for name in ("message_id", "text", "role"))


def convert(rows: Rows) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Messages (columns of `conversations.MESSAGES` less file and source) and rejects of rows of `SCHEMA`."""
    batch = rows.batch
    columns = {name: batch.column(name) for name in batch.schema.names if name != "labels"}
    columns["role"] = standard_roles(columns["role"])
    labels = label_columns(batch.column("labels"))
    frame = pl.from_arrow(pa.table({"line": numbers(rows.line), **columns, **labels}))
    assert isinstance(frame, pl.DataFrame)
    return frame.rename({"text": "content", "message_tree_id": "tree_id"}), rows.rejects


def label_columns(labels: pa.StructArray) -> dict[str, pa.Array]:
    """One float32 column a label, null where nobody voted; from whichever of the two shapes a row has."""
    lists = pl.DataFrame({part: pl.Series(pc.struct_field(labels, part)) for part in ("name", "value")})
    parallel = pl.col("name").list.len() == pl.col("value").list.len()  # a row whose lists are not says nothing
    votes = lists.with_row_index("row").filter(parallel).explode("name", "value")
    columns = {}
    for label in LABELS:
        row, value = votes.filter(name=label).select("row", "value")
        listed = np.full(len(labels), np.nan)
        listed[row.to_numpy()] = value.to_numpy()
        mapped = pc.struct_field(labels, [label, "value"])
        columns[label] = pc.coalesce(mapped, pl.Series(listed, nan_to_null=True).to_arrow()).cast(pa.float32())
    return columns


def with_trees(messages: pl.DataFrame) -> pl.DataFrame:
    """`messages` of one file with the `tree_id` of every message: where none is stated, the id of its topmost ancestor.

    Each step doubles the distance covered, so that a tree of depth d takes log2(d) steps, and a cycle ends as well.
    """
    if not messages["tree_id"].null_count():
        return messages
    place = messages.select(pl.col("message_id").alias("parent_id"), pl.int_range(pl.len()).alias("up"))
    found = messages.select("parent_id").join(
        place.unique("parent_id", keep="first"), on="parent_id", how="left", maintain_order="left"
    )
    own = np.arange(len(messages))
    up = np.where(found["up"].is_null(), own, found["up"].fill_null(0).to_numpy())
    for _ in range(len(messages).bit_length()):
        higher = up[up]
        if (higher == up).all():
            break
        up = higher
    top = messages[["message_id", "tree_id"]][up]
    return messages.with_columns(pl.coalesce("tree_id", top["tree_id"], top["message_id"]).alias("tree_id"))
