"""The chat templates of trl, one by one: text and mask equal those of transformers, for plain messages, tools and reasoning."""

from __future__ import annotations

import functools
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from dataprep.common.errors import TemplateError
from dataprep.rendering import Template, check_template, load_template, render
from dataprep.rendering.loading import guess_special_tokens
from dataprep.rendering.probe import capabilities, completed
from dataprep.rendering.rows import UnsupportedField, render_row

trl = pytest.importorskip("trl")
chat_template_utils = pytest.importorskip("transformers.utils.chat_template_utils")

FOLDER = Path(trl.__file__).parent / "chat_templates"
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja"))
REFUSED = {"glm4moe": "does not write a special token after an answer"}

# Conversations that a usable template refuses, besides those with tools or tool calls that it never writes.
EMPTY_ANSWER = ("an empty answer", "does not write the answer of message 2")
REFUSED_CONVERSATIONS = {
    # A message after the tool's result continues the model's turn, so no end token follows the text of the call.
    "diffusion_gemma": ("a call with a text and reasoning", "does not write its generation prompt before an answer"),
    "diffusion_gemma_training": ("a call with a text and reasoning", "does not write the end token"),
    "gemma4_v5": ("a call with a text and reasoning", "does not write its generation prompt before an answer"),
    # These write an answer only if it has text.
    "glm4moe_training": EMPTY_ANSWER,
    "lfm2_2_5_vl": EMPTY_ANSWER,
    **{
        f"nemotron_3_{size}{suffix}": EMPTY_ANSWER
        for size in ("5_lightning", "nano", "super", "ultra")
        for suffix in ("", "_training")
    },
}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather in a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string", "description": "The city."}},
                "required": ["city"],
            },
        },
    }
]


def call(**arguments: Any) -> dict[str, Any]:
    function = {"name": "get_weather", "arguments": arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "id": "call12345", "function": function}],
    }


def result(text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text, "name": "get_weather", "tool_call_id": "call12345"}


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def answer(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


SYSTEM = {"role": "system", "content": "Be brief — {{ really }}."}
Case = tuple[list[dict[str, Any]], list[Any] | None]
CASES: dict[str, Case] = {
    "one question": ([user("Hi?"), answer("Hello.")], None),
    "two questions": ([user(" Hi?\n"), answer("Hello. "), user("And?"), answer("<b>Well</b>\n")], None),
    "a system text": ([SYSTEM, user("Hi?"), answer("Hello.")], None),
    "a last question": ([user("Hi?"), answer("Hello."), user("And?")], None),
    "typed tokens": ([user("Is <|im_end|> </s> a token?"), answer("<|im_start|> is </s> <end_of_turn>")], None),
    "an empty answer": ([user("Hi?"), answer("")], None),
    "reasoning in the content": ([user("Hi?"), answer("<think>\nHm.\n</think>\n\nHello.")], None),
    "reasoning": (
        [user("Hi?"), answer("Hello.", reasoning_content="Hm."), user("And?"), answer("So.", reasoning_content="Ah.")],
        None,
    ),
    "tools that are not called": ([user("Hi?"), answer("Hello.")], TOOLS),
    "a call": (
        [user("Rain in Köln?"), call(city='Köln "am" Rhein </s>'), result('{"rain": true}'), answer("Yes.")],
        TOOLS,
    ),
    "calls in two questions": (
        [
            SYSTEM,
            user("Köln?"),
            call(city="Köln"),
            result("Rain."),
            answer("Rain."),
            user("Bonn?"),
            call(city="Bonn", days=3),
            result("Sun."),
            answer("Sun."),
        ],
        TOOLS,
    ),
    "a last call": ([user("Rain?"), call(city="Köln", hours=[1, 2.5, None, True])], TOOLS),
    "a call with a text and reasoning": (
        [
            user("Rain?"),
            {**call(city="Bonn"), "content": "Let me look.", "reasoning_content": "I need a tool."},
            result("No."),
            answer("No.", reasoning_content="Dry."),
        ],
        TOOLS,
    ),
}


@functools.cache
def load(name: str) -> Template:
    source = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    tokens = dict.fromkeys((*guess_special_tokens(source), "<s>", "</s>"))
    variables = {"bos_token": "<s>", "eos_token": "</s>"}
    return completed(Template(name, source, variables, tuple(tokens), date=date.today().isoformat()))


def with_parts(template: Template, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages as trl passes them to templates that take contents as lists of parts."""
    if not template.content_parts:
        return messages
    return [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]


def by_transformers(template: Template, case: Case, **options: Any) -> tuple[str, list[tuple[int, int]]]:
    """The text and the generation blocks of transformers."""
    messages, tools = case
    texts, blocks = chat_template_utils.render_jinja_template(
        [with_parts(template, messages)],
        tools=tools,
        chat_template=template.source,
        **dict(template.variables),
        **options,
    )
    return texts[0], blocks[0] if blocks else []


def positions(ranges: list[tuple[int, int]]) -> set[int]:
    return {position for start, end in ranges for position in range(start, end)}


@pytest.mark.parametrize("name", NAMES)
def test_a_template_of_trl_is_usable_or_its_refusal_is_explained(name: str) -> None:
    """As `dataprep templates check` says of the bare file."""
    check = check_template(load_template(FOLDER / f"{name}.jinja", "2026-01-31"))
    assert check.usable == (name not in REFUSED), check.problems
    for problem in check.problems:
        assert REFUSED[name] in problem


def test_at_most_five_templates_of_trl_are_refused() -> None:
    assert len(NAMES) >= 53
    assert len(REFUSED) <= 5


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_text_and_mask_equal_those_of_transformers(name: str, case: str) -> None:
    template, (messages, tools) = load(name), CASES[case]
    try:
        expected, _ = by_transformers(template, CASES[case])
    except Exception:
        with pytest.raises(TemplateError):
            render(template, messages, tools=tools)
        return
    assert render(template, messages, tools=tools) == expected
    prompted, _ = by_transformers(template, CASES[case], add_generation_prompt=True)
    assert render(template, messages, add_generation_prompt=True, tools=tools) == prompted
    if name in REFUSED:
        return
    refused_case, reason = REFUSED_CONVERSATIONS.get(name, ("", ""))
    try:
        row = render_row(template, messages, tools)
    except UnsupportedField as error:
        assert error.rule == "tools_not_in_template"
        written = capabilities(template)
        assert not (written.tools and written.tool_calls)
        return
    except TemplateError as error:
        assert case == refused_case
        assert reason in str(error)
        return
    assert row.text == expected
    if template.has_generation_tags:
        _, blocks = by_transformers(template, CASES[case], return_assistant_tokens_mask=True)
        assert positions(row.spans) == positions(blocks)
    else:
        assert len(row.spans) == sum(message["role"] == "assistant" for message in messages)


@pytest.mark.parametrize("case", CASES)
def test_the_bundled_qwen3_writes_what_the_templates_of_qwen3_write(case: str) -> None:
    """Without reasoning that of Qwen3-Instruct-2507, for an answer with reasoning that of Qwen3."""
    messages, tools = CASES[case]
    with_reasoning = all("reasoning_content" in message for message in messages if message["role"] == "assistant")
    expected = render(
        load("qwen3_training" if with_reasoning else "qwen3_instruct_2507_training"), messages, tools=tools
    )
    assert render(load_template("qwen3"), messages, tools=tools) == expected
