"""Folding: characters that lower-casing folds, and all others."""

from __future__ import annotations

import unicodedata

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.dedup.folding import NOT_PLAIN, fold

CHARACTERS = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs")]


def test_plain_characters_have_no_compatibility_form_and_compose_with_nothing() -> None:
    is_plain = ~pl.Series(CHARACTERS).str.contains(NOT_PLAIN)
    plain = pl.Series(CHARACTERS).filter(is_plain).to_list()
    composing = {part for character in CHARACTERS for part in unicodedata.normalize("NFD", character)[1:]}
    assert len(plain) > 40_000
    assert [c for c in plain if unicodedata.normalize("NFKC", c) != c or unicodedata.combining(c)] == []
    assert composing.isdisjoint(plain)
    assert composing.isdisjoint("".join(plain).lower())


@settings(max_examples=40)
@given(st.text(st.sampled_from("aZéß ςΣİıſﬁＡ가각ᆨ漢\u0301\u0327ñŁ…½")))
def test_folding_is_case_folding_of_the_compatibility_form(text: str) -> None:
    lower = unicodedata.normalize("NFKC", text).lower().replace("ß", "ss").replace("ς", "σ")
    assert fold(pl.Series([text, "plain", None])).to_list() == [unicodedata.normalize("NFKC", lower), "plain", None]
