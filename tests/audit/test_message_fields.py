"""Conversations with tools, reasoning, flags and system texts are audited without false alarms and repaired without loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataprep.audit import audit_file, write_repaired
from tests.support.audits import fault_kinds, read_records, write_records, write_texts

CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": "Oslo"}}}
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
ASKED = {"role": "user", "content": "Is it raining in Oslo?"}
CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "rain", "tool_call_id": "c1"}
ANSWERED = {"role": "assistant", "content": "Yes, it is.", "reasoning_content": "The tool says rain."}

LLAMA3_WITH_TOOLS = (
    "{{ bos_token }}{% for m in messages %}"
    "<|start_header_id|>{{ 'ipython' if m.role == 'tool' else m.role }}<|end_header_id|>\n\n{{ m.content | trim }}<|eot_id|>"
    "{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def llama3_config(folder: Path) -> Path:
    """A tokenizer_config.json whose template writes tool results under a header of their own."""
    path = folder / "tokenizer_config.json"
    config = {"chat_template": LLAMA3_WITH_TOOLS, "bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    path.write_text(json.dumps(config))
    return path


def header(role: str, content: str) -> str:
    return f"<|start_header_id|>{role}<|end_header_id|>\n\n{content}<|eot_id|>"


def test_rendered_tool_results_are_messages_of_their_own(tmp_path: Path) -> None:
    turns = [
        ("user", "Is it raining?"),
        ("assistant", '{"name": "weather"}'),
        ("ipython", "rain"),
        ("assistant", "Yes."),
    ]
    text = "<|begin_of_text|>" + "".join(header(*turn) for turn in turns)
    doubled = text.replace("<|eot_id|>", "<|eot_id|><|eot_id|>", 1).replace("Yes", "No")
    file = write_texts(tmp_path, [text, doubled])
    audit = audit_file(file, template=str(llama3_config(tmp_path)))
    assert [message["role"] for message in audit.messages[0]] == ["user", "assistant", "tool", "assistant"]
    assert {row: [fault.kind for fault in faults] for row, faults in audit.faults.items()} == {
        1: ["doubled_control_token"]
    }
    write_repaired(audit, tmp_path / "out.jsonl")
    assert [record["text"] for record in read_records(tmp_path / "out.jsonl")] == [text, text.replace("Yes", "No")]


def test_text_after_an_end_token_is_not_dropped_by_a_repair(tmp_path: Path) -> None:
    file = write_texts(tmp_path, ["<s>[INST] a [/INST] b </s>", "<s>[INST] a [/INST] c </s> and more"])
    audit = audit_file(file)
    assert [fault.kind for fault in audit.faults[1]] == ["unparsable"]
    assert write_repaired(audit, tmp_path / "out.jsonl")["left_out_rows"] == [1]


SOUND: dict[str, dict[str, Any]] = {
    "a call, its result and an answer": {"messages": [ASKED, CALLED, RESULT, ANSWERED], "tools": TOOLS},
    "several results": {"messages": [ASKED, {**CALLED, "tool_calls": [CALL, CALL]}, RESULT, RESULT, ANSWERED]},
    "an empty result": {"messages": [ASKED, CALLED, {**RESULT, "content": ""}, ANSWERED]},
    "a call at the end": {"messages": [ASKED, CALLED], "tools": TOOLS},
    "an answer that is not trained": {"messages": [ASKED, {**ANSWERED, "weight": 0}, ASKED, ANSWERED]},
    "an Alpaca record with system and history": {
        "instruction": "And on Mars?", "output": "38 %.", "system": "Be brief.", "history": [["On Earth?", "100 %."]],
    },
    "a ShareGPT record with a system column and tools": {
        "conversations": [
            {"from": "human", "value": "Rain?"},
            {"from": "function_call", "value": json.dumps(CALL["function"])},
            {"from": "observation", "value": "rain"},
            {"from": "gpt", "value": "Yes."},
        ],
        "system": "Be brief.",
        "tools": json.dumps(TOOLS),
    },
}  # fmt: skip


@pytest.mark.parametrize("kind", SOUND)
def test_sound_conversations_have_no_fault_and_are_written_whole(tmp_path: Path, kind: str) -> None:
    file = write_records(tmp_path / "set.jsonl", [SOUND[kind]])
    audit = audit_file(file)
    assert audit.faults == {}
    assert write_repaired(audit, tmp_path / "out.jsonl")["written"] == 1
    [written] = read_records(tmp_path / "out.jsonl")
    if "messages" in SOUND[kind]:
        assert written == SOUND[kind]
    else:
        assert audit.messages[0][0] == {"role": "system", "content": "Be brief."}
        again = audit_file(tmp_path / "out.jsonl")
        assert again.messages == audit.messages and again.faults == {}


@pytest.mark.parametrize(
    ("messages", "kind"),
    [
        ([ASKED, CALLED, RESULT], "unfinished"),
        ([ASKED, {"role": "assistant", "content": " "}], "empty_turn"),
        ([ASKED, CALLED, RESULT, ANSWERED, ANSWERED], "odd_roles"),
        ([ASKED, CALLED, RESULT, ANSWERED, RESULT, ANSWERED], "odd_roles"),
        ([RESULT, ANSWERED], "odd_roles"),
    ],
)
def test_faults_of_conversations_with_tools_are_found(tmp_path: Path, messages: list[Any], kind: str) -> None:
    assert kind in fault_kinds(write_records(tmp_path / "set.jsonl", [{"messages": messages}]))[0]


def test_conversations_that_differ_in_calls_reasoning_or_tools_are_no_duplicates(tmp_path: Path) -> None:
    other_call = {**CALL, "function": {"name": "weather", "arguments": {"city": "Bergen"}}}
    records: list[dict[str, Any]] = [
        {"messages": [ASKED, CALLED], "tools": TOOLS},
        {"messages": [ASKED, {**CALLED, "tool_calls": [other_call]}], "tools": TOOLS},
        {"messages": [ASKED, CALLED]},
        {"messages": [ASKED, ANSWERED]},
        {"messages": [ASKED, {**ANSWERED, "reasoning_content": "Something else."}]},
        {"messages": [ASKED, ANSWERED]},
    ]
    assert fault_kinds(write_records(tmp_path / "set.jsonl", records)) == {5: ["duplicate"]}
