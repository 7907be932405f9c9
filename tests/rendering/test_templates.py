"""The bundled templates against transformers and golden texts."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataprep.common.bundled import templates_folder
from dataprep.common.errors import TemplateError
from dataprep.rendering import Renderer, check_template, list_templates, load_template, render
from dataprep.rendering.rows import RenderedRow, render_row
from tests.support.chats import BUNDLED, CHATS, EXAMPLE, chat, frame

GOLDEN = Path(__file__).parents[1] / "golden" / "templates"


def test_every_bundled_template_is_described_in_the_guide() -> None:
    assert set(BUNDLED) <= set(list_templates())
    guide = (templates_folder() / "README.md").read_text(encoding="utf-8")
    for name in list_templates():
        assert f"`{name}`" in guide


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_template_is_rendered_by_columns_without_warnings(name: str) -> None:
    template = load_template(name)
    check = check_template(template)
    assert check.usable
    assert check.rendering == "by columns"
    assert not check.warnings
    assert template.format_source
    assert {template.end_token, template.eos_token} <= set(template.special_tokens)


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_template_renders_the_same_text_in_transformers(name: str) -> None:
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    template = load_template(name)
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=template.bos_token or None, eos_token=template.eos_token, unk_token="<unk>"
    )
    tokenizer.chat_template = template.source
    for messages in CHATS:
        for prompt in (False, True):
            expected = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
            assert render(template, messages, add_generation_prompt=prompt) == expected


def with_marks(row: RenderedRow) -> str:
    """The text with `▶…◀` around what is trained and `⟦…⟧` around control tokens."""
    marks = [(start, "▶") for start, _ in row.spans] + [(end, "◀") for _, end in row.spans]
    marks += [(start, "⟦") for start, _ in row.controls] + [(end, "⟧") for _, end in row.controls]
    text = row.text
    # At the same position, ends come before starts, and a control lies inside a span.
    for position, mark in sorted(marks, key=lambda item: (item[0], "⟧◀▶⟦".index(item[1])), reverse=True):
        text = text[:position] + mark + text[position:]
    return text


@pytest.mark.parametrize("name", BUNDLED)
def test_a_bundled_template_gives_its_golden_text_spans_and_controls(name: str) -> None:
    row = render_row(load_template(name), EXAMPLE)
    assert with_marks(row) == (GOLDEN / f"{name}.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["llama2", "mistral", "vicuna", "alpaca", "gemma"])
def test_a_template_of_pairs_refuses_roles_that_do_not_alternate(name: str) -> None:
    template = load_template(name)
    wrong = [chat("a") + chat("b"), [{"role": "assistant", "content": "a"}], [{"role": "tool", "content": "a"}]]
    for messages in wrong:
        with pytest.raises(TemplateError, match="alternate"):
            render(template, messages)
    assert Renderer(template).refusals(frame([*wrong, EXAMPLE]))["row"].to_list() == [100, 101, 102]


def test_bos_and_eos_tokens_can_be_replaced() -> None:
    text = render(load_template("llama2"), chat("a", "b"), bos_token="<B>", eos_token="<E>")
    assert text == "<B>[INST] a [/INST] b <E>"


@pytest.mark.parametrize("name", BUNDLED)
def test_transformers_masks_exactly_the_spans_of_a_bundled_template(name: str) -> None:
    """One token for each character, so that the mask that trl trains with can be compared with the spans."""
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    template = load_template(name)
    for messages in CHATS:
        row = render_row(template, messages)
        model = tokenizers.models.WordLevel({character: number for number, character in enumerate(sorted({*row.text}))})
        characters = tokenizers.Tokenizer(model)
        characters.pre_tokenizer = tokenizers.pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
        tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=characters)

        encoded = tokenizer.apply_chat_template(
            messages,
            chat_template=template.source,
            return_dict=True,
            return_assistant_tokens_mask=True,
            **template.variables,
        )
        spans = {position for start, end in row.spans for position in range(start, end)}
        assert len(encoded["input_ids"]) == len(row.text)
        assert {position for position, trained in enumerate(encoded["assistant_masks"]) if trained} == spans
