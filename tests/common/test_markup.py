"""Untrusted text in Markdown and YAML stays text."""

from __future__ import annotations

import re

import pytest
import yaml  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from dataprep.common.markup import code_block, code_span, markdown, yaml_value

ATTACKS = [
    "<script>alert(1)</script>",
    "![x](https://example.org/track.png)",
    "[click](javascript:alert(1))",
    "a | b | c",
    "# Heading",
    "---\nlicense: evil\n---",
    "\x1b[2J\x00\x9b\u202e",
    "`code` ```fence```",
    "&lt;b&gt;",
    "www.example.org https://example.org",
]


@pytest.mark.parametrize("text", ATTACKS)
def test_markdown_keeps_no_syntax_of_the_text(text: str) -> None:
    written = markdown(text)
    assert "\n" not in written
    assert not re.search(r"(?<!\\)[<>\[\]|`&]", written)
    assert not set(written) & set("\x1b\x00\x9b\u202e")


def test_plain_text_stays_readable() -> None:
    plain = "6 of 7 records of rows.jsonl (exact_duplicate, near-duplicates): 12 % of Größe"
    assert markdown(plain) == plain


@pytest.mark.parametrize(
    "text", ["# a", "- a", "+ a", "1. a", "12) a", "--- a", "www.example.org", "https://a.org", "a@b.org"]
)
def test_markdown_starts_no_block_and_no_link(text: str) -> None:
    assert markdown(text).replace("\\", "") == text
    assert markdown(text) != text


@given(st.text())
def test_a_code_span_ends_where_the_text_ends(text: str) -> None:
    written = code_span(text)
    delimiter = re.match("`+", written)
    assert delimiter is not None
    inner = written[len(delimiter[0]) : -len(delimiter[0])]
    assert delimiter[0] not in re.findall("`+", inner)
    assert "\n" not in written


@given(st.text(alphabet="`a\n ~"))
def test_a_code_block_ends_where_the_code_ends(code: str) -> None:
    first, *inner, last = code_block(code, "sh").split("\n")
    assert first == f"{last}sh"
    assert not any(line.strip().startswith(last) for line in inner)


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda child: st.lists(child) | st.dictionaries(st.text(), child)
    )
)
def test_a_yaml_value_is_read_back_unchanged(value: object) -> None:
    written = yaml_value(value)
    assert "\n" not in written
    assert yaml.safe_load(f"key: {written}") == {"key": value}
