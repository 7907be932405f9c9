"""Rows that a trainer takes without rendering: prompts with completions, or token ids with labels.

Both follow the build's spans, so exactly the trained parts are learnt, whatever the trainer's own templates do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

if TYPE_CHECKING:
    from training.model.tokenizer import ChatTokenizer

PROMPT_COMPLETION = pa.schema([("id", pa.string()), ("prompt", pa.string()), ("completion", pa.string())])
TOKENS = pa.schema([("id", pa.string()), ("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])

_BLOCK = 4096  # rows encoded at a time


def prompt_completion_rows(table: pa.Table) -> pl.DataFrame:
    """Return a row for each trained answer: all text before it, and the answer with its end token; sorted by id.

    The text of a conversation of n answers is repeated n times.
    """
    columns = pl.DataFrame(table.select(["id", "text", "spans"])).sort("id").explode("spans", empty_as_null=False)
    start, end = (pl.col("spans").struct.field(part) for part in ("start", "end"))
    return columns.select(
        "id",
        pl.col("text").str.slice(0, start).alias("prompt"),
        pl.col("text").str.slice(start, end - start).alias("completion"),
    )


def token_rows(table: pa.Table, tokenizer: ChatTokenizer) -> pl.DataFrame:
    """Return the ids of each row and its labels (-100 outside of the trained parts), sorted by id: those of `training run`.

    Raises:
        DataError, ModelError: the tokenizer does not fit the build.
    """
    blocks = [_encoded(table.slice(start, _BLOCK), tokenizer) for start in range(0, table.num_rows, _BLOCK)]
    return pl.concat(blocks).sort("id")


def load_tokenizer(name: str) -> ChatTokenizer:
    """Load the tokenizer of a model folder or of a model on the Hub, as `training run` does.

    Raises:
        ModelError: it has none.
    """
    from training.model.tokenizer import load_tokenizer as load

    return load(name)


def _encoded(table: pa.Table, tokenizer: ChatTokenizer) -> pl.DataFrame:
    # The encoder is training's own, so that there is one; it needs neither torch nor transformers.
    from training.data.encode import IGNORED, encode
    from training.data.labels import trained_tokens

    rows = encode(table, tokenizer)
    labels = np.where(trained_tokens(rows, "all-answers"), rows.ids, IGNORED).astype(np.int32)
    offsets = pa.array(rows.bounds.astype(np.int32))
    lists = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (rows.ids, labels)]
    return pl.DataFrame(pa.Table.from_arrays([pa.array(rows.names), *lists], schema=TOKENS))
