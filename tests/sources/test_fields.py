"""Every key of a record is used, or rejects the record by name, or is counted in a note."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.common.errors import InputError
from dataprep.sources import jsonlines
from dataprep.sources.columns import NeedsLineReader
from tests.support.builds import make_build
from tests.support.reading import fates, json_lines, read_bytes, read_path, turns, write

QUESTION = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
CHAT = {"messages": [QUESTION, ANSWER]}


@pytest.fixture(params=["by columns", "line by line"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with both readers: they must account for the same keys."""

    def refuse(*arguments: Any) -> None:
        raise NeedsLineReader

    if request.param == "line by line":
        monkeypatch.setattr(jsonlines, "_parse_by_columns", refuse)
    return str(request.param)


def test_a_key_that_is_not_used_is_counted_in_a_note(tmp_path: Path, parser: str) -> None:
    rows = [{**CHAT, "score": n % 2 * 0.5} for n in range(3)] + [{**CHAT, "score": None, "tags": []}] * 2
    reading = read_bytes(tmp_path, "d.jsonl", json_lines(rows))
    assert reading.notes == ["3 of 5 records have 'score', which is not used."]
    assert reading.unused_fields == {"score": 3} and reading.conversations.height == 5


def test_a_key_of_a_turn_that_is_not_used_is_counted_in_a_note(tmp_path: Path, parser: str) -> None:
    rows = [{"messages": [QUESTION, {**ANSWER, "emoji": "x"}]}, CHAT]
    reading = read_bytes(tmp_path, "d.jsonl", json_lines(rows))
    assert reading.notes == ["1 of 4 messages has 'emoji', which is not used."]
    assert reading.unused_fields == {"messages.emoji": 1}


def test_keys_that_occur_equally_often_share_a_note(tmp_path: Path, parser: str) -> None:
    reading = read_bytes(tmp_path, "d.jsonl", json_lines([{**CHAT, "b": 1, "a": "x", "c": {"d": True}}]))
    assert reading.notes == ["1 of 1 record has 'a', 'b' and 'c', which are not used."]


@pytest.mark.parametrize(
    "empty", [None, "", [], {}, float("nan"), {"a": None}], ids=["null", "text", "list", "object", "nan", "nulls"]
)
def test_a_key_without_a_value_is_not_counted(tmp_path: Path, parser: str, empty: object) -> None:
    reading = read_bytes(tmp_path, "d.jsonl", json_lines([{**CHAT, "score": empty}]))
    assert reading.notes == [] and reading.unused_fields == {}


def test_a_key_with_values_of_several_types_is_counted(tmp_path: Path) -> None:
    values = [1, "x", None, [1], {"a": 1}, True, ""]
    reading = read_bytes(tmp_path, "d.jsonl", json_lines({**CHAT, "score": value} for value in values))
    assert reading.unused_fields == {"score": 5} and reading.conversations.height == 7


@pytest.mark.parametrize(
    ("extra", "name"),
    [
        ({"images": ["x.png"]}, "images"),
        ({"image": "x.png"}, "image"),
        ({"audio": {"path": "x"}}, "audio"),
        ({"videos": ["x"]}, "videos"),
        ({"label": False}, "label"),
        ({"kto_tag": True}, "kto_tag"),
        ({"rejected": "worse"}, "rejected"),
        ({"train": False}, "train"),
        ({"weight": 0}, "weight"),
        ({"weight": 0.0}, "weight"),
    ],
)
def test_a_field_that_changes_what_is_learnt_rejects_its_record(
    tmp_path: Path, parser: str, extra: dict[str, Any], name: str
) -> None:
    reading = read_bytes(tmp_path, "d.jsonl", json_lines([CHAT, {**CHAT, **extra, "id": "bad"}]))
    assert turns(reading) == [[("user", "q"), ("assistant", "a")]]
    fate = reading.fates.row(0, named=True)
    assert (fate["line"], fate["rule"], fate["id"] in (None, "bad")) == (2, "unsupported_field", True)
    assert f"'{name}'" in fate["detail"]


@pytest.mark.parametrize("extra", [{"label": "joke"}, {"weight": 1}, {"train": True}, {"images": []}])
def test_a_field_of_that_name_with_another_meaning_does_not(tmp_path: Path, parser: str, extra: dict[str, Any]) -> None:
    reading = read_bytes(tmp_path, "d.jsonl", json_lines([{**CHAT, **extra}]))
    assert reading.fates.is_empty() and reading.conversations.height == 1


@pytest.mark.parametrize(
    ("turn", "detail"),
    [
        ({"role": "user", "content": "<image>\nWhat is it?"}, "turn 1 has '<image>' in its text"),
        ({**QUESTION, "images": ["x"]}, "turn 1 has 'images', which cannot be used"),
        ({**QUESTION, "tools": [{"name": "f"}]}, "turn 1 has 'tools', which cannot be used"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": "x"}]},
            "turn 1: 'content' holds a part of type \"image_url\", which is not text",
        ),
    ],
)
def test_media_in_a_turn_rejects_the_record(tmp_path: Path, parser: str, turn: dict[str, Any], detail: str) -> None:
    reading = read_bytes(tmp_path, "d.jsonl", json_lines([{"messages": [turn, ANSWER]}]))
    assert reading.fates.select("rule", "detail").rows() == [("unsupported_field", detail)]


@pytest.mark.parametrize(
    "record",
    [
        {"text": "### Human: <image> what?### Assistant: a"},
        {"instruction": "<image> what?", "output": "a"},
        {"prompt": "<image> what?", "completion": "a"},
        {"conversations": [{"from": "human", "value": "<image> what?"}, {"from": "gpt", "value": "a"}]},
    ],
)
def test_an_image_marker_rejects_the_record_of_every_format(
    tmp_path: Path, parser: str, record: dict[str, Any]
) -> None:
    reading = read_bytes(tmp_path, "d.jsonl", json_lines([record]))
    assert reading.fates.select("rule", "detail").rows() == [("unsupported_field", "turn 1 has '<image>' in its text")]


def test_unknown_fields_drop_rejects_records_with_unused_keys(tmp_path: Path, parser: str) -> None:
    rows = [{**CHAT, "score": 1}, {"messages": [QUESTION, {**ANSWER, "emoji": "x"}]}, CHAT, {**CHAT, "score": None}]
    reading = read_bytes(tmp_path, "d.jsonl", json_lines(rows), unknown_fields="drop")
    assert reading.conversations["line"].to_list() == [3, 4]
    assert reading.fates.select("line", "rule", "detail").rows() == [
        (1, "unknown_field", "has 'score', which is not used"),
        (2, "unknown_field", "turn 2 has 'emoji', which is not used"),
    ]


def test_unknown_fields_error_refuses_the_file_and_names_the_keys(tmp_path: Path, parser: str) -> None:
    rows = [{**CHAT, "score": 1}, {"messages": [QUESTION, {**ANSWER, "emoji": "x"}], "score": 2}]
    with pytest.raises(InputError, match=r"d.jsonl has keys that are not used: 'messages.emoji' \(1\), 'score' \(2\)"):
        read_bytes(tmp_path, "d.jsonl", json_lines(rows), unknown_fields="error")
    assert read_bytes(tmp_path, "d.jsonl", json_lines([CHAT]), unknown_fields="error").notes == []


@pytest.mark.parametrize("container", ["parquet", "arrow"])
def test_columns_that_are_not_used_are_counted(tmp_path: Path, container: str) -> None:
    rows: list[dict[str, Any]] = [{**CHAT, "score": 1, "tags": ["x"]}, {**CHAT, "score": None, "tags": []}]
    reading = read_path(write(tmp_path, container, rows))
    assert reading.unused_fields == {"score": 1, "tags": 1} and reading.conversations.height == 2


def test_unused_columns_of_every_arrow_type_are_counted(tmp_path: Path) -> None:
    columns = {
        "messages": pa.array([CHAT["messages"]] * 2),
        "view": pa.array(["x", ""], pa.string_view()),
        "binary": pa.array([b"x", b""]),
        "coded": pa.array(["x", None]).dictionary_encode(),
        "fixed": pa.array([[1, 2], None], pa.list_(pa.int64(), 2)),
        "large": pa.array([["x"], []], pa.large_list(pa.string())),
        "mapping": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
        "nothing": pa.nulls(2),
        "number": pa.array([0.0, float("nan")]),
    }
    path = tmp_path / "d.arrow"
    table = pa.table(columns)
    with pa.ipc.new_stream(path, table.schema) as writer:
        writer.write_table(table)
    assert read_path(path).unused_fields == dict.fromkeys(sorted(columns.keys() - {"messages", "nothing"}), 1)


def test_the_file_is_kept_as_the_source_beside_a_column_of_that_name(tmp_path: Path, parser: str) -> None:
    reading = read_bytes(tmp_path, "d.jsonl", json_lines([{**CHAT, "source": "forum"}]))
    assert reading.conversations["source"].to_list() == ["d.jsonl"] and reading.unused_fields == {"source": 1}


def test_nan_is_read_as_null(tmp_path: Path, parser: str) -> None:
    nan = float("nan")
    rows = [{"instruction": "River?", "input": nan, "output": "Rhine", "id": nan, "lang": nan}]
    for path in (tmp_path / "a.jsonl", tmp_path / "a.parquet"):
        if path.suffix == ".jsonl":
            path.write_bytes(json_lines(rows))
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)
        reading = read_path(path)
        assert turns(reading) == [[("user", "River?"), ("assistant", "Rhine")]]
        assert reading.conversations["lang"].to_list() == [None] and reading.conversations["id"][0] != "nan"


def test_several_texts_in_output_reject_the_record(tmp_path: Path, parser: str) -> None:
    rows = [{"instruction": "i", "output": ["good ", "bad"]}, {"instruction": "i", "output": "o"}]
    reading = read_bytes(tmp_path, "a.jsonl", json_lines(rows))
    assert reading.fates.select("rule", "detail").rows() == [("unsupported_field", "has a list of 2 texts in 'output'")]
    assert turns(reading) == [[("user", "i"), ("assistant", "o")]]


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
@pytest.mark.parametrize("key", ["messages", "conversations"])
def test_turns_stored_as_json_text_are_read(tmp_path: Path, container: str, key: str) -> None:
    import json

    rows = [{key: json.dumps(CHAT["messages"])}, {key: json.dumps([QUESTION, {**ANSWER, "weight": 0}])}]
    reading = read_path(write(tmp_path, container, rows))
    assert turns(reading) == [[("user", "q"), ("assistant", "a")]] * 2
    lists = [{key: [json.dumps(turn) for turn in CHAT["messages"]]}]
    assert turns(read_path(write(tmp_path, container, lists))) == [[("user", "q"), ("assistant", "a")]]


def test_data_sets_that_type_messages_as_json_are_read(tmp_path: Path) -> None:
    import datasets

    rows = [CHAT, {"messages": [QUESTION, {**ANSWER, "weight": 0}]}]
    data = datasets.Dataset.from_list(rows, features=datasets.Features({"messages": datasets.List(datasets.Json())}))
    data.to_parquet(tmp_path / "d.parquet")
    data.save_to_disk(tmp_path / "saved")
    for path in (tmp_path / "d.parquet", tmp_path / "saved"):
        reading = read_path(path)
        assert turns(reading) == [[("user", "q"), ("assistant", "a")]] * 2
        assert [row[1]["trained"] for row in reading.conversations["messages"].to_list()] == [None, False]


def test_unused_keys_of_trees_are_counted_by_message(tmp_path: Path) -> None:
    message = {"message_id": "a", "text": "t", "role": "prompter", "emojis": {"+1": 2}, "user_id": "u"}
    trees = [
        {"prompt": {**message, "replies": [{**message, "message_id": "b", "mood": "x"}]}, "origin": "web"},
        {"prompt": {**message, "message_id": "c", "user_id": None}},
    ]
    reading = read_bytes(tmp_path, "t.jsonl", json_lines(trees))
    assert reading.messages.height == 3
    assert reading.unused_fields == {"emojis": 3, "mood": 1, "origin": 1, "user_id": 2}
    kept = read_bytes(tmp_path, "t.jsonl", json_lines(trees), unknown_fields="drop")
    assert fates(kept) == [(1, "unknown_field")] and kept.messages.height == 1


def test_a_build_counts_unused_fields_in_its_manifest_and_its_notes(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": f"answer {n}"}]}
        for n in range(4)
    ]
    rows[1]["score"] = 0.5
    rows[2]["messages"][1]["emoji"] = "x"
    rows[3]["images"] = ["x.png"]
    (tmp_path / "d.jsonl").write_bytes(json_lines(rows))
    outcome = make_build(tmp_path / "store", source=(str(tmp_path / "d.jsonl"),), near_dup="off", dry_run=True)
    assert outcome.summary["unused_fields"] == {"messages.emoji": 1, "score": 1}
    assert outcome.summary["rows"] == 3 and outcome.summary["fates"]["rules"] == {"unsupported_field": 1}
    assert outcome.summary["notes"] == [
        "1 of 4 records has 'score', which is not used.",
        "1 of 8 messages has 'emoji', which is not used.",
        "1 of 4 records dropped, because they have a field that changes what is learnt and cannot be used "
        "(unsupported_field).",
    ]
