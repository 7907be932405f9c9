"""Guanaco text: real rows against an independent parser, and the cases that other parsers get wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataprep.sources.reader import Reading
from tests.support.reading import Turn, fates, json_lines, read_bytes, read_path, turns


def slow_parse(text: str) -> list[Turn]:
    """Parse a row character by character; shares no code or method with the reader."""
    words = {"### Human:": "user", "### Assistant:": "assistant"}
    turns: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        marker = next((word for word in words if text.startswith(word, position)), None)
        if marker:
            turns.append((words[marker], ""))
            position += len(marker)
            position += text.startswith(" ", position)
        else:
            role, content = turns[-1]
            turns[-1] = (role, content + text[position])
            position += 1
    return turns


@pytest.mark.real
def test_real_rows_are_read_without_losing_or_moving_a_character(real: Path) -> None:
    path = real / "guanaco" / "openassistant_best_replies_eval.jsonl"
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    reading = read_path(path)
    assert reading.files[0].format == "guanaco" and reading.files[0].records == 518
    assert turns(reading) == [slow_parse(text) for text in texts]
    words = {"user": "### Human: ", "assistant": "### Assistant: "}
    assert ["".join(words[role] + content for role, content in row) for row in turns(reading)] == texts
    assert sum(row[-1][0] == "user" for row in turns(reading)) == 132  # dangling questions are not trimmed here
    assert reading.fates.height == 0 and reading.fates.is_empty()


def read_texts(tmp_path: Path, *texts: str) -> Reading:
    return read_bytes(tmp_path, "rows.jsonl", json_lines({"text": text} for text in texts))


@pytest.mark.parametrize(
    "text",
    [
        "### Human: How?### Assistant: ### Step 1\nBoil.\n### Step 2\nEat.### Human: Thanks",
        "### Human: What is C#### Assistant: A language.",
        "### Human: the male&###; sign### Assistant: ###",
        "### Human:### Assistant:  two spaces, one stays ### Human:",
        "### Human: one### Human: two### Assistant: a### Assistant: b",
        "### Human: 日本語 ### Humans: are no role### assistant: neither### Assistant: 🙂",
        "### Assistant: begins### Human: ends with a newline\n",
    ],
)
def test_only_role_markers_begin_a_turn(tmp_path: Path, text: str) -> None:
    assert turns(read_texts(tmp_path, text)) == [slow_parse(text)]


def test_a_turn_that_ends_in_c_sharp_keeps_its_last_character(tmp_path: Path) -> None:
    [row] = turns(read_texts(tmp_path, "### Human: What is C#### Assistant: A language."))
    assert row == [("user", "What is C#"), ("assistant", "A language.")]


def test_a_marker_is_not_found_across_two_rows(tmp_path: Path) -> None:
    texts = ["### Human: a ### Hum", "### Human: an: b", "### Human: c ### Assistant", ":### Human: d"]
    reading = read_texts(tmp_path, *texts)
    assert turns(reading) == [slow_parse(text) for text in texts[:3]]
    assert fates(reading) == [(4, "no_role_marker")]


def test_rows_with_text_before_the_first_marker_are_rejected(tmp_path: Path) -> None:
    texts = ["no marker", "### Human: a### Assistant: b", "", "words before ### Human: a", " \n### Human: c"]
    reading = read_texts(tmp_path, *texts)
    assert turns(reading) == [slow_parse(texts[1]), [("user", "c")]]
    assert fates(reading) == [(1, "no_role_marker"), (3, "no_role_marker"), (4, "no_role_marker")]
    assert reading.conversations["line"].to_list() == [2, 5]
    assert reading.fates.height == 3 and reading.files[0].records == 5
