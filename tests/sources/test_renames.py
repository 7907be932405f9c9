"""Options that say what keys, roles, languages and files mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataprep.common.errors import InputError, RecipeError
from dataprep.recipe import Recipe
from dataprep.sources.options import ReadOptions
from tests.support.reading import json_lines, read_bytes, read_path, turns, write

CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}
BING = {"messages": [{"role": "student", "content": "q"}, {"role": "Bing", "content": "a"}]}


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_columns_renames_keys_before_the_format_is_recognised(tmp_path: Path, container: str) -> None:
    options = ReadOptions.of(Recipe(columns=("question=instruction, answer=output",)))
    assert options.columns == {"question": "instruction", "answer": "output"}
    path = write(tmp_path, container, [{"question": "2 + 2?", "answer": "4"}])
    reading = read_path(path, columns=options.columns)
    assert turns(reading) == [[("user", "2 + 2?"), ("assistant", "4")]] and reading.notes == []


def test_a_key_whose_name_is_taken_over_is_counted(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "a", "instruction": "old"}, {"question": "q", "answer": "a"}]
    columns = {"question": "instruction", "answer": "output"}
    reading = read_bytes(tmp_path, "d.jsonl", json_lines(rows), columns=columns)
    assert turns(reading) == [[("user", "q"), ("assistant", "a")]] * 2
    assert reading.unused_fields == {"instruction": 1}


def test_dolly_gsm8k_and_lmsys_records_are_read_with_columns(tmp_path: Path) -> None:
    dolly = {"instruction": "i", "context": "c", "response": "r", "category": "qa"}
    gsm8k = {"question": "q", "answer": "a"}
    lmsys = {"conversation_id": "x", "model": "m", "conversation": CHAT["messages"], "redacted": False}
    for record, columns, expected in (
        (dolly, {"context": "input", "response": "output"}, [("user", "i\n\nc"), ("assistant", "r")]),
        (gsm8k, {"question": "prompt", "answer": "completion"}, [("user", "q"), ("assistant", "a")]),
        (lmsys, {"conversation": "messages", "conversation_id": "id"}, [("user", "q"), ("assistant", "a")]),
    ):
        assert turns(read_bytes(tmp_path, "d.jsonl", json_lines([record]), columns=columns)) == [expected]


def test_roles_maps_names_of_any_case(tmp_path: Path) -> None:
    reading = read_bytes(tmp_path, "d.jsonl", json_lines([BING]), roles={"bing": "assistant", "student": "user"})
    assert turns(reading) == [[("user", "q"), ("assistant", "a")]] and reading.notes == []


def test_roles_that_are_not_known_are_named(tmp_path: Path) -> None:
    sentence = (
        "d.jsonl: the roles 'Bing' and 'student' are not known; say what each means, such as --roles Bing=assistant."
    )
    with pytest.raises(InputError) as refusal:
        read_bytes(tmp_path, "d.jsonl", json_lines([BING]))
    assert str(refusal.value) == sentence
    reading = read_bytes(tmp_path, "d.jsonl", json_lines([BING, CHAT]))
    assert reading.notes == [sentence] and reading.conversations.height == 2


def test_languages_are_not_selected_if_no_record_states_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No record has a language tag, so --lang en.*--assume-lang en"):
        read_bytes(tmp_path, "d.jsonl", json_lines([CHAT]), lang=("en",))
    reading = read_bytes(
        tmp_path, "d.jsonl", json_lines([CHAT, {**CHAT, "lang": "de"}]), lang=("en",), assume_lang="en"
    )
    assert reading.conversations["lang"].to_list() == ["en", "de"]


def test_skip_unknown_passes_over_files_of_no_known_format(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"name": "config"}')
    (tmp_path / "b.jsonl").write_bytes(json_lines([CHAT]))
    (tmp_path / "c.jsonl").write_text("not JSON\n")
    with pytest.raises(InputError, match="a.json has no known format"):
        read_path(tmp_path)
    reading = read_path(tmp_path, skip_unknown=True)
    assert reading.conversations.select("file", "source").rows() == [(0, "b.jsonl")]
    assert [file.name for file in reading.files] == ["b.jsonl"]
    assert reading.notes == ["2 files have no known format and are skipped (--skip-unknown): a.json, c.jsonl."]
    with pytest.raises(InputError, match="a.json has no known format"):
        read_path(tmp_path / "a.json", skip_unknown=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"columns": ("question",)}, "must have OLD=NEW"),
        ({"columns": ("a=b", "a=c")}, "two new names"),
        ({"columns": ("a=input", "b=input")}, "the same name"),
        ({"roles": ("bing=asistant",)}, "Did you mean 'assistant'"),
        ({"assume_lang": " "}, "is blank"),
    ],
)
def test_malformed_renames_are_refused(options: dict[str, tuple[str, ...]], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        Recipe(**options)  # type: ignore[arg-type]
