"""The shared helpers for text: suggestions, plurals, excerpts, and harmless output."""

from __future__ import annotations

import io
import json
import re

import pytest

from dataprep.common.text import VISIBLE_CHARACTER, excerpt, fit, json_text, nearest, plural, visible

UNSAFE = [chr(code) for code in (*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0))] + list(
    "\u061c\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ud800\udfff"
)


@pytest.mark.parametrize("character", UNSAFE, ids=ascii)
def test_no_unsafe_character_reaches_a_terminal_or_json_output(character: str) -> None:
    assert visible(f"a{character}b") == f"a<U+{ord(character):04X}>b"
    written = json_text({character: [character]})
    assert character not in written
    assert json.loads(written) == {character: [character]}


def test_readable_text_stays_as_it_is() -> None:
    text = "Tab\tand newline\n, Größe, 中文, العربية, 🙂"
    assert visible(text) == text
    assert json_text(text) == json.dumps(text, ensure_ascii=False)


def test_an_unknown_name_is_answered_with_the_nearest_and_all_that_exist() -> None:
    assert nearest("lama2", ["llama2", "chatml"]) == "Did you mean 'llama2'? Available: chatml, llama2."
    assert nearest("xyz", ["llama2"]) == "Available: llama2."
    assert nearest("xyz", []) == "None is available."


def test_a_plural_agrees_with_its_count() -> None:
    assert [plural(count, "row") for count in (0, 1, 2000)] == ["0 rows", "1 row", "2,000 rows"]
    assert plural(2, "entry", "entries") == "2 entries"


def test_an_excerpt_is_one_short_line() -> None:
    assert excerpt("a\n b\tc") == "a b c"
    assert excerpt("x" * 301) == "x" * 300 + "…"
    assert excerpt(" " * 5000 + "tail") == "…"


def test_white_space_and_zero_width_characters_are_not_visible() -> None:
    assert not re.search(VISIBLE_CHARACTER, " \t\n\x1c\x1f\u00a0\u2003\u200b\ufeff")
    assert re.search(VISIBLE_CHARACTER, "\u200b.")


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_lines_are_wrapped_between_words_in_a_terminal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    text = "Data  three-words and_one_long_word_of_30_letters\nnext line"
    wrapped = "Data  three-words\n      and_one_long_word_of_30_letters\nnext line"
    assert fit(text, Terminal(), indent=6) == wrapped
    assert fit(text, io.StringIO()) == text
