"""The normal form: readable examples, and the byte-wise implementation against a regular expression."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.dedup.folding import fold
from dataprep.dedup.normal_form import (
    SPACELESS,
    WORD,
    NormalisedBlock,
    documents,
    for_each_normalised_block,
    normal_form,
)
from tests.support.frames import conversation, conversations

EXAMPLES = [
    ("Hello,  World! x_1", "hello world x_1"),
    ("Straße É ﬁne ½", "strasse é fine 1 2"),
    ("ＡＢＣ，１２", "abc 12"),
    ("中文abc。テスト", "中 文 abc テ ス ト"),
    ("สวัสดี", "ส ว ั ส ด ี"),
    ("e\u0301té", "été"),
    ("ΟΔΟΣ οδος", "οδοσ οδοσ"),
    ("don't — “stop”…", "don t stop"),
    ("👍🏽 ok 👩\u200d💻❤\ufe0f", "ok"),
    ("𠀀a𠀁", "𠀀 a 𠀁"),
    ("שלום, עולם", "שלום עולם"),
    ("♜♞♝ ♛", "♜♞♝ ♛"),
    ("  +--+\n  |  |", "+--+\n  |  |"),
    ("", ""),
    (" \n\u3000", ""),
]


@pytest.mark.parametrize(("text", "form"), EXAMPLES)
def test_a_text_is_reduced_to_its_folded_words(text: str, form: str) -> None:
    assert normal_form(text) == form


def slow_form(text: str) -> str:
    """Fold, then extract words with one regular expression."""
    whole = pl.Series([text])
    word = f"[{SPACELESS}&&{WORD}]|[{WORD}--{SPACELESS}]+"
    words = fold(whole).str.extract_all(word).list.join(" ")[0]
    return str(words or whole.str.strip_chars()[0])


LETTERS = st.sampled_from(
    "aZ09_ ,.\n-ßéÉ\u0301\u0327İſΣςЖж中の。，テ½ﬁ…“😀\ufe0f\u200dק\u05bcกั한\u1112\u1161\u11ab\U00020000ŉ"
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text(LETTERS | st.characters(max_codepoint=0x2FFF, exclude_categories=["Cn", "Cs"])), max_size=8))
def test_the_normal_form_equals_a_regular_expression_over_the_folded_text(texts: list[str]) -> None:
    normalised = [""] * len(texts)

    def process(part: NormalisedBlock) -> None:
        forms = part.texts
        for i, row in enumerate(part.rows.tolist()):
            normalised[row] = bytes(forms.data[forms.offsets[i] : forms.offsets[i + 1]]).decode()[:-1]

    for_each_normalised_block(pl.Series([text + "\n" for text in texts], dtype=pl.String), process)
    assert normalised == [slow_form(text) for text in texts]


@settings(max_examples=100, deadline=None)
@given(st.text(LETTERS))
def test_the_normal_form_is_idempotent(text: str) -> None:
    once = normal_form(text)
    assert normal_form(once) == once


def test_documents_hold_the_thread_the_prompts_or_the_answers() -> None:
    frame = conversations(
        conversation("be kind", "a?", "b.", "c?", roles=("system", "user", "assistant", "user")), conversation()
    )
    assert documents(frame).to_list() == ["be kind\na?\nb.\nc?\n", "\n"]
    assert documents(frame, "prompt").to_list() == ["a?\nc?\n", "\n"]
    assert documents(frame, "answer").to_list() == ["b.\n", "\n"]
