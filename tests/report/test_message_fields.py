"""The report shows what plain conversations do not have: tools, reasoning, untrained answers, and fields that were not used."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from dataprep.build import Outcome
from dataprep.contract import open_build, shard_schema
from dataprep.report import CollectedRows, audit_report, build_report
from dataprep.report.card import card
from dataprep.report.croissant import croissant
from dataprep.store.fates import read_fates

CALLS = json.dumps([{"type": "function", "function": {"name": "weather", "arguments": {"city": "<b>Oslo"}}}])
MESSAGES = [
    {"role": "user", "content": "Rain?"},
    {"role": "assistant", "content": "", "reasoning_content": "I should look.", "tool_calls": CALLS},
    {"role": "tool", "content": "rain", "name": "weather"},
    {"role": "assistant", "content": "Yes.", "trained": False},
]
TEXT = "Rain? I should look. Yes."


def split_with_tools() -> pa.Table:
    row = {
        "id": "c1",
        "tree_id": "c1",
        "source": "s",
        "lang": "en",
        "messages": MESSAGES,
        "message_ids": [],
        "tools": json.dumps([{"type": "function", "function": {"name": "weather"}}]),
        "text": TEXT,
        "spans": [{"start": 6, "end": 20}],
        "controls": [],
    }
    schema = shard_schema(("role", "content", "reasoning_content", "tool_calls", "name", "trained"), tools=True)
    return pa.Table.from_pylist([row], schema=schema)


@pytest.fixture
def manifest(attacked: Outcome) -> dict[str, Any]:
    opened = open_build(attacked.path or "")
    return {
        **json.loads((opened.path / "manifest.json").read_text()),
        "unused_fields": {"score": 1200, "messages.<i>": 3},
    }


def test_the_sample_remarks_on_untrained_answers_calls_reasoning_and_tools(
    attacked: Outcome, manifest: dict[str, Any]
) -> None:
    fates = read_fates(attacked.path) if attacked.path else None
    assert fates is not None
    collected = CollectedRows.of_splits({"train": split_with_tools()}, 42, fates)
    page = build_report(manifest, collected, fates, None, {"gate": "off", "checks": []})
    for remark in ("1 answer as context only", "1 tool call", "1 answer with reasoning", "1 tool available"):
        assert f'<span class="remark">{remark}</span>' in page


def test_fields_that_were_not_used_are_listed_with_their_counts(attacked: Outcome, manifest: dict[str, Any]) -> None:
    assert attacked.path
    fates = read_fates(attacked.path)
    collected = CollectedRows.of_splits(open_build(attacked.path).splits, 42, fates)
    page = build_report(manifest, collected, fates, None, {"gate": "off", "checks": []})
    section = page[page.index("Fields that were not used") :]
    assert section.index("score") < section.index("1,200") < section.index("messages.&lt;i&gt;")
    assert "not used, with their numbers of values: `score` 1,200" in card(manifest)
    assert "Fields that were not used" not in build_report(
        {**manifest, "unused_fields": {}}, collected, fates, None, {"gate": "off", "checks": []}
    )


def test_an_audits_turns_show_reasoning_calls_and_flags() -> None:
    summary = {"file": "f", "rows": 1, "faulty": 1, "kinds": {"leak": 1}, "every_row": []}
    fault = {"kind": "leak", "detail": "d", "sure": "certain"}
    page = audit_report(summary, [{"name": "row 0", "faults": [fault], "messages": MESSAGES}])
    assert "[reasoning]\nI should look.\n[/reasoning]\n[tool calls]\n" in page and "&lt;b&gt;Oslo" in page
    assert "tool weather</h3>" in page and "assistant, not trained</h3>" in page


def test_croissant_describes_the_columns_that_the_build_has(manifest: dict[str, Any]) -> None:
    fields = croissant(manifest, split_with_tools().schema)["recordSet"][0]["field"]
    names = {field["name"]: field for field in fields}
    assert names["tools"]["dataType"] == "sc:Text"
    assert [part["name"] for part in names["messages"]["subField"]] == [
        "role", "content", "reasoning_content", "tool_calls", "name", "trained",
    ]  # fmt: skip
    assert names["messages"]["subField"][-1]["dataType"] == "sc:Boolean"
