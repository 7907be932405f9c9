"""Train flags, reasoning, tools and tool calls, and system texts beside the turns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.reading import fates, json_lines, read_bytes, read_path, write

QUESTION = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"x": 1, "a": 2}}}
TOOL = {"type": "function", "function": {"name": "add", "description": "Adds", "parameters": {"type": "object"}}}


def messages(folder: Path, *records: dict[str, Any], **options: Any) -> list[list[dict[str, Any]]]:
    """Read records and return their messages without null fields."""
    rows = read_bytes(folder, "d.jsonl", json_lines(records), **options).conversations["messages"].to_list()
    return [[{name: value for name, value in turn.items() if value is not None} for turn in row] for row in rows]


@pytest.mark.parametrize(
    ("flag", "trained"),
    [
        ({"weight": 0}, False),
        ({"weight": 0.0}, False),
        ({"weight": 1}, None),
        ({"train": False}, False),
        ({"train": "false"}, False),
        ({"training": False}, False),
        ({"trained": False}, False),
        ({"loss": False}, False),
        ({"loss": True}, None),
        ({"mask": True}, False),
        ({"mask": False}, None),
        ({"weight": None}, None),
        ({"train": True, "weight": 0}, False),
    ],
)
def test_a_flag_says_whether_an_answer_is_trained(tmp_path: Path, flag: dict[str, Any], trained: bool | None) -> None:
    [[_, answer]] = messages(tmp_path, {"messages": [QUESTION, {**ANSWER, **flag}]})
    assert answer == {**ANSWER, **({} if trained is None else {"trained": trained})}


def test_a_flag_of_another_role_is_never_set_and_counted_if_it_asks_for_training(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"messages": [{**QUESTION, "train": True}, {**ANSWER, "train": False}]}]
    rows += [{"messages": [{**QUESTION, "train": False}, ANSWER]}]
    reading = read_bytes(tmp_path, "d.jsonl", json_lines(rows))
    trained = [[turn["trained"] for turn in row] for row in reading.conversations["messages"].to_list()]
    assert trained == [[None, False], [None, None]]
    assert reading.unused_fields == {"messages.train": 1}


def test_a_weight_between_0_and_1_rejects_the_record(tmp_path: Path) -> None:
    reading = read_bytes(tmp_path, "d.jsonl", json_lines([{"messages": [QUESTION, {**ANSWER, "weight": 0.5}]}]))
    assert reading.fates["detail"].to_list() == ["turn 2 has a 'weight' other than 0 and 1, which cannot be used"]


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_read_under_every_key(tmp_path: Path, key: str) -> None:
    [[_, answer]] = messages(tmp_path, {"messages": [QUESTION, {**ANSWER, key: "hmm"}]})
    assert answer == {**ANSWER, "reasoning_content": "hmm"}


def test_reasoning_of_a_question_or_two_different_texts_reject_the_record(tmp_path: Path) -> None:
    rows = [
        {"messages": [{**QUESTION, "thinking": "x"}, ANSWER]},
        {"messages": [QUESTION, {**ANSWER, "thinking": "x", "reasoning": "y"}]},
        {"messages": [QUESTION, {**ANSWER, "thinking": "x", "reasoning": "x"}]},
    ]
    reading = read_bytes(tmp_path, "d.jsonl", json_lines(rows))
    assert fates(reading) == [(1, "unsupported_field"), (2, "unsupported_field")]


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "assistant", "tool_calls": json.dumps([CALL])},
        {"role": "assistant", "content": "", "tool_calls": [CALL["function"]]},
        {"role": "assistant", "tool_calls": [{"function": {"name": "add", "arguments": '{"x": 1, "a": 2}'}}]},
        {"role": "assistant", "function_call": {"name": "add", "arguments": '{"x": 1, "a": 2}'}},
        {"from": "function_call", "value": '{"name": "add", "arguments": {"x": 1, "a": 2}}'},
        {"from": "function_call", "value": '[{"name": "add", "arguments": {"x": 1, "a": 2}}]'},
    ],
)
def test_tool_calls_of_every_shape_become_the_same_json_text(tmp_path: Path, turn: dict[str, Any]) -> None:
    [[_, answer, result, _]] = messages(
        tmp_path, {"messages": [QUESTION, turn, {"role": "observation", "content": "3"}, ANSWER]}
    )
    expected = '[{"type":"function","function":{"name":"add","arguments":{"x":1,"a":2}}}]'
    assert answer == {"role": "assistant", "content": "", "tool_calls": expected}
    assert result == {"role": "tool", "content": "3"}


def test_calls_and_results_keep_their_ids_and_names(tmp_path: Path) -> None:
    call = {"id": "c1", "index": 0, "mood": "x", **CALL}
    result = {"role": "tool", "content": "3", "tool_call_id": "c1", "name": "add"}
    rows = [{"messages": [QUESTION, {"role": "assistant", "content": None, "tool_calls": [call, call]}, result]}]
    reading = read_bytes(tmp_path, "d.jsonl", json_lines(rows))
    answer, tool_turn = reading.conversations["messages"].to_list()[0][1:]
    assert json.loads(answer["tool_calls"]) == [{"type": "function", "id": "c1", "function": CALL["function"]}] * 2
    assert {name: value for name, value in tool_turn.items() if value is not None} == result
    assert reading.unused_fields == {"messages.tool_calls.mood": 2}


def test_arguments_that_are_not_json_stay_text(tmp_path: Path) -> None:
    turn = {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "x = 1"}}]}
    [[_, answer]] = messages(tmp_path, {"messages": [QUESTION, turn]})
    assert json.loads(answer["tool_calls"])[0]["function"]["arguments"] == "x = 1"


@pytest.mark.parametrize(
    ("turn", "words"),
    [
        ({"role": "assistant", "tool_calls": [{}]}, "without the name of a function"),
        ({"role": "assistant", "tool_calls": "no JSON"}, "not JSON"),
        ({"role": "assistant", "tool_calls": [5]}, "not an object"),
        ({"from": "function_call", "value": "add(1)"}, "not JSON"),
        ({"from": "function_call", "value": None}, "without a text"),
    ],
)
def test_malformed_calls_reject_the_record(tmp_path: Path, turn: dict[str, Any], words: str) -> None:
    reading = read_bytes(tmp_path, "d.jsonl", json_lines([{"messages": [QUESTION, turn]}]))
    assert fates(reading) == [(1, "wrong_schema")] and words in reading.fates["detail"][0]


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    "tools", [[TOOL], json.dumps([TOOL]), [TOOL["function"]], json.dumps([TOOL["function"]]), [json.dumps(TOOL)]]
)
def test_tools_of_every_shape_become_the_same_json_text(tmp_path: Path, container: str, tools: object) -> None:
    record = {"messages": [QUESTION, ANSWER], "tools": tools}
    frame = read_path(write(tmp_path, container, [record])).conversations
    [function] = [tool["function"] for tool in json.loads(frame["tools"][0])]
    assert list(function) == ["name", "description", "parameters"] and function["name"] == "add"


def test_tools_and_messages_have_only_the_columns_that_occur(tmp_path: Path) -> None:
    rows = [{"messages": [QUESTION, {**ANSWER, "weight": 1, "name": ""}], "tools": [], "system": ""}]
    frame = read_bytes(tmp_path, "d.jsonl", json_lines(rows)).conversations
    assert "tools" not in frame.columns and set(frame["messages"][0].struct.fields) == {"role", "content"}


@pytest.mark.parametrize("key", ["tools", "functions"])
def test_malformed_tools_reject_the_record(tmp_path: Path, key: str) -> None:
    rows = [{"messages": [QUESTION, ANSWER], key: value} for value in ("no JSON", [5], [{"description": "x"}], 5)]
    reading = read_bytes(tmp_path, "d.jsonl", json_lines(rows))
    assert fates(reading) == [(line, "wrong_schema") for line in (1, 2, 3, 4)]


@pytest.mark.parametrize("key", ["system", "system_prompt"])
@pytest.mark.parametrize("turns", ["messages", "conversations"])
def test_a_system_text_beside_the_turns_becomes_the_first_turn(tmp_path: Path, key: str, turns: str) -> None:
    rows = [{turns: [QUESTION, ANSWER], key: "Be brief."}, {turns: [QUESTION, ANSWER], key: " "}]
    assert messages(tmp_path, *rows) == [
        [{"role": "system", "content": "Be brief."}, QUESTION, ANSWER],
        [QUESTION, ANSWER],
    ]


def test_a_system_text_may_repeat_the_system_turn_but_not_contradict_it(tmp_path: Path) -> None:
    system = {"role": "system", "content": "Be brief."}
    rows = [{"messages": [system, QUESTION, ANSWER], "system": text} for text in ("Be brief.", "Be long.")]
    reading = read_bytes(tmp_path, "d.jsonl", json_lines(rows))
    assert reading.conversations.height == 1 and fates(reading) == [(2, "unsupported_field")]


@pytest.mark.parametrize("history", [[["On Mars?", "38 %."]], [], None])
def test_alpaca_system_and_history_come_before_the_question(tmp_path: Path, history: object) -> None:
    record = {"instruction": "And here?", "input": "", "output": "100 %.", "system": "Physics.", "history": history}
    [row] = messages(tmp_path, record)
    earlier = ["On Mars?", "38 %."] if history else []
    assert [turn["content"] for turn in row] == ["Physics.", *earlier, "And here?", "100 %."]


def test_a_prompt_has_its_history_before_it_and_other_formats_refuse_one(tmp_path: Path) -> None:
    [row] = messages(tmp_path, {"prompt": "And here?", "completion": "100 %.", "history": [["On Mars?", "38 %."]]})
    assert [turn["content"] for turn in row] == ["On Mars?", "38 %.", "And here?", "100 %."]
    rows = [{"messages": [QUESTION, ANSWER], "history": history} for history in ([["a", "b"]], [], None)]
    assert fates(read_bytes(tmp_path, "d.jsonl", json_lines(rows))) == [(1, "unsupported_field")]


def test_guanaco_text_gets_system_texts_and_tools_from_their_columns(tmp_path: Path) -> None:
    text = "### Human: q### Assistant: a"
    rows = [{"text": text, "system": "Be brief.", "tools": [TOOL]}, {"text": text, "tools": "no JSON"}, {"text": text}]
    reading = read_bytes(tmp_path, "g.jsonl", json_lines(rows))
    assert [row[0]["role"] for row in reading.conversations["messages"].to_list()] == ["system", "user"]
    assert reading.conversations["tools"].is_null().to_list() == [False, True]
    assert fates(reading) == [(2, "wrong_schema")]


def test_ids_depend_on_tools_and_on_every_field_of_a_turn(tmp_path: Path) -> None:
    variants: list[dict[str, Any]] = [{}, {"reasoning": "x"}, {"weight": 0}, {"name": "x"}, {"tool_calls": [CALL]}]
    rows = [{"messages": [QUESTION, {**ANSWER, **variant}]} for variant in variants]
    rows += [{"messages": [QUESTION, ANSWER], "tools": [TOOL]}]
    frame = read_bytes(tmp_path, "d.jsonl", json_lines(rows)).conversations
    assert frame["id"].n_unique() == len(rows)
    plain = read_bytes(tmp_path, "p.jsonl", json_lines(rows[:1])).conversations
    assert frame["id"][0] == plain["id"][0]


@pytest.mark.real
def test_the_real_glaive_file_gives_calls_results_and_tools(real: Path) -> None:
    reading = read_path(real / "shapes" / "glaive_toolcall_en_demo.json")
    frame = reading.conversations
    turns = [turn for row in frame["messages"].to_list() for turn in row]
    assert frame.height == 300 and len(turns) == 1914 and reading.fates.is_empty() and reading.notes == []
    assert sum(turn["tool_calls"] is not None for turn in turns) == 211
    assert sum(turn["role"] == "tool" for turn in turns) == 211
    assert sum(turn["role"] == "assistant" for turn in turns) == 746 + 211
    assert frame["tools"].null_count() == 109


@pytest.mark.real
def test_the_real_alpaca_file_gives_its_history(real: Path) -> None:
    path = real / "shapes" / "oaast_sft_zh.json"
    rows = json.loads(path.read_text())
    reading = read_path(path)
    lengths = [2 + 2 * len(row["history"]) for row in rows]
    assert reading.conversations["messages"].list.len().to_list() == lengths and sum(lengths) == 2276
    assert reading.conversations.height == 689 and reading.fates.is_empty() and reading.notes == []
