"""The data files of an export: Parquet or JSON lines, bounded in bytes.

Parquet pages are cut where the content says so (content-defined chunking): from one version to the next most bytes stay
the same, and a store that knows them (the Hub's) needs only the others.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dataprep.common.errors import StoreError
from dataprep.contract import Build
from dataprep.publish.layouts import (
    Layout,
    decoded_json,
    filled_splits,
    json_columns,
    layout_schema,
    schema_of,
    sorted_rows,
)
from dataprep.publish.training_rows import (
    PROMPT_COMPLETION,
    TOKENS,
    load_tokenizer,
    prompt_completion_rows,
    token_rows,
)
from dataprep.store.shards import file_schema, plain_array

Format = Literal["parquet", "jsonl"]
ExportLayout = Layout | Literal["prompt-completion", "tokens"]

DATA = "data"  # the folder of the files
FILE_BYTES = 500_000_000  # of Arrow data in one file, as in `datasets`
ROW_GROUP_BYTES = 64_000_000  # of Arrow data that a reader must hold at once

# Options of pyarrow's Parquet writer, here and in the benchmark.
PARQUET_OPTIONS: dict[str, Any] = {"compression": "zstd", "use_content_defined_chunking": True}


def data_files(
    build: Build,
    layout: ExportLayout,
    form: Format = "parquet",
    file_bytes: int = FILE_BYTES,
    tokenizer: str | None = None,
) -> Iterator[tuple[str, memoryview]]:
    """Yield path and content of each data file: `data/<split>-00000-of-00001.<form>` and so on.

    `tokenizer` is the folder or Hub name of a model, for the layout `tokens`.

    A file is made in memory as a whole: pyarrow aborts the process if the disk fills up while it cuts chunks by content.
    """
    schema, decoded, rows_of = _layout(build, layout, tokenizer)
    for split, table in filled_splits(build).items():
        rows = rows_of(table)
        lengths = row_bytes(rows.to_struct())
        parts = parts_of(lengths, file_bytes)
        for number, part in enumerate(parts):
            name = f"{DATA}/{split}-{number:05d}-of-{len(parts):05d}.{form}"
            if form == "jsonl":
                yield name, _json_lines(rows[part], schema, decoded)
            else:
                yield name, _parquet(rows[part], lengths[part], schema, decoded)


def _layout(
    build: Build, layout: ExportLayout, tokenizer: str | None
) -> tuple[pa.Schema, tuple[str, ...], Callable[[pa.Table], pl.DataFrame]]:
    """Return a layout's columns, those that are JSON, and the function that makes its rows of a split."""
    if layout == "prompt-completion":
        return PROMPT_COMPLETION, (), prompt_completion_rows
    if layout == "tokens":
        if tokenizer is None:
            raise StoreError("--layout tokens needs --tokenizer: the folder or Hub name of the model to fine-tune.")
        loaded = load_tokenizer(tokenizer)
        return TOKENS, (), lambda table: token_rows(table, loaded)
    return layout_schema(schema_of(build), layout), json_columns(layout), lambda table: sorted_rows(table, layout)


def _json_lines(rows: pl.DataFrame, schema: pa.Schema, decoded: Sequence[str]) -> memoryview:
    content = io.BytesIO()
    if "tools" not in schema.names and not _has_optional_fields(schema):
        rows.write_ndjson(content)
        return content.getbuffer()
    for row in rows.iter_rows(named=True):
        content.write(json.dumps(_decoded(row, decoded), ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    return content.getbuffer()


def _has_optional_fields(schema: pa.Schema) -> bool:
    """Return whether messages or turns have more than the two fields that every build has."""
    turns = [field.type.value_type for field in schema if field.name in ("messages", "conversations")]
    return any(turn.num_fields > 2 for turn in turns)


def _decoded(row: Mapping[str, Any], decoded: Sequence[str]) -> dict[str, Any]:
    """Return a row, message or turn with JSON text as objects, and without the optional fields that are null."""
    result = {}
    for name, value in row.items():
        if name in decoded:
            value = None if value is None else decoded_json(value)
        elif name in ("messages", "conversations"):
            value = [{key: v for key, v in _decoded(turn, decoded).items() if v is not None} for turn in value]
        if value is not None or name != "tools":
            result[name] = value
    return result


def _parquet(rows: pl.DataFrame, lengths: NDArray[np.int64], schema: pa.Schema, decoded: Sequence[str]) -> memoryview:
    table = pa.Table.from_arrays([plain_array(rows[field.name], field.type) for field in schema], schema=schema)
    written_schema = file_schema(schema) if decoded else schema
    table = table.cast(written_schema)
    content = pa.BufferOutputStream()
    with pq.ParquetWriter(content, written_schema, **PARQUET_OPTIONS) as writer:
        for group in parts_of(lengths, ROW_GROUP_BYTES):
            writer.write_table(table[group])
    return memoryview(content.getvalue())


def row_bytes(column: pl.Series) -> NDArray[np.int64]:
    """Return about how many bytes of Arrow data each row of a column has."""
    if isinstance(column.dtype, pl.List):
        values = row_bytes(column.explode(empty_as_null=False, keep_nulls=False))
        totals = np.concatenate([[0], np.cumsum(values)])
        counts = column.list.len().fill_null(0).to_numpy().astype(np.int64)
        ends = np.cumsum(counts)
        inside: NDArray[np.int64] = totals[ends] - totals[ends - counts]
        return inside + 4
    if isinstance(column.dtype, pl.Struct):
        return sum(
            (row_bytes(column.struct.field(field.name)) for field in column.dtype.fields),
            np.zeros(len(column), np.int64),
        )
    if column.dtype == pl.String:
        return column.str.len_bytes().fill_null(0).to_numpy().astype(np.int64) + 4
    return np.full(len(column), 4)


def parts_of(lengths: NDArray[np.int64], max_bytes: int) -> list[slice]:
    """Cut rows of the given `lengths` into parts of at most `max_bytes`; a longer row is a part of its own."""
    ends = np.cumsum(lengths)
    cuts = [0]
    while cuts[-1] < len(lengths):
        before = ends[cuts[-1] - 1] if cuts[-1] else 0
        cuts.append(max(cuts[-1] + 1, int(np.searchsorted(ends, before + max_bytes, side="right"))))
    return [slice(start, end) for start, end in zip(cuts, cuts[1:], strict=False)]
