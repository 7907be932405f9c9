"""Guanaco text: real rows against an independent reading, and the places where other readers go wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataprep.sources.reader import Reading
from tests.support.reading import Turn, fates, json_lines, read_bytes, read_path, turns


def by_hand(text: str) -> list[Turn]:
    """The turns of a row, by searching the next marker again and again: shares no code or idea with the reader."""
    words = {"### Human:": "user", "### Assistant:": "assistant"}
    found: list[tuple[str, str]] = []
    place = 0
    while place < len(text):
        marker = next((word for word in words if text.startswith(word, place)), None)
        if marker:
            found.append((words[marker], ""))
            place += len(marker)
            place += text.startswith(" ", place)
        else:
            role, content = found[-1]
            found[-1] = (role, content + text[place])
            place += 1
    return found


@pytest.mark.real
def test_real_rows_lose_and_move_no_character(real: Path) -> None:
    path = real / "guanaco" / "openassistant_best_replies_eval.jsonl"
    texts = [json.loads(line)["text"] for line in path.read_text().splitlines()]
    reading = read_path(path)
    assert reading.files[0].format == "guanaco" and reading.files[0].records == 518
    assert turns(reading) == [by_hand(text) for text in texts]
    words = {"user": "### Human: ", "assistant": "### Assistant: "}
    assert ["".join(words[role] + content for role, content in row) for row in turns(reading)] == texts
    assert sum(row[-1][0] == "user" for row in turns(reading)) == 132  # dangling questions are not trimmed here
    assert reading.bad == 0 and reading.fates.is_empty()


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
def test_only_role_markers_split(tmp_path: Path, text: str) -> None:
    assert turns(read_texts(tmp_path, text)) == [by_hand(text)]


def test_c_sharp_keeps_its_sharp(tmp_path: Path) -> None:
    [row] = turns(read_texts(tmp_path, "### Human: What is C#### Assistant: A language."))
    assert row == [("user", "What is C#"), ("assistant", "A language.")]


def test_a_marker_does_not_span_two_rows(tmp_path: Path) -> None:
    texts = ["### Human: a ### Hum", "### Human: an: b", "### Human: c ### Assistant", ":### Human: d"]
    reading = read_texts(tmp_path, *texts)
    assert turns(reading) == [by_hand(text) for text in texts[:3]]
    assert fates(reading) == [(4, "no_role_marker")]


def test_rows_without_a_speaker_are_told(tmp_path: Path) -> None:
    texts = ["no marker", "### Human: a### Assistant: b", "", "words before ### Human: a", " \n### Human: c"]
    reading = read_texts(tmp_path, *texts)
    assert turns(reading) == [by_hand(texts[1]), [("user", "c")]]
    assert fates(reading) == [(1, "no_role_marker"), (3, "no_role_marker"), (4, "no_role_marker")]
    assert reading.conversations["line"].to_list() == [2, 5]
    assert reading.bad == 3 and reading.files[0].records == 5
