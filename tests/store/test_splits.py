"""Shards of messages with more than role and content, as datasets reads them."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from datasets import load_from_disk

from dataprep.contract import SHARD_SCHEMA, shard_schema
from dataprep.store.shards import plain_array
from dataprep.store.splits import shard_batches, write_splits
from dataprep.tables import CONVERSATIONS, conform, turns_type

CALL = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Zürich", "days": 2}}}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


@dataclass(frozen=True)
class Rendered:
    start: int
    text: pa.Array
    spans: pa.Array
    controls: pa.Array


def render(frame: pl.DataFrame) -> Iterator[Rendered]:
    ranges = SHARD_SCHEMA.field("spans").type
    for row in range(frame.height):
        yield Rendered(row, pa.array([f"text {row}"]), pa.array([[]], ranges), pa.array([[]], ranges))


def render_batches(frame: pl.DataFrame, split: str) -> Generator[pa.RecordBatch]:
    return shard_batches(frame, render(frame))


def frame_of(messages: list[list[dict[str, Any]]], fields: list[str], **columns: Any) -> pl.DataFrame:
    ids = [f"c{row}" for row in range(len(messages))]
    data = pl.DataFrame({"id": ids, "messages": messages, **columns}, schema_overrides={"messages": turns_type(fields)})
    return conform(data, CONVERSATIONS)


PLAIN = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
CALLING: list[dict[str, Any]] = [
    {"role": "user", "content": "q"},
    {"role": "assistant", "content": "", "tool_calls": json.dumps(CALL, ensure_ascii=False)},
    {"role": "tool", "content": "12 °C", "name": "weather"},
    {"role": "assistant", "content": "Cold.", "trained": False},
]


def test_plain_conversations_have_the_plain_schema_without_metadata(tmp_path: Path) -> None:
    write_splits(tmp_path, {"train": frame_of([PLAIN], [])}, render_batches, 1 << 20, "v", lambda done: None)
    with pa.memory_map(str(next(tmp_path.glob("train/*.arrow")))) as source:
        schema = pa.ipc.open_stream(source).schema
    assert schema.equals(SHARD_SCHEMA, check_metadata=True)
    assert "Json" not in (tmp_path / "train/dataset_info.json").read_text()


def test_further_fields_are_columns_of_the_shards_in_the_contracts_order() -> None:
    frame = frame_of([PLAIN, CALLING], ["trained", "name", "tool_calls"], tools=[None, json.dumps(TOOLS)])
    first, _ = shard_batches(frame, render(frame))
    assert first.schema.equals(shard_schema(("role", "content", "tool_calls", "name", "trained"), tools=True))


def test_datasets_gives_tools_and_tool_calls_as_python_objects(tmp_path: Path) -> None:
    frame = frame_of([PLAIN, CALLING], ["trained", "name", "tool_calls"], tools=[None, json.dumps(TOOLS)])
    write_splits(tmp_path, {"train": frame}, render_batches, 1 << 20, "v", lambda done: None)
    plain, calling = load_from_disk(str(tmp_path))["train"]
    assert calling["tools"] == TOOLS and plain["tools"] is None
    assert calling["messages"][1]["tool_calls"] == CALL
    assert calling["messages"][2]["name"] == "weather" and calling["messages"][3]["trained"] is False
    assert plain["messages"][1]["tool_calls"] is None


@pytest.mark.parametrize("offset", [0, 1])
def test_bits_after_the_last_row_of_a_validity_bitmap_are_zero(offset: int) -> None:
    bits = pa.py_buffer(bytes([0b11111010 << offset & 0xFF]))
    values = [pa.py_buffer(np.arange(8, dtype=np.int64)), pa.py_buffer(b"\xff")]
    for kind, buffer in zip((pa.int64(), pa.bool_()), values, strict=True):
        dirty = pa.Array.from_buffers(kind, 3, [bits, buffer], offset=offset)
        clean = plain_array(pl.Series(dirty), kind)
        assert clean.equals(dirty)
        assert clean.buffers()[0].to_pybytes()[:1] == bytes([0b010])
