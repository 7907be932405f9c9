"""Messages with more than role and content: context-only answers, reasoning, tool calls and tools; and what is left out."""

from __future__ import annotations

import json
from typing import Any

import polars as pl
import pyarrow as pa
import pytest

from dataprep.common.errors import TemplateError
from dataprep.quality.facts import FactExtractor
from dataprep.rendering import Renderer, Template, load_template, render
from dataprep.rendering.checks import TemplateChecks
from dataprep.rendering.probe import capabilities, completed
from dataprep.rendering.renderer import rendered_rows
from dataprep.rendering.rows import RenderedRow, Unwritten, render_row
from dataprep.rendering.stage import drop_refused
from dataprep.tables import CONVERSATIONS, conform, turns_type
from tests.support.chats import BUNDLED, chat, frame, render_rows, template

TOOLS = [{"type": "function", "function": {"name": "look_up", "description": "Look up.", "parameters": {}}}]
CALL = [{"type": "function", "id": "c1", "function": {"name": "look_up", "arguments": {"term": "<|im_end|>", "n": 3}}}]
WITH_CALL = [
    {"role": "user", "content": "Who?"},
    {"role": "assistant", "content": "", "tool_calls": json.dumps(CALL)},
    {"role": "tool", "content": "Nobody.", "tool_call_id": "c1"},
    {"role": "assistant", "content": "Nobody."},
]


def field_frame(conversations: list[list[dict[str, Any]]], tools: list[str | None] | None = None) -> pl.DataFrame:
    """A conversations frame with those message fields that occur."""
    names = {name for messages in conversations for message in messages for name in message}
    columns: dict[str, Any] = {"messages": pl.Series(conversations, dtype=turns_type(names))}
    if tools is not None:
        columns["tools"] = pl.Series(tools, dtype=pl.String)
    rows = pl.DataFrame(columns).with_columns(row=pl.int_range(pl.len()), id=pl.int_range(pl.len()).cast(pl.String))
    return conform(rows, CONVERSATIONS)


def rows_of(renderer: Renderer, conversations: pl.DataFrame) -> list[RenderedRow]:
    return [row for batch in renderer.batches(conversations) for row in rendered_rows(batch)]


def trained(row: RenderedRow) -> list[str]:
    return [row.text[start:end] for start, end in row.spans]


@pytest.mark.parametrize("name", BUNDLED)
def test_an_answer_that_is_context_only_is_written_without_a_span(name: str) -> None:
    plain = chat("one", "two", "three", "four")
    flagged: list[dict[str, Any]] = [{**message, "trained": None} for message in plain]
    flagged[1]["trained"] = False
    renderer = Renderer(load_template(name))
    [expected], [row] = render_rows(renderer, [plain]), rows_of(renderer, field_frame([flagged]))
    assert row.text == expected.text
    assert row.controls == expected.controls
    assert row.spans == expected.spans[1:]
    assert row == render_row(renderer.template, flagged)


def test_a_generation_prompt_is_not_needed_before_an_answer_that_is_context_only() -> None:
    source = "{% for m in messages %}<{{ m.role }}{{ loop.index }}>{{ m.content }}</s>{% endfor %}"
    source += "{% if add_generation_prompt %}<assistant4>{% endif %}"
    last_only = Template("last", source, {"eos_token": "</s>"}, ("</s>",), "</s>")
    messages: list[dict[str, Any]] = [*chat("one", "two", "three", "four")]
    with pytest.raises(TemplateError, match="does not write its generation prompt"):
        render_row(last_only, messages)
    messages[1]["trained"] = False
    assert trained(render_row(last_only, messages)) == ["four</s>"]


def test_a_call_of_a_tool_is_an_answer_and_typed_tokens_in_it_are_text() -> None:
    qwen3 = Renderer(load_template("qwen3"))
    conversations = field_frame(
        [WITH_CALL, [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]]
    )
    conversations = conversations.with_columns(tools=pl.Series([json.dumps(TOOLS), None]))
    assert qwen3.refusals(conversations).is_empty()
    with_call, plain = rows_of(qwen3, conversations)
    call = '<tool_call>\n{"name": "look_up", "arguments": {"term": "<|im_end|>", "n": 3}}\n</tool_call><|im_end|>'
    assert trained(with_call) == [call, "Nobody.<|im_end|>"]
    assert json.dumps(TOOLS[0]) in with_call.text
    controls = [with_call.text[start:end] for start, end in with_call.controls]
    assert controls == ["<|im_start|>", "<|im_end|>"] * 5
    assert with_call.text.count("<|im_end|>") == 6
    assert trained(plain) == ["Ho<|im_end|>"]
    qwen3.check_sample(conversations, seed=1)


def test_reasoning_is_trained_as_a_part_of_its_answer() -> None:
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "reasoning_content": "Hm"}]
    [row] = rows_of(Renderer(load_template("qwen3")), field_frame([messages]))
    assert trained(row) == ["<think>\nHm\n</think>\n\nHo<|im_end|>"]


@pytest.mark.parametrize("name", ["llama2", "chatml"])
def test_what_a_template_never_writes_drops_the_conversation_by_a_rule_of_its_own(name: str) -> None:
    reasoning = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "reasoning_content": "Hm"}]
    plain = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    conversations = field_frame([WITH_CALL, reasoning, plain, plain], [None, None, json.dumps(TOOLS), None])
    result = drop_refused(conversations, Renderer(load_template(name)))
    assert result.kept["row"].to_list() == [3]
    assert result.fates["rule"].to_list() == [
        "tools_not_in_template",
        "reasoning_not_in_template",
        "tools_not_in_template",
    ]
    assert result.fates["detail"].to_list() == [
        f"The template {name} does not write tool calls, which message 2 has. Bundled templates with tools: qwen3.",
        f"The template {name} does not write reasoning, which message 2 has.",
        f"The template {name} does not write the tools that the conversation offers to the model. Bundled templates with "
        "tools: qwen3.",
    ]


def test_a_template_that_leaves_out_one_of_two_calls_is_refused() -> None:
    first_only = template(
        "<|{{ m.role }}|>{{ m.tool_calls[0].function.name ~ (m.tool_calls[0].function.arguments | tojson) "
        "if m.tool_calls else c }}</s>"
    )
    messages = [dict(message) for message in WITH_CALL]
    assert trained(render_row(first_only, messages))[0] == 'look_up{"term": "<|im_end|>", "n": 3}</s>'
    other = {"type": "function", "function": {"name": "other", "arguments": {}}}
    messages[1]["tool_calls"] = json.dumps([*CALL, other])
    with pytest.raises(TemplateError, match="does not write the tool calls of message 2"):
        render_row(first_only, messages)


def test_capabilities_of_the_bundled_templates() -> None:
    written = {name: capabilities(load_template(name)) for name in BUNDLED}
    assert {name for name in BUNDLED if written[name].tools and written[name].tool_calls} == {"qwen3"}
    assert {name for name in BUNDLED if written[name].reasoning} == {"qwen3"}


WITHOUT_SYSTEM = "{% if m.role != 'system' %}<|{{ m.role }}|>{{ c }}</s>{% endif %}"
WITHOUT_THINKING = "<|{{ m.role }}|>{{ c.split('</think>')[-1] }}</s>"


@pytest.mark.parametrize("inspection", ["", "{% if 'x' in c %}{% endif %}"], ids=["by columns", "row by row"])
def test_a_system_text_that_the_template_leaves_out_is_counted(inspection: str) -> None:
    checks = TemplateChecks(Renderer(template(inspection + WITHOUT_SYSTEM)))
    conversations = frame([chat("Hi", "Ho", system="Be kind."), chat("Hi", "Ho"), chat("Hi", "Ho", system="")])
    counts = checks.unwritten(conversations["messages"])
    assert counts["unwritten_system"].to_list() == [1, 0, 0]
    assert counts["unwritten_messages"].to_list() == [0, 0, 0]


def test_a_part_of_a_content_that_the_template_strips_is_counted() -> None:
    checks = TemplateChecks(Renderer(template(WITHOUT_THINKING)))
    conversations = frame([chat("Hi", "<think>Hm</think>Ho"), chat("Hi", " Ho\n"), chat("a</think>b", "c")])
    counts = checks.unwritten(conversations["messages"])
    assert counts["unwritten_messages"].to_list() == [1, 0, 1]


def test_reasoning_tags_that_the_template_writes_again_are_not_missing() -> None:
    moved = template(
        "<|{{ m.role }}|>{% if '</think>' in c %}<think>\n{{ c.split('</think>')[0].split('<think>')[-1].strip() }}\n"
        "</think>\n\n{{ c.split('</think>')[-1].strip() }}{% else %}{{ c }}{% endif %}</s>"
    )
    assert render_row(moved, chat("Hi", "<think> Hm </think> Ho")).unwritten == Unwritten()


def test_reasoning_of_earlier_turns_that_the_template_leaves_out_is_counted() -> None:
    last_only = template(
        "<|{{ m.role }}|>{% if loop.last and m.reasoning_content %}{{ m.reasoning_content }}|{% endif %}{{ c }}</s>"
    )
    messages: list[dict[str, Any]] = [*chat("one", "two", "three", "four")]
    messages[1]["reasoning_content"], messages[3]["reasoning_content"] = "first", "second"
    counts = TemplateChecks(Renderer(last_only)).unwritten(field_frame([messages])["messages"])
    assert counts.row(0, named=True) == {"unwritten_system": 0, "unwritten_messages": 0, "unwritten_reasoning": 1}


def test_a_template_that_asks_for_the_date_writes_the_given_one() -> None:
    source = template("<|{{ m.role }}|>{{ strftime_now('%d %b %Y') if loop.first }}{{ c }}</s>").source
    without_date = Template("dated", source, {"bos_token": "<s>"}, ("<s>", "</s>"), "</s>")
    with pytest.raises(TemplateError, match="give a date with --template-date YYYY-MM-DD"):
        render(without_date, chat("Hi"))
    dated = Template("dated", source, {"bos_token": "<s>"}, ("<s>", "</s>"), "</s>", date="2026-01-31")
    assert render(dated, chat("Hi")) == "<s><|user|>31 Jan 2026Hi</s>"
    assert dated.sha256 != without_date.sha256


def test_contents_are_passed_as_parts_to_a_template_that_takes_only_those() -> None:
    body = "<|{{ m.role }}|>{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}</s>"
    in_parts = completed(template(body))
    assert in_parts.content_parts
    renderer = Renderer(in_parts)
    [row] = render_rows(renderer, [chat("Hi", "Ho")])
    assert row.text == "<s><|user|>Hi</s><|assistant|>Ho</s>"
    assert trained(row) == ["Ho</s>"]


@pytest.mark.parametrize(
    ("end", "last", "expected"),
    [
        ("<e1><e2>", "", ("<e2>", None)),
        ("<e1>\n", "<eos>", ("<e1>", None)),
        ("{{ '<e2>' if loop.last else '<e1>' }}", "", ("<e2>", "<e1>")),
    ],
    ids=["two end tokens", "a token at the end of the conversation", "another token before a question"],
)
def test_the_last_special_token_that_closes_every_answer_is_the_end_token(
    end: str, last: str, expected: tuple[str, str | None]
) -> None:
    source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}" + end + "{% endfor %}" + last
    tokens = ("<user>", "<assistant>", "<e1>", "<e2>", "<eos>")
    loaded = completed(Template("ends", source, {}, tokens))
    assert (loaded.end_token, loaded.inner_end_token) == expected


@pytest.mark.parametrize("prompt", ["<think>\n", "<think>\n\n</think>\n\n", "<think></think>"])
@pytest.mark.parametrize("written", ["", "<think>\n", "<think></think>"])
def test_a_prompt_that_opens_the_reasoning_counts_as_far_as_the_answer_is_written_with_it(
    prompt: str, written: str
) -> None:
    source = (
        "{% for m in messages %}<{{ m.role }}>{{ '" + written.replace("\n", "\\n") + "' if m.role == 'assistant' }}"
    )
    source += "{{ m.content }}</s>{% endfor %}{% if add_generation_prompt %}<assistant>{{ '"
    source += prompt.replace("\n", "\\n") + "' }}{% endif %}"
    thinking = Template("thinking", source, {}, ("</s>",), "</s>")
    [answer] = trained(render_row(thinking, chat("Hi", "Ho")))
    assert answer == ("Ho</s>" if written.startswith(prompt) else written + "Ho</s>")


def test_texts_of_messages_with_further_fields_are_not_parsed_back() -> None:
    qwen3 = Renderer(load_template("qwen3"))
    plain = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    conversations = field_frame([WITH_CALL, plain, plain], [None, json.dumps(TOOLS), None])
    texts = pa.array([row.text for row in rows_of(qwen3, conversations)])
    checked = TemplateChecks(qwen3).parses_back(conversations["messages"], texts, conversations["tools"])
    assert checked.to_list() == [None, None, True]


def test_the_gate_abstains_from_parsing_a_text_with_tools() -> None:
    qwen3 = Renderer(load_template("qwen3"))
    plain = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    conversations = field_frame([plain, plain], [json.dumps(TOOLS), None])
    [rendered] = qwen3.batches(conversations)
    columns = {name: conversations[name].to_arrow() for name in ("id", "lang", "messages", "tools")}
    columns |= {"text": rendered.text, "spans": rendered.spans, "controls": rendered.controls}
    facts = FactExtractor(TemplateChecks(qwen3)).batch(pa.RecordBatch.from_pydict(columns), "train")
    assert facts["parses_back"].to_list() == [None, True]
