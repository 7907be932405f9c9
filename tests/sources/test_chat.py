"""OpenAI messages, ShareGPT and Alpaca: shapes met in the wild, ids, and exports of our own builds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.reading import fates, json_lines, read_bytes, read_path, turns

CALLS = [{"type": "function", "function": {"name": "add", "arguments": "{}"}}]
HI = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]


def test_messages_of_every_shape_are_read_or_rejected(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    rows = [
        {"messages": HI},
        {"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": parts}]},
        {"messages": [{"role": "Assistant", "content": None, "tool_calls": CALLS}, {"role": "tool", "content": "5"}]},
        {"messages": []},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
        {"messages": [{"content": "whose?"}]},
        {"messages": [None]},
        {"messages": None},
        {"messages": "text"},
        {"messages": [{"role": "user", "content": None}]},
    ]
    reading = read_bytes(tmp_path, "m.jsonl", json_lines(rows))
    assert turns(reading) == [
        [("user", "hi"), ("assistant", "yo")],
        [("system", "s"), ("user", "ab")],
        [("assistant", ""), ("tool", "5")],
        [],
    ]
    assert fates(reading) == [(5, "unsupported_field"), *((line, "wrong_schema") for line in range(6, 11))]
    assert reading.fates["detail"][-1] == "turn 1 has no text: 'content' and 'value' have no value"


def test_sharegpt_turns_are_read_under_every_role_name(tmp_path: Path) -> None:
    names = ["system", "human", "gpt", "user", "chatgpt", "bot", "assistant", "observation"]
    rows = [{"conversations": [{"from": name, "value": name} for name in names]}, {"conversations": HI}]
    roles = ["system", "user", "assistant", "user", "assistant", "assistant", "assistant", "tool"]
    assert turns(read_bytes(tmp_path, "s.jsonl", json_lines(rows))) == [
        list(zip(roles, names, strict=True)),
        [("user", "hi"), ("assistant", "yo")],
    ]


def test_alpaca_input_follows_the_instruction_if_it_is_not_blank(tmp_path: Path) -> None:
    rows = [
        {"instruction": "i", "input": "x", "output": "o"},
        {"instruction": "i", "input": " \n", "output": "o"},
        {"instruction": "i", "input": None, "output": ""},
        {"instruction": "i", "output": "o"},
        {"instruction": "i", "input": "x"},
        {"instruction": "i", "input": {"a": 1}, "output": "o"},
    ]
    reading = read_bytes(tmp_path, "a.jsonl", json_lines(rows))
    assert turns(reading) == [
        [("user", "i\n\nx"), ("assistant", "o")],
        [("user", "i"), ("assistant", "o")],
        [("user", "i"), ("assistant", "")],
        [("user", "i"), ("assistant", "o")],
    ]
    assert fates(reading) == [(5, "wrong_schema"), (6, "wrong_schema")]


@pytest.mark.real
def test_real_sharegpt_conversations_keep_ids_turns_and_roles(real: Path) -> None:
    path = real / "sharegpt" / "dummy_conversation.json"
    rows = json.loads(path.read_text())
    reading = read_path(path)
    roles = {"human": "user", "gpt": "assistant"}
    assert turns(reading) == [[(roles[t["from"]], t["value"]) for t in row["conversations"]] for row in rows]
    assert reading.conversations["id"].to_list() == [row["id"] for row in rows]


def test_derived_ids_are_the_same_in_every_format(tmp_path: Path) -> None:
    texts = {
        "messages": {"messages": HI},
        "sharegpt": {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "yo"}]},
        "alpaca": {"instruction": "hi", "input": "", "output": "yo"},
        "guanaco": {"text": "### Human: hi### Assistant: yo"},
    }
    readings = {name: read_bytes(tmp_path, f"{name}.jsonl", json_lines([row])) for name, row in texts.items()}
    assert {name: reading.files[0].format for name, reading in readings.items()} == {name: name for name in texts}
    assert {reading.conversations["id"][0] for reading in readings.values()} == {
        "4ae7fa6e29276f71"
    }  # a digest that must never change


def test_derived_ids_depend_on_roles_and_on_the_bounds_of_turns(tmp_path: Path) -> None:
    pairs = [[("user", "ab"), ("user", "c")], [("user", "a"), ("user", "bc")], [("user", "ab"), ("bot", "c")],
             [("user", "abc")], [], [("user", "")], [("user", ""), ("user", "")]]  # fmt: skip
    rows = [{"messages": [{"role": role, "content": text} for role, text in pair]} for pair in pairs]
    assert read_bytes(tmp_path, "m.jsonl", json_lines(rows)).conversations["id"].n_unique() == len(rows)


def test_repeated_ids_do_not_depend_on_the_order_of_the_input(tmp_path: Path) -> None:
    rows = [{"id": 7, "messages": [{"role": "user", "content": text}]} for text in "abc"]
    rows += [{"messages": HI}, {"messages": HI}, {"id": "7~2", "messages": HI}]

    def ids(records: list[dict[str, object]]) -> dict[str, tuple[str, int]]:
        frame = read_bytes(tmp_path, "m.jsonl", json_lines(records)).conversations
        assert frame["id"].is_unique().all() and (frame["id"] == frame["tree_id"]).all()
        contents = [row[0]["content"] for row in frame["messages"].to_list()]
        return {
            name: (text, len(repairs))
            for name, text, repairs in zip(frame["id"], contents, frame["repairs"], strict=True)
        }

    forward = ids(rows)
    assert forward == ids(rows[::-1])
    assert {name.split("~")[0] for name in forward} == {"7", "4ae7fa6e29276f71"}
    assert forward["7"][1] == 0 and forward["7~3"][1] == 1  # a renamed id is recorded as a repair
    assert forward["4ae7fa6e29276f71~2"] == ("hi", 0)  # a derived id is not


def test_a_record_keeps_the_fields_that_describe_it(tmp_path: Path) -> None:
    own = {"id": "i", "tree_id": "t", "source": "s", "lang": "pt-BR", "message_ids": ["m1", "m2"], "spans": [[0, 1]]}
    rows = [{**own, "messages": HI}, {"id": "j", "messages": HI, "lang": {"odd": 1}}]
    frame = read_bytes(tmp_path, "export.jsonl", json_lines(rows)).conversations
    assert frame.select("id", "tree_id", "source", "lang", "message_ids").rows() == [
        ("i", "t", "export.jsonl", "pt-BR", ["m1", "m2"]),
        ("j", "j", "export.jsonl", None, []),
    ]
