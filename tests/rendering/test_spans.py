"""Spans: generation prompts in long conversations, and `{% generation %}` blocks."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.common.errors import TemplateError
from dataprep.rendering import Renderer, Template, load_template, plan, rows, spans
from dataprep.rendering.rows import render_row
from dataprep.rendering.template import Conversation
from tests.support.chats import BUNDLED, chat, frame, render_rows, template


def test_a_conversation_of_200_turns_has_100_spans() -> None:
    messages = chat(*(f"turn {number}" for number in range(200)))
    llama3 = Renderer(load_template("llama3"))
    [row] = render_rows(llama3, [messages])
    assert len(row.spans) == 100
    assert row == render_row(llama3.template, messages)


@pytest.mark.parametrize("name", BUNDLED)
def test_work_is_linear_in_the_number_of_turns(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All runs of the template together see a bounded number of messages for each message of the conversation."""
    messages_seen = 0
    monkeypatch.setattr(plan, "_derivations", {})  # of earlier tests

    def counting(run: Callable[..., Any]) -> Callable[..., Any]:
        def counted(template: Any, messages: Any, *more: Any, **named: Any) -> Any:
            nonlocal messages_seen
            messages_seen += len(messages.messages if isinstance(messages, Conversation) else messages)
            return run(template, messages, *more, **named)

        return counted

    functions = ((plan, "render_symbolically"), (plan, "render"), (rows, "render"), (rows, "render_tainted"))
    for module, function in functions:
        monkeypatch.setattr(module, function, counting(getattr(module, function)))
    for turns in (100, 400):
        conversations = frame([chat(*(f"turn {number}" for number in range(turns)))])
        renderer = Renderer(load_template(name))
        messages_seen = 0
        assert renderer.refusals(conversations).is_empty()
        assert list(renderer.batches(conversations))
        assert turns < messages_seen < 4 * turns
        messages_seen = 0
        render_row(renderer.template, conversations["messages"][0].to_list())
        assert turns < messages_seen < 5 * turns


PROMPTS = {  # generation prompts that depend on more than the last messages
    "plain": "<bot>",
    "system": "{{ '<bot>' if messages[0].content == 'x' else '<bot><t>' }}",
    "first question": "<bot>{% if 'x' in messages[0].content %}<t>{% endif %}",
    "any question": "<bot>{% if 'x' in messages | map(attribute='content') | join %}<t>{% endif %}",
    "last question": "<bot>{% if 'x' in messages[-1].content %}<t>{% endif %}",
    "length": "<bot>{% if messages | length > 5 %}<t>{% endif %}",
    "shorter when long": "{% if messages | length <= 5 %}<bot>{% endif %}",
}


@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS)
@pytest.mark.parametrize("header", ["<bot>", "<bot><t>", "<bot>{% if 'x' in messages[0].content %}<t>{% endif %}"])
@settings(max_examples=40, deadline=None)
@given(turns=st.lists(st.sampled_from(["x", "y"]), min_size=5, max_size=14), system=st.sampled_from([None, "x", "y"]))
def test_prompts_found_from_recent_messages_equal_those_of_the_complete_history(
    prompt: str, header: str, turns: list[str], system: str | None
) -> None:
    body = "{{ bos_token }}{% for m in messages %}{% set c = m.content %}{% if m.role == 'assistant' %}" + header
    body += "{% else %}<{{ m.role }}>{% endif %}{{ c }}</s>{% endfor %}{% if add_generation_prompt %}" + prompt
    prompting = Template("prompting", body + "{% endif %}", {"bos_token": "<s>"}, ("<s>", "</s>"), "</s>")
    messages = chat(*turns, system=system)

    def trained_texts() -> list[str] | str:
        try:
            row = render_row(prompting, messages)
        except TemplateError as error:
            return str(error).partition(":")[0]
        return [row.text[start:end] for start, end in row.spans]

    from_recent_messages = trained_texts()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spans, "CONTEXT_MESSAGES", 1000)
        assert from_recent_messages == trained_texts()


def with_generation_tags(answer: str) -> Template:
    """A template that writes `answer`, which contains `{% generation %}` tags, for each message of the assistant."""
    return template("{% if m.role == 'assistant' %}" + answer + "{% else %}<|{{ m.role }}|>{{ c }}</s>{% endif %}")


@pytest.mark.parametrize("content", ["c", "c[:]"], ids=["by columns", "row by row"])
def test_a_generation_block_is_the_span(content: str) -> None:
    """As in transformers' mask, with whatever the block holds after the end token."""
    answer = "<|assistant|>{% generation %} {{ " + content + " }} </s>.{% endgeneration %}"
    [row] = render_rows(Renderer(with_generation_tags(answer)), [chat("a", "b", "c", " d", "e", "")])
    assert [row.text[start:end] for start, end in row.spans] == [" b </s>.", "  d </s>.", "  </s>."]


@pytest.mark.parametrize("content", ["c", "c[:]"], ids=["by columns", "row by row"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            "{% if loop.last %}{% generation %}{{ CONTENT }}</s>{% endgeneration %}{% else %}{{ c }}</s>{% endif %}",
            "writes the answer of message 2 outside its",
        ),
        (
            "{% generation %}{{ CONTENT }}{% endgeneration %}</s>",
            "does not write the end token '</s>' after an answer inside its {% generation %} block but ''",
        ),
        ("{{ CONTENT }}{% generation %}</s>{% endgeneration %}", "writes the answer of message 2 outside its"),
        (
            "{% generation %}{% generation %}{{ CONTENT }}</s>{% endgeneration %}{% endgeneration %}",
            "nests {% generation %} blocks or leaves one open",
        ),
    ],
)
def test_generation_blocks_that_do_not_enclose_one_answer_each_are_refused(
    answer: str, message: str, content: str
) -> None:
    with pytest.raises(TemplateError, match=re.escape(message)):
        Renderer(with_generation_tags(answer.replace("CONTENT", content)))


def test_a_conversation_with_an_answer_outside_the_blocks_is_refused() -> None:
    answer = "{% if not loop.first %}{% generation %}{{ c }}</s>{% endgeneration %}{% else %}{{ c }}</s>{% endif %}"
    starts_with_answer = [{"role": "assistant", "content": "hello"}, *chat("a", "b")]
    refusals = Renderer(with_generation_tags(answer)).refusals(frame([chat("a", "b"), starts_with_answer]))
    assert refusals["row"].to_list() == [101]
    assert "writes the answer of message 1 outside its {% generation %} block" in refusals["detail"][0]


@pytest.mark.parametrize("content", ["c", "c[:]"], ids=["by columns", "row by row"])
def test_adjacent_generation_blocks_of_one_answer_are_one_span(content: str) -> None:
    answer = "{% generation %}{{ CONTENT }}{% endgeneration %}{% generation %}</s>{% endgeneration %}"
    renderer = Renderer(with_generation_tags(answer.replace("CONTENT", content)))
    [row] = render_rows(renderer, [chat("a", "b", "c", "")])
    assert [row.text[start:end] for start, end in row.spans] == ["b</s>", "</s>"]


def test_a_generation_block_around_a_question_is_refused() -> None:
    source = "{% generation %}<|{{ m.role }}|>{{ c }}</s>{% endgeneration %}"
    with pytest.raises(TemplateError, match="writes message 1, which is not an answer, inside a"):
        Renderer(template(source))
