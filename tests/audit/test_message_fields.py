"""Conversations with tools, reasoning, flags and system texts are audited without false alarms and repaired without loss."""

from __future__ import annotations

import json
from pathlib import Path

from dataprep.audit import audit_file, write_repaired
from tests.support.audits import read_records, write_texts

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
