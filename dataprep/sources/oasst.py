"""OpenAssistant's flat messages: one message a row, placed in its tree by `message_tree_id` and `parent_id`.

Source of the format: the export of LAION-AI/Open-Assistant and the data sets OpenAssistant/oasst1 and oasst2. Older
exports lack many fields, so all but id, text and role are optional. `labels` has two shapes, parallel lists
`{name, value, count}` and a mapping `{label: {value, count}}`; one struct type holds both.
"""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import numbers
from dataprep.sources.options import ReadOptions
from dataprep.sources.rows import ParsedRows
from dataprep.sources.schema import Column, Record, RecordSchema
from dataprep.sources.turns import standard_roles
from dataprep.tables import LABELS

_VALUE = pa.struct([("value", pa.float64())])
_LABELS = pa.struct(
    [("name", pa.list_(pa.string())), ("value", pa.list_(pa.float64())), *((name, _VALUE) for name in LABELS)]
)

METADATA = frozenset({"user_id", "created_date", "synthetic", "model_name", "detoxify", "emojis", "events"})

SCHEMA = RecordSchema(
    (
        Column("message_tree_id"),
        Column("tree_state"),
        Column("message_id", required=True),
        Column("parent_id"),
        Column("text", required=True),
        Column("role", required=True),
        Column("lang"),
        Column("rank", pa.int32()),
        Column("deleted", pa.bool_()),
        Column("review_result", pa.bool_()),
        Column("review_count", pa.int32()),
        Column("labels", _LABELS),
    ),
    METADATA,
)


def is_message(record: Record) -> bool:
    """Whether `record` is a flat OASST message."""
    return all(record.get(name) is not None for name in ("message_id", "text", "role"))


def convert(rows: ParsedRows, options: ReadOptions) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Convert rows of `SCHEMA` to messages (the columns of `tables.MESSAGES` without file and source) and rejects."""
    batch = rows.batch
    columns = {name: batch.column(name) for name in batch.schema.names if name != "labels"}
    columns["role"] = standard_roles(columns["role"], options.roles)
    labels = label_columns(batch.column("labels"))
    frame = pl.from_arrow(pa.table({"line": numbers(rows.line), **columns, **labels}))
    assert isinstance(frame, pl.DataFrame)
    return frame.rename({"text": "content", "message_tree_id": "tree_id"}), rows.rejects


def label_columns(labels: pa.StructArray) -> dict[str, pa.Array]:
    """Return one float32 column for each label, null where it has no votes, from whichever shape a row has."""
    lists = pl.DataFrame({part: pl.Series(pc.struct_field(labels, part)) for part in ("name", "value")})
    is_parallel = pl.col("name").list.len() == pl.col("value").list.len()  # lists of unequal lengths are ignored
    votes = lists.with_row_index("row").filter(is_parallel).explode("name", "value")
    columns = {}
    for label in LABELS:
        row, value = votes.filter(name=label).select("row", "value")
        from_lists = np.full(len(labels), np.nan)
        from_lists[row.to_numpy()] = value.to_numpy()
        from_mapping = pc.struct_field(labels, [label, "value"])
        column = pc.coalesce(from_mapping, pl.Series(from_lists, nan_to_null=True).to_arrow())
        columns[label] = column.cast(pa.float32())
    return columns


def fill_tree_ids(messages: pl.DataFrame) -> pl.DataFrame:
    """Fill in the `tree_id` of the messages of one file: where none is stated, the id of the topmost ancestor.

    Each step doubles the distance to the ancestor, so a tree of depth d takes log2(d) steps, and cycles end too.
    """
    if not messages["tree_id"].null_count():
        return messages
    position = messages.select(pl.col("message_id").alias("parent_id"), pl.int_range(pl.len()).alias("parent"))
    parents = messages.select("parent_id").join(
        position.unique("parent_id", keep="first"), on="parent_id", how="left", maintain_order="left"
    )["parent"]
    ancestor = np.where(parents.is_null(), np.arange(len(messages)), parents.fill_null(0).to_numpy())
    for _ in range(len(messages).bit_length()):
        higher = ancestor[ancestor]
        if (higher == ancestor).all():
            break
        ancestor = higher
    top = messages[["message_id", "tree_id"]][ancestor]
    return messages.with_columns(pl.coalesce("tree_id", top["tree_id"], top["message_id"]).alias("tree_id"))
