"""Preference records and pairs of prompt and completion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataprep.common.errors import InputError
from tests.support.reading import Turn, fates, json_lines, read_bytes, read_path, turns, write

QUESTION = {"role": "user", "content": "q"}
GOOD = {"role": "assistant", "content": "good"}
BAD = {"role": "assistant", "content": "bad"}
BETTER: list[Turn] = [("user", "q"), ("assistant", "good")]


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "q", "chosen": "good", "rejected": "bad"},
        {"prompt": [QUESTION], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": [QUESTION], "chosen": [QUESTION, GOOD], "rejected": [QUESTION, BAD]},
        {"chosen": [QUESTION, GOOD], "rejected": [QUESTION, BAD]},
        {"messages": [QUESTION], "chosen": GOOD, "rejected": BAD},
        {
            "conversations": [{"from": "human", "value": "q"}],
            "chosen": {"from": "gpt", "value": "good"},
            "rejected": {"from": "gpt", "value": "bad"},
        },
        {"instruction": "q", "input": "", "chosen": "good", "rejected": "bad"},
        {"messages": json.dumps([QUESTION]), "chosen": json.dumps([GOOD]), "rejected": json.dumps([BAD])},
    ],
)
@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_preference_chosen_trains_on_the_better_answer(tmp_path: Path, container: str, record: dict[str, Any]) -> None:
    path = write(tmp_path, container, [record])
    assert turns(read_path(path, preference="chosen")) == [BETTER]
    with pytest.raises(InputError, match=r"preference records \('chosen' and 'rejected'\).*--preference chosen trains"):
        read_path(path)


def test_preference_records_keep_their_context_and_are_accounted_for(tmp_path: Path) -> None:
    first = {"instruction": "now", "history": [["before", "so"]], "system": "s", "chosen": "c", "rejected": "r"}
    rows = [{**first, "score": 3}, {"prompt": "p", "rejected": "r"}, {"prompt": "p", "chosen": "c", "rejected": "r"}]
    reading = read_bytes(tmp_path, "p.jsonl", json_lines(rows), preference="chosen")
    assert turns(reading) == [
        [("system", "s"), ("user", "before"), ("assistant", "so"), ("user", "now"), ("assistant", "c")],
        [("user", "p"), ("assistant", "c")],
    ]
    assert fates(reading) == [(2, "wrong_schema")] and reading.unused_fields == {"score": 1}


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
def test_prompt_and_completion_are_texts_or_messages(tmp_path: Path, container: str) -> None:
    rows: list[dict[str, Any]] = [{"prompt": "q", "completion": "good", "system": "s"}]
    assert turns(read_path(write(tmp_path, container, rows))) == [[("system", "s"), *BETTER]]
    rows = [{"prompt": [QUESTION], "completion": [GOOD]}]
    reading = read_path(write(tmp_path, container, rows))
    assert turns(reading) == [BETTER] and reading.files[0].format == "completion"


def test_a_list_of_completions_rejects_the_record(tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": ["good", "bad"]}, {"prompt": "q", "completion": None}]
    rows += [{"prompt": "q", "completion": "good"}]
    reading = read_bytes(tmp_path, "c.jsonl", json_lines(rows))
    assert fates(reading) == [(1, "unsupported_field"), (2, "wrong_schema")] and turns(reading) == [BETTER]
