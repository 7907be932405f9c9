"""Property: whatever keys, flags and splits records have, every key with a value is used, rejects its record, or is counted.

Both readers (by columns, and line by line) give the same result.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from dataprep.sources import jsonlines
from dataprep.sources.coercion import has_value
from dataprep.sources.columns import NeedsLineReader
from dataprep.sources.reader import Reading
from tests.support.reading import json_lines, read_bytes

TEXT = st.sampled_from(["", "a", "b c", "0", "null", "é"])
NUMBER = st.sampled_from([0, 1, 2, 0.0, 0.5, -1])
SCALAR = st.none() | st.booleans() | NUMBER | TEXT | st.just(float("nan"))
VALUE = SCALAR | st.lists(SCALAR, max_size=2) | st.dictionaries(st.sampled_from(["x", "y"]), SCALAR, max_size=2)
TOOLS = st.sampled_from([[], [{"name": "f"}], '[{"type": "function", "function": {"name": "f"}}]', "", "no JSON", None])
CALLS: st.SearchStrategy[Any] = st.sampled_from(
    [None, [], [{"function": {"name": "f", "arguments": "{}"}}], [{"name": "f", "mood": 1}], "x", [{}]]
)

RECORD_KEYS = st.fixed_dictionaries(
    {},
    optional={
        "id": TEXT,
        "lang": TEXT,
        "system": TEXT,
        "tools": TOOLS,
        "split": st.sampled_from(["train", "test", "other", None]),
        "source": TEXT,
        "score": VALUE,
        "tags": VALUE,
        "label": VALUE,
        "images": VALUE,
        "rejected": VALUE,
        "weight": SCALAR,
        "history": st.sampled_from([None, [], [["q", "a"]], "x"]),
    },
)
TURN_KEYS = st.fixed_dictionaries(
    {},
    optional={
        "weight": SCALAR,
        "train": SCALAR,
        "mask": SCALAR,
        "reasoning": TEXT,
        "thinking": TEXT,
        "tool_calls": CALLS,
        "function_call": CALLS.map(lambda calls: calls[0] if isinstance(calls, list) and calls else calls),
        "name": TEXT,
        "tool_call_id": TEXT,
        "emoji": VALUE,
        "images": VALUE,
    },
)


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    extra = draw(RECORD_KEYS)
    shape = draw(st.sampled_from(["messages", "conversations", "alpaca", "completion", "guanaco"]))
    if shape == "alpaca":
        return {"instruction": "q", "input": draw(TEXT), "output": "a", **extra}
    if shape == "guanaco":
        return {"text": "### Human: q### Assistant: a", **extra}
    if shape == "completion":
        return {"prompt": "q", "completion": "a", **extra}
    question = {"role": "user", "content": "q", **draw(TURN_KEYS)}
    answer = {"role": "assistant", "content": "a", **draw(TURN_KEYS)}
    return {shape: [question, answer], **extra}


def refuse(*arguments: Any) -> None:
    raise NeedsLineReader


@settings(max_examples=250, deadline=None)
@given(rows=st.lists(records(), min_size=1, max_size=4))
def test_every_key_with_a_value_is_used_or_named_or_counted(rows: list[dict[str, Any]]) -> None:
    first = rows[0]
    rows = [
        row
        for row in rows
        if row.keys() & {"messages", "conversations", "instruction", "prompt", "text"} & first.keys()
    ]
    rows[0] = {name: value for name, value in first.items() if name != "rejected"}  # not a file of preferences
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        reading = read_bytes(Path(folder), "d.jsonl", json_lines(rows))
        patch.setattr(jsonlines, "_parse_by_columns", refuse)
        slow = read_bytes(Path(folder), "d.jsonl", json_lines(rows))
    assert_frame_equal(reading.conversations, slow.conversations)
    assert reading.fates.select("line", "rule").equals(slow.fates.select("line", "rule"))
    check(rows, reading)
    check(rows, slow)


def check(rows: list[dict[str, Any]], reading: Reading) -> None:
    """Every key of a record that was kept is used or counted, and every count stands in a note."""
    kept = dict(zip(reading.conversations["line"], reading.conversations.to_dicts(), strict=True))
    assert sorted([*kept, *reading.fates["line"]]) == list(range(1, len(rows) + 1))
    unused = reading.unused_fields
    noted = " ".join(reading.notes)
    assert all(f"'{name.removeprefix('messages.')}'" in noted for name in unused)
    for line, conversation in kept.items():
        record = rows[line - 1]
        for name, value in record.items():
            if not has_value(value) or name in ("messages", "conversations"):
                continue
            if not (is_used(name, value, conversation) or unused.get(name)):
                assert f"'{name}'" in noted, name
        for turn, sent in zip(
            conversation["messages"][-2:], record.get("messages", record.get("conversations", [])), strict=False
        ):
            for name, value in sent.items():
                if has_value(value):
                    used = (
                        turn_is_used(name, value, turn)
                        or unused.get(f"messages.{name}")
                        or f"'messages.{name}'" in noted
                    )
                    assert used, name


def is_used(name: str, value: Any, conversation: dict[str, Any]) -> bool:
    """Whether a key of a record has its effect on the conversation."""
    contents = [turn["content"] for turn in conversation["messages"]]
    if name == "id":
        return conversation["id"].split("~")[0] == value  # repeated ids become id~2, id~3 …
    if name == "lang":
        return conversation["lang"] == value
    if name == "system":
        return contents[0] == value
    if name == "tools":
        return conversation.get("tools") is not None
    if name == "history":
        return contents[:-2] == ["q", "a"] or contents[1:-2] == ["q", "a"]
    if name == "input":
        return contents[-2] == f"q\n\n{value}"
    return name in ("instruction", "output", "prompt", "completion", "text") or (name == "split" and value != "test")


def calls_of(value: Any) -> bool:
    """Whether a value holds any call."""
    return has_value(value) and value != "[]"


def turn_is_used(name: str, value: Any, turn: dict[str, Any]) -> bool:
    """Whether a key of a turn has its effect on the message."""
    if name in ("weight", "train", "mask"):
        excludes = value in (0, "0") if name != "mask" else value in (1, "1")
        if excludes:
            return turn["role"] != "assistant" or turn.get("trained") is False
        return turn["role"] == "assistant"
    if name in ("reasoning", "thinking"):
        return turn.get("reasoning_content") == value
    if name in ("tool_calls", "function_call"):
        return turn.get("tool_calls") is not None or not calls_of(value)
    if name in ("name", "tool_call_id"):
        return turn.get(name) == value
    return name in ("role", "content") and turn[name] == value
