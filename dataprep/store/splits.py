"""Write the rendered conversations of a build as shards, one folder a split."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Protocol

import polars as pl
import pyarrow as pa

from dataprep.common.progress import Advance
from dataprep.contract import SplitEntry, shard_schema
from dataprep.store.shards import ShardWriter, plain_array, write_dataset_dict
from dataprep.tables import message_fields


class RenderedBatch(Protocol):
    """Consecutive rendered conversations, from row `start` of a frame on."""

    @property
    def start(self) -> int: ...
    @property
    def text(self) -> pa.Array: ...
    @property
    def spans(self) -> pa.Array: ...
    @property
    def controls(self) -> pa.Array: ...


def write_splits(
    folder: Path,
    splits: Mapping[str, pl.DataFrame],
    render: Callable[[pl.DataFrame, str], Generator[pa.RecordBatch]],
    shard_bytes: int,
    version: str,
    advance: Advance,
) -> dict[str, SplitEntry]:
    """Render and write all splits.

    Args:
        folder: the build's temporary folder.
        splits: CONVERSATIONS of each split, with the same message fields in all.
        render: yields the batches of a frame and its split (columns of `shard_schema`), in order and without gaps.
        shard_bytes: bound on the size of one shard.
        version: the build's version, part of the fingerprints that datasets reads.
        advance: called with the number of conversations written so far.

    Returns:
        `splits` of the manifest.
    """
    entries: dict[str, SplitEntry] = {}
    written = 0
    for split, frame in splits.items():
        writer = ShardWriter(folder, split, shard_bytes, schema_of(frame))
        # closed explicitly: after an interrupt, threads would otherwise run until the interpreter exits
        with closing(render(frame, split)) as batches:
            for batch in batches:
                writer.write(batch)
                written += batch.num_rows
                advance(written)
        entries[split] = writer.finish(f"{version}-{split}")
    write_dataset_dict(folder, splits)
    return entries


def schema_of(frame: pl.DataFrame) -> pa.Schema:
    """The schema of shards that hold these conversations."""
    return shard_schema(message_fields(frame), "tools" in frame.columns)


def shard_batches(frame: pl.DataFrame, rendered: Iterable[RenderedBatch], first: int = 0) -> Generator[pa.RecordBatch]:
    """Join rendered batches with the other columns of `frame`: batches of `shard_schema` in the order of `frame`.

    `first` is the number by which the rendered batches call the first row of `frame`.
    """
    schema = schema_of(frame)
    for part in rendered:
        rows = frame.slice(part.start - first, len(part.text))
        columns = {"text": part.text, "spans": part.spans, "controls": part.controls}
        arrays = [
            columns[field.name].cast(field.type) if field.name in columns else plain_array(rows[field.name], field.type)
            for field in schema
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
