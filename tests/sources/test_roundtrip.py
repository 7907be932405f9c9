"""Any conversation, written in any format and container, is read back unchanged and with the same id."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.reading import CONTAINERS, Turn, read_path, turns, write

# Every character but surrogates, and the markers of the formats and containers.
PIECES = st.sampled_from(
    ["###", "### ", "#", " ", "\n", "\r\n", "\t", "\0", '"', "\\", "{", "}\n{", "\u2028", "🙂", "日本"]
)
TEXTS = (
    st.lists(PIECES | st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=6)
    .map("".join)
    .filter(
        lambda text: "<image>" not in text  # drops its record by name
    )
)
CONVERSATIONS = st.lists(
    st.lists(st.tuples(st.sampled_from(["user", "assistant"]), TEXTS), min_size=1, max_size=5), min_size=1, max_size=6
)


def openai(turns: list[Turn]) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def sharegpt(turns: list[Turn]) -> dict[str, Any]:
    names = {"user": "human", "assistant": "gpt"}
    return {"conversations": [{"from": names[role], "value": content} for role, content in turns]}


def guanaco(turns: list[Turn]) -> dict[str, Any]:
    words = {"user": "### Human:", "assistant": "### Assistant:"}
    return {"text": "".join(f"{words[role]} {content}" for role, content in turns)}


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("form", [openai, sharegpt, guanaco])
@settings(max_examples=25, deadline=None)
@given(expected=CONVERSATIONS)
def test_conversations_survive_every_format_and_container(
    container: str, form: Callable[[list[Turn]], dict[str, Any]], expected: list[list[Turn]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        reading = read_path(write(Path(folder), container, [form(row) for row in expected]))
        reference = read_path(write(Path(folder), "jsonl", [openai(row) for row in expected]))
    assert turns(reading) == expected and reading.fates.height == 0
    assert reading.conversations["id"].to_list() == reference.conversations["id"].to_list()
    assert reading.conversations["line"].to_list() == list(range(1, len(expected) + 1))
