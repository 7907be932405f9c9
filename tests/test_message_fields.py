"""Tools, reasoning and flags from the source to trl: used, rendered and stored, or dropped by a named rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from transformers.utils.chat_template_utils import render_jinja_template
from trl.trainer.utils import remove_none_values

from dataprep.common.errors import GateError
from dataprep.contract import open_build
from dataprep.rendering import load_template
from dataprep.store.fates import read_fates
from dataprep.store.verification import verify_build
from tests.support.builds import make_build

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a place.",
            "parameters": {"type": "object", "properties": {"place": {"type": "string", "description": "A town."}}},
        },
    }
]
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"place": "Zürich"}}}
PLAIN = {"messages": [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]}
CALLING = {
    "messages": [
        {"role": "user", "content": "How is the weather in Zürich?"},
        {"role": "assistant", "content": "", "tool_calls": [CALL]},
        {"role": "tool", "content": "12 °C", "name": "weather"},
        {"role": "assistant", "content": "It has 12 °C."},
    ],
    "tools": TOOLS,
}
FLAGGED = {
    "messages": [
        {"role": "user", "content": "What is red?"},
        {"role": "assistant", "content": "A number.", "weight": 0},
        {"role": "user", "content": "Really?"},
        {"role": "assistant", "content": "A colour.", "weight": 1},
    ]
}
THINKING = {
    "messages": [
        {"role": "user", "content": "Two and two?"},
        {"role": "assistant", "content": "Four.", "reasoning_content": "It is the sum."},
    ]
}


def write_records(folder: Path, *records: dict[str, Any]) -> str:
    path = folder / "chats.jsonl"
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module")
def template_with_tools(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Qwen 3's template as trl ships it, with its tokens stated in a header."""
    import trl

    source = (Path(trl.__file__).parent / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    header = '{#-\neos_token = "<|im_end|>"\nspecial_tokens = ["<|im_start|>", "<|im_end|>"]\n-#}\n'
    path = tmp_path_factory.mktemp("template") / "qwen3.jinja"
    path.write_text(header + source, encoding="utf-8")
    return str(path)


def test_trl_renders_the_same_text_from_the_messages_and_tools_of_a_build(
    tmp_path: Path, template_with_tools: str
) -> None:
    source = write_records(tmp_path, PLAIN, CALLING, THINKING)
    built = make_build(tmp_path / "store", source=(source,), template=template_with_tools)
    template = load_template(template_with_tools)
    variables: dict[str, Any] = dict(template.variables)
    dataset = load_from_disk(str(built.path))["train"]
    assert len(dataset) == 3
    for row in dataset.with_transform(remove_none_values):
        messages, tools = row["messages"], row.get("tools")
        texts = render_jinja_template([messages], tools, chat_template=template.source, **variables)[0]
        assert [str(text) for text in texts] == [row["text"]]
    assert verify_build(built.path)["rows"] == 3


def test_a_build_has_the_fields_that_its_records_have_and_no_others(tmp_path: Path, template_with_tools: str) -> None:
    for records, fields, columns in (
        ([PLAIN], ["role", "content"], set()),
        ([PLAIN, FLAGGED], ["role", "content", "trained"], set()),
        ([PLAIN, CALLING], ["role", "content", "tool_calls", "name"], {"tools"}),
        ([THINKING], ["role", "content", "reasoning_content"], set()),
    ):
        source = write_records(tmp_path, *records)
        built = make_build(tmp_path / "store", source=(source,), template=template_with_tools, force=True)
        schema = open_build(built.path).splits["train"].schema
        assert [field.name for field in schema.field("messages").type.value_type] == fields
        assert set(schema.names) & {"tools"} == columns


def test_fields_of_dropped_records_leave_no_trace_in_the_shards(tmp_path: Path) -> None:
    source = write_records(tmp_path, PLAIN, CALLING)
    built = make_build(tmp_path / "store", source=(source,), template="llama2")
    fates = read_fates(built.path).filter(fate="dropped")
    assert fates["rule"].to_list() == ["tools_not_in_template"]
    schema = open_build(built.path).splits["train"].schema
    assert [field.name for field in schema.field("messages").type.value_type] == ["role", "content"]
    assert "tools" not in schema.names


def test_an_answer_with_weight_zero_is_context_and_has_no_span(tmp_path: Path) -> None:
    built = make_build(tmp_path / "store", source=(write_records(tmp_path, FLAGGED),), template="llama2")
    (row,) = open_build(built.path).splits["train"].to_pylist()
    assert [row["text"][span["start"] : span["end"]] for span in row["spans"]] == [" A colour. </s>"]
    assert [turn["trained"] for turn in row["messages"]][1] is False


def test_keys_that_are_not_used_are_counted_in_the_manifest_and_noted(tmp_path: Path) -> None:
    source = write_records(tmp_path, PLAIN | {"score": 3}, FLAGGED)
    built = make_build(tmp_path / "store", source=(source,), template="llama2")
    manifest = json.loads((built.path / "manifest.json").read_text())
    assert manifest["unused_fields"] == {"score": 1} == built.summary["unused_fields"]
    assert any("'score'" in note for note in manifest["notes"])


def test_the_gate_refuses_a_template_that_leaves_out_the_system_text(tmp_path: Path) -> None:

    template = tmp_path / "deaf.jinja"
    template.write_text(
        '{#- eos_token = "</s>"\nspecial_tokens = ["</s>"] -#}\n{% for m in messages if m.role != "system" %}'
        "<{{ m.role }}>{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    with_system = {"messages": [{"role": "system", "content": "Be brief."}, *PLAIN["messages"]]}
    with pytest.raises(GateError, match="system_is_written: 1 of 2 rows"):
        make_build(
            tmp_path / "store",
            source=(write_records(tmp_path, with_system, FLAGGED),),
            template=str(template),
            gate="on",
        )
