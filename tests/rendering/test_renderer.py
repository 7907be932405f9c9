"""Rendering of frames: by columns as through Jinja, whatever is in the contents; batches, refusals, samples."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.build import build
from dataprep.common.errors import TemplateError
from dataprep.common.progress import Progress
from dataprep.contract import SHARD_SCHEMA
from dataprep.recipe import Recipe
from dataprep.rendering import Renderer, Template, columns, load_template, places, plan, render, renderer, rows
from dataprep.rendering.columns import Turns
from dataprep.rendering.layout import LEFT, RIGHT
from dataprep.rendering.parsing import Parser
from dataprep.rendering.rows import Rendered, render_row
from tests.support.chats import BUNDLED, CHATS, MARKERS, ODD_SPACE, SHOWN, Chat, chat, chats, frame, template

RENDERERS = {name: Renderer(load_template(name)) for name in BUNDLED}


def rendered(by: Renderer, found: list[Chat]) -> list[Rendered]:
    return [row for batch in by.batches(frame(found)) for row in renderer.rendered_rows(batch)]


@pytest.mark.parametrize("name", BUNDLED)
@settings(max_examples=40, deadline=None)
@given(found=st.lists(chats(), min_size=1, max_size=4))
def test_columns_are_jinja(name: str, found: list[Chat]) -> None:
    by = RENDERERS[name]
    for messages, row in zip(found, rendered(by, found), strict=True):
        assert row.text == render(by.template, messages)
        assert row == render_row(by.template, messages)


@pytest.mark.parametrize("name", BUNDLED)
@settings(max_examples=25, deadline=None)
@given(messages=chats())
def test_spans_and_controls_are_the_templates_own(name: str, messages: Chat) -> None:
    by = RENDERERS[name]
    [row] = rendered(by, [messages])
    answers = [message["content"] for message in messages if message["role"] == "assistant"]
    trained = [row.text[start:end] for start, end in row.spans]
    assert [text.removesuffix(by.template.end_token or "").strip() for text in trained] == [a.strip() for a in answers]
    assert all(text.endswith(by.template.end_token or "") for text in trained)
    assert all(row.text[start:end] in by.template.special_tokens for start, end in row.controls)
    # As many as when nobody types any: contents of the same kinds, without their words.
    plain = [{**message, "content": re.sub(r"\S", "x", message["content"])} for message in messages]
    assert [row.text[slice(*place)] for place in row.controls] == [
        own.text[slice(*place)] for [own] in [rendered(by, [plain])] for place in own.controls
    ]


@given(answer=st.text(st.characters(exclude_categories=["Cs"])), question=st.sampled_from(MARKERS))
def test_llama2_trains_the_space_the_answer_and_the_end(answer: str, question: str) -> None:
    [row] = rendered(RENDERERS["llama2"], [chat(question, answer)])
    assert row.text == f"<s>[INST] {question.strip()} [/INST] {answer.strip()} </s>"
    [(start, end)] = row.spans
    assert row.text[start:end] == f" {answer.strip()} </s>"
    assert row.controls == [(0, 3), (len(row.text) - 4, len(row.text))]


def test_strips_what_python_strips() -> None:
    every = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    assert set(columns.WHITE_SPACE) == {character for character in every if character.isspace()}
    for filling, characters in (
        ("x", every),
        ("a long content that is stored elsewhere", every[:0x3100]),
        ("", every[:0x3100]),
    ):
        texts = [character + filling + character for character in characters] + [ODD_SPACE + filling + ODD_SPACE, ""]
        turns = Turns.of(frame([chat(*texts), chat("  x", "y  ")])[:1]["messages"])
        which = np.arange(len(texts))
        assert turns.cut(LEFT | RIGHT, which).to_list() == [text.strip() for text in texts]
        assert turns.cut(LEFT, which).to_list() == [text.lstrip() for text in texts]
        assert turns.cut(RIGHT, which).to_list() == [text.rstrip() for text in texts]
        assert turns.core_bytes.tolist() == [len(text.strip().encode()) for text in texts]


def test_batches_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [chat("question " * (at % 7), f"answer {at}", *["more", "words"] * (at % 3)) for at in range(300)]
    whole = rendered(RENDERERS["llama2"], found)
    monkeypatch.setattr(renderer, "BATCH_BYTES", 2000)
    batches = list(RENDERERS["llama2"].batches(frame(found)))
    assert len(batches) > 10
    assert [batch.start for batch in batches] == np.cumsum([0, *(len(batch.text) for batch in batches[:-1])]).tolist()
    assert [row for batch in batches for row in renderer.rendered_rows(batch)] == whole
    for batch in batches:
        for name in ("text", "spans", "controls"):
            getattr(batch, name).validate(full=True)
            assert getattr(batch, name).type == SHARD_SCHEMA.field(name).type


def test_texts_that_would_overflow_are_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [chat("question", "answer" * at) for at in range(20)]
    whole = rendered(RENDERERS["chatml"], found)
    monkeypatch.setattr(columns, "_LIMIT", 400)
    assert rendered(RENDERERS["chatml"], found) == whole
    with pytest.raises(TemplateError, match="text of row 1 would be longer than 2 GiB"):
        rendered(RENDERERS["chatml"], [SHOWN[1:2], chat("long", "x" * 1000)])


def test_slices_chunks_and_nothing() -> None:
    by, whole = RENDERERS["llama2"], frame(CHATS)
    expected = [render_row(by.template, messages) for messages in CHATS]
    chunked = pl.concat([whole[:2], whole[2:3], whole[3:]], rechunk=False)
    for cut in (whole[2:5], chunked[2:5], whole[[2, 3, 4]], pl.concat([whole[2:4], whole[4:5]], rechunk=False)):
        assert [row for batch in by.batches(cut) for row in renderer.rendered_rows(batch)] == expected[2:5]
    assert list(by.batches(whole[:0])) == [] and by.refusals(whole[:0]).height == 0
    assert by.refusals(whole[:0]).schema == by.refusals(whole).schema


def test_what_cannot_be_rendered_is_told() -> None:
    bad: list[Chat | None] = [
        SHOWN,
        None,
        [],
        [{"role": "user", "content": None}],  # type: ignore[dict-item]
        [{"role": None, "content": "x"}],  # type: ignore[dict-item]
        chat("a") * 2,
        [{"role": "</s>", "content": "x"}],
        chat("question", "answer"),
    ]
    by = RENDERERS["llama2"]
    told = by.refusals(frame(bad))
    assert told["row"].to_list() == [101, 102, 103, 104, 105, 106]
    assert told["detail"].to_list() == [
        "The conversation has no messages.",
        "The conversation has no messages.",
        "Message 1 has no role or no content.",
        "Message 1 has no role or no content.",
        "The template llama2 refuses this conversation: after the system text, the roles must alternate user, assistant, "
        "user, …, and message 2 is of user.",
        "The role '</s>' of message 1 holds a special token of the template llama2.",
    ]
    with pytest.raises(TemplateError, match="Row 1 cannot be rendered: The conversation has no messages."):
        list(by.batches(frame(bad)))
    left = frame(bad).join(told, on="row", how="anti", maintain_order="left")
    assert sum(len(batch.text) for batch in by.batches(left)) == 2


def test_both_ways_in_one_batch() -> None:
    """A template that looks into contents only where there is a system text."""
    body = "{% if m.role == 'system' and 'x' in c %}!{% endif %}<|{{ m.role }}|>{{ c | trim }}</s>"
    body += "{% if m.role == 'system' and c == 'no' %}{{ raise_exception('no') }}{% endif %}"
    by = Renderer(template(body))
    found = [chat("a", "b"), chat("a", " b ", system="x </s>"), chat("c"), chat("c", "d", system="y"), chat("", " ")]
    assert rendered(by, found) == [render_row(by.template, messages) for messages in found]
    told = by.refusals(frame([*found, chat("a", system="no")]))
    assert told.rows() == [(105, "The template test refuses this conversation: no.")]
    by.check_sample(frame(found), seed=1)


def test_a_sample_that_differs_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    by = RENDERERS["zephyr"]
    by.check_sample(frame(CHATS), seed=3)
    by.check_sample(frame(CHATS)[:0], seed=3)
    plain = renderer.render_row
    monkeypatch.setattr(renderer, "render_row", lambda *given: Rendered(plain(*given).text, plain(*given).spans, []))
    with pytest.raises(TemplateError, match="comes out differently by columns and through Jinja"):
        by.check_sample(frame(CHATS), seed=3)


OWN = '{#- bos_token = "<s>"\nend_token = "</s>"\nspecial_tokens = ["<s>", "</s>"] -#}'


def recipe_with(folder: Path, body: str) -> Recipe:
    """A small build of the bundled sample with a template of one line a message."""
    (folder / "own.jinja").write_text(OWN + template(body).source)
    return Recipe(template=str(folder / "own.jinja"), limit=30, gate="off", near_dup="off")


def test_a_build_stops_where_the_two_ways_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_with(tmp_path, "<|{{ m.role }}|>{{ c }}</s>")
    assert build(recipe, tmp_path / "store", "right", progress=Progress()).path
    compared: list[str] = []
    check = Renderer.check_sample

    def shifted(*given: Any) -> Rendered:
        row = render_row(*given)
        compared.append(row.text)
        return Rendered(row.text, [(start + 1, end) for start, end in row.spans], row.controls)

    def check_with_a_fault(self: Renderer, *given: Any) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(renderer, "render_row", shifted)
            check(self, *given)

    monkeypatch.setattr(Renderer, "check_sample", check_with_a_fault)
    with pytest.raises(TemplateError, match="comes out differently by columns and through Jinja"):
        build(recipe, tmp_path / "store", "wrong", progress=Progress())
    assert compared and not list((tmp_path / "store" / "wrong").glob("[!.]*"))


def test_a_build_says_what_the_check_warns_of(tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, "<|{{ m.role }}|>{{ c }}</s>")
    notes = build(recipe, tmp_path, "n", dry_run=True, progress=Progress()).summary["notes"]
    told = "<|assistant|> <|system|> <|user|> may be typed in a content: neither special tokens nor forbidden"
    assert f"The template own: {told}." in notes or f"The template own: {told.replace('<|system|> ', '')}." in notes


def test_rows_rendered_to_find_refusals_are_not_rendered_again(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [chat(f"question {at}", f"answer {at} </s>") for at in range(20)]
    runs: list[str] = []

    def counting(*given: Any) -> Rendered:
        row = render_row(*given)
        runs.append(row.text)
        return row

    monkeypatch.setattr(renderer, "render_row", counting)
    texts = []
    for room, fewest, most in ((renderer.KEPT_BYTES, 20, 20), (1500, 21, 39), (0, 40, 40)):
        monkeypatch.setattr(renderer, "KEPT_BYTES", room)
        by = Renderer(template("{% if 'x' in c %}{% endif %}<|{{ m.role }}|>{{ c }}</s>"))
        runs.clear()
        assert by.refusals(frame(found)).is_empty()
        texts.append(rendered(by, found))
        assert fewest <= len(runs) <= most
    assert texts[0] == texts[1] == texts[2]


# --- Long conversations


def test_a_very_long_conversation() -> None:
    messages = chat(*(f"turn {at}" for at in range(200)))
    [row] = rendered(RENDERERS["llama3"], [messages])
    assert len(row.spans) == 100 and row == render_row(RENDERERS["llama3"].template, messages)


@pytest.mark.parametrize("name", BUNDLED)
def test_work_grows_with_the_turns_and_not_with_their_square(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that the template is run on, in all of its runs: a bounded number for each message of the conversation."""
    seen = 0

    def counting(run: Callable[..., Any]) -> Callable[..., Any]:
        def counted(source: Any, messages: Sequence[Any], *more: Any) -> Any:
            nonlocal seen
            seen += len(messages)
            return run(source, messages, *more)

        return counted

    for module, run in ((plan, "run_symbolically"), (plan, "render"), (rows, "render"), (rows, "run_traced")):
        monkeypatch.setattr(module, run, counting(getattr(module, run)))
    for turns in (100, 400):
        found = frame([chat(*(f"turn {at}" for at in range(turns)))])
        by = Renderer(load_template(name))
        seen = 0
        assert by.refusals(found).is_empty() and list(by.batches(found))
        assert turns < seen < 4 * turns
        seen = 0
        render_row(by.template, found["messages"][0].to_list())
        assert turns < seen < 5 * turns


ASKING = {  # generation prompts that are a matter of more than the last messages
    "plain": "<bot>",
    "system": "{{ '<bot>' if messages[0].content == 'x' else '<bot><t>' }}",
    "first question": "<bot>{% if 'x' in messages[0].content %}<t>{% endif %}",
    "any question": "<bot>{% if 'x' in messages | map(attribute='content') | join %}<t>{% endif %}",
    "last question": "<bot>{% if 'x' in messages[-1].content %}<t>{% endif %}",
    "length": "<bot>{% if messages | length > 5 %}<t>{% endif %}",
    "shorter when long": "{% if messages | length <= 5 %}<bot>{% endif %}",
}


@pytest.mark.parametrize("asking", ASKING.values(), ids=ASKING)
@pytest.mark.parametrize("written", ["<bot>", "<bot><t>", "<bot>{% if 'x' in messages[0].content %}<t>{% endif %}"])
@settings(max_examples=40, deadline=None)
@given(turns=st.lists(st.sampled_from(["x", "y"]), min_size=5, max_size=14), system=st.sampled_from([None, "x", "y"]))
def test_prompts_taken_from_near_by_are_those_of_the_whole(
    asking: str, written: str, turns: list[str], system: str | None
) -> None:
    """Where the messages near by do not tell the prompt, all messages before do."""
    body = "{{ bos_token }}{% for m in messages %}{% set c = m.content %}{% if m.role == 'assistant' %}" + written
    body += "{% else %}<{{ m.role }}>{% endif %}{{ c }}</s>{% endfor %}{% if add_generation_prompt %}" + asking
    by = Template("asks", body + "{% endif %}", {"bos_token": "<s>"}, ("<s>", "</s>"), "</s>")
    messages = chat(*turns, system=system)

    def spans() -> list[str] | str:
        try:
            row = render_row(by, messages)
        except TemplateError as fault:
            return str(fault).partition(":")[0]
        return [row.text[start:end] for start, end in row.spans]

    near = spans()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(places, "NEAR", 1000)
        assert near == spans()


@settings(max_examples=40, deadline=None)
@given(found=st.lists(chats(), min_size=1, max_size=6), damaged=st.sets(st.integers(0, 5)))
def test_texts_of_many_shapes_are_read_back_as_each_alone(found: list[Chat], damaged: set[int]) -> None:
    by, messages = RENDERERS["zephyr"], frame(found)["messages"]
    texts = [row.text[: len(row.text) // 2 if at in damaged else None] for at, row in enumerate(rendered(by, found))]
    together = Parser(by.planner).parses_back(messages, pa.array(texts)).to_list()
    alone = [
        Parser(by.planner).parses_back(messages[at : at + 1], pa.array([text]))[0] for at, text in enumerate(texts)
    ]
    assert together == alone
    assert not any(together[at] for at in damaged if at < len(found))
