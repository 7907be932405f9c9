"""Rendering of frames: equal to Jinja for any content, in batches, with refusals and a checked sample."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.build import build
from dataprep.common.errors import TemplateError
from dataprep.common.progress import Progress
from dataprep.contract import SHARD_SCHEMA
from dataprep.recipe import Recipe
from dataprep.rendering import Renderer, Template, columns, load_template, render, renderer
from dataprep.rendering.columns import FlatMessages
from dataprep.rendering.layout import LEFT, RIGHT
from dataprep.rendering.renderer import rendered_rows
from dataprep.rendering.rows import RenderedRow, render_row
from dataprep.rendering.rows import render_rows as rows_of
from tests.support.chats import (
    BUNDLED,
    CHATS,
    EXAMPLE,
    MARKERS,
    ODD_SPACE,
    Chat,
    chat,
    chats,
    frame,
    render_rows,
    template,
)

RENDERERS = {name: Renderer(load_template(name)) for name in BUNDLED}


@pytest.mark.parametrize("name", BUNDLED)
@settings(max_examples=40, deadline=None)
@given(conversations=st.lists(chats(), min_size=1, max_size=4))
def test_columns_equal_jinja_for_any_contents(name: str, conversations: list[Chat]) -> None:
    by_columns = RENDERERS[name]
    for messages, row in zip(conversations, render_rows(by_columns, conversations), strict=True):
        assert row.text == render(by_columns.template, messages)
        assert row == render_row(by_columns.template, messages)


@pytest.mark.parametrize("name", BUNDLED)
@settings(max_examples=25, deadline=None)
@given(messages=chats())
def test_spans_hold_the_answers_and_controls_are_the_templates_own(name: str, messages: Chat) -> None:
    by_columns = RENDERERS[name]
    [row] = render_rows(by_columns, [messages])
    end_token = by_columns.template.end_token or ""
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    trained = [row.text[start:end] for start, end in row.spans]
    assert [text.removesuffix(end_token).strip() for text in trained] == [answer.strip() for answer in answers]
    assert all(text.endswith(end_token) for text in trained)
    assert all(row.text[start:end] in by_columns.template.special_tokens for start, end in row.controls)
    # Typed tokens do not count: there are as many controls as for contents of the same kinds without any.
    plain = [{**message, "content": re.sub(r"\S", "x", message["content"])} for message in messages]
    [plain_row] = render_rows(by_columns, [plain])
    assert [row.text[slice(*control)] for control in row.controls] == [
        plain_row.text[slice(*control)] for control in plain_row.controls
    ]


@given(answer=st.text(st.characters(exclude_categories=["Cs"])), question=st.sampled_from(MARKERS))
def test_llama2_trains_the_space_the_answer_and_the_end_token(answer: str, question: str) -> None:
    [row] = render_rows(RENDERERS["llama2"], [chat(question, answer)])
    assert row.text == f"<s>[INST] {question.strip()} [/INST] {answer.strip()} </s>"
    [(start, end)] = row.spans
    assert row.text[start:end] == f" {answer.strip()} </s>"
    assert row.controls == [(0, 3), (len(row.text) - 4, len(row.text))]


def test_columns_strip_exactly_the_characters_that_python_strips() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    assert set(columns.WHITE_SPACE) == {character for character in characters if character.isspace()}
    for core, padding in (
        ("x", characters),
        ("a long content that is not stored inline", characters[:0x3100]),
        ("", characters[:0x3100]),
    ):
        texts = [character + core + character for character in padding] + [ODD_SPACE + core + ODD_SPACE, ""]
        flat = FlatMessages.of(frame([chat(*texts), chat("  x", "y  ")])[:1]["messages"])
        indices = np.arange(len(texts))
        assert flat.stripped(LEFT | RIGHT, indices).to_list() == [text.strip() for text in texts]
        assert flat.stripped(LEFT, indices).to_list() == [text.lstrip() for text in texts]
        assert flat.stripped(RIGHT, indices).to_list() == [text.rstrip() for text in texts]
        assert flat.stripped_bytes.tolist() == [len(text.strip().encode()) for text in texts]


def test_batches_are_consecutive_and_typed_as_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    conversations = [
        chat("question " * (index % 7), f"answer {index}", *["more", "words"] * (index % 3)) for index in range(300)
    ]
    expected = render_rows(RENDERERS["llama2"], conversations)
    monkeypatch.setattr(renderer, "BATCH_BYTES", 2000)
    batches = list(RENDERERS["llama2"].batches(frame(conversations)))
    assert len(batches) > 10
    assert [batch.start for batch in batches] == np.cumsum([0, *(len(batch.text) for batch in batches[:-1])]).tolist()
    assert [row for batch in batches for row in rendered_rows(batch)] == expected
    for batch in batches:
        for name in ("text", "spans", "controls"):
            getattr(batch, name).validate(full=True)
            assert getattr(batch, name).type == SHARD_SCHEMA.field(name).type


def test_a_batch_whose_text_would_overflow_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    conversations = [chat("question", "answer" * count) for count in range(20)]
    expected = render_rows(RENDERERS["chatml"], conversations)
    monkeypatch.setattr(columns, "_LIMIT", 400)
    assert render_rows(RENDERERS["chatml"], conversations) == expected
    with pytest.raises(TemplateError, match="text of row 1 would be longer than 2 GiB"):
        render_rows(RENDERERS["chatml"], [EXAMPLE[1:2], chat("long", "x" * 1000)])


def test_slices_and_chunked_frames_are_rendered_like_whole_ones() -> None:
    llama2, whole = RENDERERS["llama2"], frame(CHATS)
    expected = [render_row(llama2.template, messages) for messages in CHATS]
    chunked = pl.concat([whole[:2], whole[2:3], whole[3:]], rechunk=False)
    for part in (whole[2:5], chunked[2:5], whole[[2, 3, 4]], pl.concat([whole[2:4], whole[4:5]], rechunk=False)):
        assert [row for batch in llama2.batches(part) for row in rendered_rows(batch)] == expected[2:5]


def test_an_empty_frame_has_no_batches_and_no_refusals() -> None:
    llama2, whole = RENDERERS["llama2"], frame(CHATS)
    assert list(llama2.batches(whole[:0])) == []
    assert llama2.refusals(whole[:0]).height == 0
    assert llama2.refusals(whole[:0]).schema == llama2.refusals(whole).schema


def test_refusals_name_each_row_that_cannot_be_rendered_with_its_reason() -> None:
    conversations: list[Chat | None] = [
        EXAMPLE,
        None,
        [],
        [{"role": "user", "content": None}],  # type: ignore[dict-item]
        [{"role": None, "content": "x"}],  # type: ignore[dict-item]
        chat("a") * 2,
        [{"role": "</s>", "content": "x"}],
        chat("question", "answer"),
    ]
    llama2 = RENDERERS["llama2"]
    refusals = llama2.refusals(frame(conversations))
    assert refusals["row"].to_list() == [101, 102, 103, 104, 105, 106]
    assert refusals["detail"].to_list() == [
        "The conversation has no messages.",
        "The conversation has no messages.",
        "Message 1 has no role or no content.",
        "Message 1 has no role or no content.",
        "The template llama2 refuses this conversation: after the system text, the roles must alternate user, assistant, "
        "user, …, and message 2 is of user.",
        "The role '</s>' of message 1 contains a special token of the template llama2.",
    ]
    with pytest.raises(TemplateError, match="Row 1 cannot be rendered: The conversation has no messages."):
        list(llama2.batches(frame(conversations)))
    renderable = frame(conversations).join(refusals, on="row", how="anti", maintain_order="left")
    assert sum(len(batch.text) for batch in llama2.batches(renderable)) == 2


def test_a_batch_may_mix_both_ways_of_rendering() -> None:
    """The template inspects contents only where there is a system message."""
    body = "{% if m.role == 'system' and 'x' in c %}!{% endif %}<|{{ m.role }}|>{{ c | trim }}</s>"
    body += "{% if m.role == 'system' and c == 'no' %}{{ raise_exception('no') }}{% endif %}"
    mixed = Renderer(template(body))
    conversations = [
        chat("a", "b"),
        chat("a", " b ", system="x </s>"),
        chat("c"),
        chat("c", "d", system="y"),
        chat("", " "),
    ]
    assert render_rows(mixed, conversations) == [render_row(mixed.template, messages) for messages in conversations]
    refusals = mixed.refusals(frame([*conversations, chat("a", system="no")]))
    assert refusals.rows() == [(105, "template_refused", "The template test refuses this conversation: no.")]
    mixed.check_sample(frame(conversations), seed=1)


def test_a_sample_that_differs_from_jinja_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    zephyr = RENDERERS["zephyr"]
    zephyr.check_sample(frame(CHATS), seed=3)
    zephyr.check_sample(frame(CHATS)[:0], seed=3)

    def without_controls(rendered_with: Template, messages: Chat, tools: str | None) -> RenderedRow:
        row = render_row(rendered_with, messages, tools)
        return RenderedRow(row.text, row.spans, [])

    monkeypatch.setattr(renderer, "render_row", without_controls)
    with pytest.raises(TemplateError, match="comes out differently by columns and through Jinja"):
        zephyr.check_sample(frame(CHATS), seed=3)


HEADER = '{#- bos_token = "<s>"\nend_token = "</s>"\nspecial_tokens = ["<s>", "</s>"] -#}'


def recipe_with(folder: Path, body: str) -> Recipe:
    """The recipe of a small build of the bundled sample, with a template that writes `body` for each message."""
    (folder / "own.jinja").write_text(HEADER + template(body).source)
    return Recipe(template=str(folder / "own.jinja"), limit=30, gate="off", near_dup="off")


def test_a_build_fails_if_the_two_ways_of_rendering_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_with(tmp_path, "<|{{ m.role }}|>{{ c }}</s>")
    assert build(recipe, tmp_path / "store", "right", progress=Progress()).path
    compared: list[str] = []
    check_sample = Renderer.check_sample

    def with_shifted_spans(rendered_with: Template, messages: Chat, tools: str | None) -> RenderedRow:
        row = render_row(rendered_with, messages, tools)
        compared.append(row.text)
        return RenderedRow(row.text, [(start + 1, end) for start, end in row.spans], row.controls)

    def check_with_a_fault(self: Renderer, rows: pl.DataFrame, seed: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(renderer, "render_row", with_shifted_spans)
            check_sample(self, rows, seed)

    monkeypatch.setattr(Renderer, "check_sample", check_with_a_fault)
    with pytest.raises(TemplateError, match="comes out differently by columns and through Jinja"):
        build(recipe, tmp_path / "store", "wrong", progress=Progress())
    assert compared
    assert not list((tmp_path / "store" / "wrong").glob("[!.]*"))


def test_a_builds_notes_include_the_templates_warnings(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "<|{{ m.role }}|>{{ c }}</s>")
    outcome = build(recipe, tmp_path, "n", dry_run=True, progress=Progress())
    [warning] = check_warnings(recipe)
    assert f"The template own: {warning}." in outcome.summary["notes"]


def check_warnings(recipe: Recipe) -> list[str]:
    return Renderer(load_template(recipe.template)).warnings()


def test_rows_rendered_for_refusals_are_not_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    conversations = [chat(f"question {number}", f"answer {number} </s>") for number in range(20)]
    rendered = 0

    def counting(rendered_with: Template, part: Sequence[tuple[Chat, str | None]]) -> list[RenderedRow | TemplateError]:
        nonlocal rendered
        rendered += len(part)
        return rows_of(rendered_with, part)

    monkeypatch.setattr(renderer, "render_rows", counting)
    rows = []
    for cache_bytes, fewest, most in ((renderer.CACHE_BYTES, 20, 20), (1500, 21, 39), (0, 40, 40)):
        monkeypatch.setattr(renderer, "CACHE_BYTES", cache_bytes)
        row_by_row = Renderer(template("{% if 'x' in c %}{% endif %}<|{{ m.role }}|>{{ c }}</s>"))
        rendered = 0
        assert row_by_row.refusals(frame(conversations)).is_empty()
        rows.append(render_rows(row_by_row, conversations))
        assert fewest <= rendered <= most
    assert rows[0] == rows[1] == rows[2]
