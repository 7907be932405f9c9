"""Layouts of builds with tools, reasoning and context turns: the names and shapes that other programs read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Features, load_dataset

from dataprep.common.errors import DamagedBuild, StoreError
from dataprep.contract import Build, Manifest, shard_schema
from dataprep.publish.data_files import Format
from dataprep.publish.export import export
from dataprep.publish.layouts import LAYOUTS, Layout, dataset_info

CALL = {"type": "function", "id": "c1", "function": {"name": "weather", "arguments": {"city": "Köln"}}}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
FIELDS = ("role", "content", "reasoning_content", "tool_calls", "name", "tool_call_id", "trained")


def build_of(*conversations: tuple[list[dict[str, Any]], str | None]) -> Build:
    """A build in memory of (messages, tools); rows have the ids 0, 1, …"""
    rows = [
        {
            "id": str(number),
            "messages": messages,
            "tools": tools,
            "text": "text",
            "spans": [],
            "controls": [],
            "message_ids": [],
        }
        for number, (messages, tools) in enumerate(conversations)
    ]
    table = pa.Table.from_pylist(rows, schema=shard_schema(FIELDS, tools=True))
    return Build(Path("b"), Manifest(Path("b"), {}), {"train": table})  # type: ignore[typeddict-item]


@pytest.fixture
def build() -> Build:
    """A plain conversation with an answer that is context only, and a call of a tool after reasoning."""
    plain: list[dict[str, Any]] = [
        {"role": "user", "content": "Hi", "name": "ann"},
        {"role": "assistant", "content": "Hello", "trained": False},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Goodbye"},
    ]
    with_call: list[dict[str, Any]] = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "tool_calls": json.dumps([CALL]), "reasoning_content": "Ask."},
        {"role": "tool", "content": "dry", "tool_call_id": "c1", "name": "weather"},
        {"role": "assistant", "content": "No.", "reasoning_content": "It is dry."},
    ]
    return build_of((plain, None), (with_call, json.dumps([TOOL])))


def load(build: Build, folder: Path, layout: Layout, form: Format) -> list[dict[str, Any]]:
    """The rows of an export, as `datasets` gives them, without the fields that are null."""
    export(build, folder / "out", layout, form)
    rows = load_dataset(str(folder / "out"), cache_dir=str(folder / "cache"))["train"]
    return [{key: without_nulls(value) for key, value in row.items()} for row in rows]


def without_nulls(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(entry, dict) for entry in value):
        return [{key: part for key, part in entry.items() if part is not None} for entry in value]
    return value


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_messages_have_the_names_and_objects_that_trl_reads(build: Build, tmp_path: Path, form: Format) -> None:
    plain, with_call = load(build, tmp_path, "messages", form)
    assert plain["messages"] == [
        {"role": "user", "content": "Hi", "name": "ann"},
        {"role": "assistant", "content": "Hello", "train": False},
        {"role": "user", "content": "Bye"},
        {"role": "assistant", "content": "Goodbye"},
    ]
    assert with_call["messages"] == [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL], "reasoning_content": "Ask."},
        {"role": "tool", "content": "dry", "tool_call_id": "c1", "name": "weather"},
        {"role": "assistant", "content": "No.", "reasoning_content": "It is dry."},
    ]
    assert with_call["tools"] == [TOOL]
    assert plain.get("tools") is None


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_sharegpt_turns_have_the_names_that_llama_factory_reads(build: Build, tmp_path: Path, form: Format) -> None:
    plain, with_call = load(build, tmp_path, "sharegpt", form)
    assert plain["conversations"][:2] == [
        {"from": "human", "value": "Hi", "name": "ann"},
        {"from": "gpt", "value": "Hello", "train": False},
    ]
    call = json.dumps(CALL["function"], ensure_ascii=False)
    assert with_call["conversations"] == [
        {"from": "human", "value": "Rain?"},
        {"from": "function_call", "value": f"<think>\nAsk.\n</think>\n\n{call}"},
        {"from": "observation", "value": "dry", "tool_call_id": "c1", "name": "weather"},
        {"from": "gpt", "value": "<think>\nIt is dry.\n</think>\n\nNo."},
    ]
    assert json.loads(with_call["tools"]) == [TOOL["function"]]


def test_the_full_layout_has_all_fields_of_the_build(build: Build, tmp_path: Path) -> None:
    plain, with_call = load(build, tmp_path, "full", "parquet")
    assert plain["messages"][1] == {"role": "assistant", "content": "Hello", "trained": False}
    assert with_call["messages"][1]["tool_calls"] == [CALL]


def test_an_answer_with_text_and_calls_is_refused_by_the_sharegpt_layout(tmp_path: Path) -> None:
    both = {"role": "assistant", "content": "Let me look.", "tool_calls": json.dumps([CALL])}
    with pytest.raises(StoreError, match="both text and tool calls.*--layout messages"):
        export(build_of(([both], None)), tmp_path / "out", "sharegpt")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", ["messages", "sharegpt"])
def test_tool_calls_that_are_no_json_are_called_damaged(tmp_path: Path, layout: Layout) -> None:
    damaged = build_of(([{"role": "assistant", "content": "", "tool_calls": "{"}], None))
    with pytest.raises(DamagedBuild, match="is not valid JSON"):
        export(damaged, tmp_path / "out", layout, "jsonl")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_on_a_card_are_those_of_the_files(build: Build, tmp_path: Path, layout: Layout) -> None:
    export(build, tmp_path / "out", layout)
    rows = load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert Features._from_yaml_list(dataset_info(build, layout, {})["features"]) == rows.features
