"""OASST: real trees, flat and nested, and the shapes of old or unusual exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from dataprep.curate.threads import choose_threads
from dataprep.tables import LABELS, MESSAGES
from tests.support.reading import CONTAINERS, fates, json_lines, read_bytes, read_path, write


def nested(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Nest flat messages in the shape of the native export: labels as a mapping, replies in the order of the rows."""
    known = {message["message_id"] for message in messages}
    replies: dict[str, list[dict[str, Any]]] = {}
    roots = []
    for message in messages:
        message = dict(message)
        labels = message.pop("labels")
        if labels:
            parts = zip(labels["name"], labels["value"], labels["count"], strict=True)
            message["labels"] = {name: {"value": value, "count": count} for name, value, count in parts}
        message["replies"] = replies.setdefault(message["message_id"], [])
        tree_fields = {name: message.pop(name) for name in ("message_tree_id", "tree_state")}
        if message["parent_id"] in known:
            replies.setdefault(message["parent_id"], []).append(message)
        else:  # a root, or an orphan, which becomes a tree whose root names a parent
            roots.append({**tree_fields, "prompt": message})
    return roots


@pytest.mark.real
def test_flat_and_nested_give_the_same_messages(real: Path, tmp_path: Path) -> None:
    path = real / "oasst" / "oasst1_en_validation_messages.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    flat = read_path(path)
    trees = read_bytes(tmp_path, "trees.jsonl", json_lines(nested(rows)))
    assert (flat.files[0].format, trees.files[0].format) == ("oasst-messages", "oasst-trees")
    assert flat.messages.height == 2022 and trees.files[0].records == 191
    place = ["file", "source", "line"]
    assert_frame_equal(
        flat.messages.drop(place).sort("message_id"), trees.messages.drop(place).sort("message_id"), check_exact=True
    )


@pytest.mark.real
def test_flat_messages_keep_the_values_of_the_file(real: Path) -> None:
    path = real / "oasst" / "oasst1_en_validation_messages.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    messages = read_path(path).messages
    assert messages.schema == MESSAGES
    for column, key in {"message_id": "message_id", "parent_id": "parent_id", "content": "text", "lang": "lang",
                        "tree_id": "message_tree_id", "rank": "rank", "deleted": "deleted", "tree_state": "tree_state",
                        "review_result": "review_result", "review_count": "review_count"}.items():  # fmt: skip
        assert messages[column].to_list() == [row[key] for row in rows], column
    assert set(messages["role"]) == {"user", "assistant"}
    for label in LABELS:
        lists = [row["labels"] or {"name": [], "value": []} for row in rows]
        votes = [dict(zip(each["name"], each["value"], strict=True)).get(label) for each in lists]
        assert messages[label].to_list() == pl.Series(votes, dtype=pl.Float32).to_list(), label


@pytest.mark.real
def test_a_real_early_export_without_optional_fields_is_read(real: Path) -> None:
    reading = read_path(real / "oasst" / "en_100_tree.jsonl")
    assert reading.fates.is_empty() and reading.files[0].records == 100
    messages = reading.messages
    assert messages.height == 1167 and messages["line"].n_unique() == 100
    roots = messages.filter(pl.col("parent_id").is_null())
    assert roots.height == 100 and (roots["tree_id"] == roots["message_id"]).all()


def message(name: str, parent: str | None = None, **more: Any) -> dict[str, Any]:
    return {"message_id": name, "parent_id": parent, "text": f"text of {name}", "role": "prompter", **more}


def test_replies_keep_their_order_and_stated_parents(tmp_path: Path) -> None:
    second = message("b", "elsewhere", role="assistant", replies=[message("c")])
    tree = {"prompt": message("a", replies=[second, message("d"), message("e")]), "message_tree_id": None}
    rows = read_bytes(tmp_path, "t.jsonl", json_lines([tree])).messages
    assert rows.select("message_id", "parent_id", "tree_id", "role").rows() == [
        ("a", None, "a", "user"),
        ("b", "elsewhere", "a", "assistant"),
        ("c", "b", "a", "user"),
        ("d", "a", "a", "user"),
        ("e", "a", "a", "user"),
    ]


def test_missing_tree_ids_are_the_id_of_the_topmost_ancestor(tmp_path: Path) -> None:
    chain = [message(str(number), str(number - 1) if number else None) for number in range(300)]
    others = [message("orphan", "missing"), message("under", "orphan"), message("x", "y"), message("y", "x")]
    rows = read_bytes(tmp_path, "m.jsonl", json_lines([*reversed(chain), *others])).messages
    trees = dict(rows.select("message_id", "tree_id").rows())
    assert {trees[str(number)] for number in range(300)} == {"0"}
    assert (trees["orphan"], trees["under"]) == ("orphan", "orphan")
    assert trees["x"] in ("x", "y") and trees["y"] in (
        "x",
        "y",
    )  # the search ends at a cycle; the threads stage drops it


def test_labels_are_read_from_both_shapes_and_null_in_others(tmp_path: Path) -> None:
    rows = [
        message("lists", labels={"name": ["spam", "humor", "quality"], "value": [0.5, 1, 0.25], "count": [1, 2, 3]}),
        message("mapping", labels={"spam": {"value": 0.5, "count": 1}, "quality": {"value": 0.25, "count": 3}}),
        message("null", labels=None),
        message("uneven", labels={"name": ["spam"], "value": [], "count": []}),
        message("odd", labels="none"),
        message("absent"),
    ]
    messages = read_bytes(tmp_path, "m.jsonl", json_lines(rows)).messages
    assert messages.select("spam", "quality").rows() == [(0.5, 0.25), (0.5, 0.25)] + [(None, None)] * 4


def test_messages_without_id_or_text_are_rejected(tmp_path: Path) -> None:
    flat = [message("a"), {"text": "no id", "role": "prompter"}, {"message_id": "no text", "role": "prompter"}]
    reading = read_bytes(tmp_path, "m.jsonl", json_lines(flat))
    assert fates(reading) == [(2, "wrong_schema"), (3, "wrong_schema")]
    assert reading.fates["id"].to_list() == [None, "no text"]
    tree = {"prompt": message("a", replies=[{"message_id": "b", "role": "x"}, message("c")])}
    reading = read_bytes(tmp_path, "t.jsonl", json_lines([tree, {"prompt": 5}]))
    assert reading.messages["message_id"].to_list() == ["a", "c"]
    assert set(reading.fates.select("kind", "line", "id", "rule").rows()) == {
        ("message", 1, "b", "wrong_schema"),
        ("line", 2, None, "wrong_schema"),
    }


def test_numeric_ids_and_lone_surrogates_are_converted_to_text(tmp_path: Path) -> None:
    tree = {
        "prompt": {"message_id": 1, "text": "a\ud800", "role": "prompter", "rank": "first", "replies": [message("2")]}
    }
    reading = read_bytes(tmp_path, "t.jsonl", json_lines([tree]))
    assert reading.messages.select("message_id", "parent_id", "content", "rank").rows() == [
        ("1", None, "a\ufffd\ufffd\ufffd", None),
        ("2", "1", "text of 2", None),
    ]


REVIEW_FIELDS_AS_OTHER_TYPES = {"deleted": 1, "review_result": "false", "rank": "0", "review_count": 3.0}


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
@pytest.mark.parametrize("shape", ["flat", "nested"])
def test_review_fields_of_other_types_are_converted(tmp_path: Path, container: str, shape: str) -> None:
    rows = [message(f"q{n}", labels=None, message_tree_id=f"q{n}", tree_state=None) for n in range(4)]
    for row in rows:
        row.update(REVIEW_FIELDS_AS_OTHER_TYPES)
    reading = read_path(write(tmp_path, container, rows if shape == "flat" else nested(rows)))
    values = reading.messages.select("deleted", "review_result", "rank", "review_count").rows()
    assert values == [(True, False, 0, 3)] * 4 and reading.notes == []


@pytest.mark.parametrize("shape", ["flat", "nested"])
def test_review_fields_that_cannot_be_converted_are_counted_and_later_ones_are_read(tmp_path: Path, shape: str) -> None:
    """A column is read even if no sample can be converted: otherwise a deleted reply would count as a good one."""
    rows = [
        message(f"q{n}", labels=None, message_tree_id=f"q{n}", tree_state=None, deleted="perhaps", rank=0.5)
        for n in range(150)
    ]
    rows += [{**rows[0], "message_id": "z", "deleted": True, "rank": 2}]
    reading = read_path(write(tmp_path, "jsonl", rows if shape == "flat" else nested(rows)))
    assert reading.messages.select("deleted", "rank").rows() == [(None, None)] * 150 + [(True, 2)]
    assert reading.notes == [
        f"data.jsonl: 150 values of '{name}' of the wrong type, read as null." for name in ("deleted", "rank")
    ]


def test_a_reply_below_a_message_without_an_id_is_an_orphan(tmp_path: Path) -> None:
    nameless = {"text": "who?", "role": "assistant", "replies": [message("c", replies=[message("d")])]}
    trees = [{"prompt": message("a", replies=[nameless])}, {"prompt": {**nameless, "replies": [message("e")]}}]
    reading = read_bytes(
        tmp_path, "t.jsonl", json_lines([{"message_tree_id": str(n), **t} for n, t in enumerate(trees)])
    )
    assert reading.fates.select("kind", "line", "rule").rows() == [("message", n, "wrong_schema") for n in (1, 2)]
    threads, fates, *_ = choose_threads(reading.messages, "all")
    assert threads["message_ids"].to_list() == [["a"]]
    assert set(fates.select("id", "rule").rows()) == {("c", "orphan"), ("d", "orphan"), ("e", "orphan")}
    assert "its parent (a message without an id) is not in the data" in fates["detail"].to_list()


def test_a_tree_that_is_nested_too_deeply_is_rejected(tmp_path: Path) -> None:
    deep = b'{"prompt":' + b'{"message_id":"a","text":"t","role":"r","replies":[' * 5000 + b"]}" * 5000 + b"}\n"
    reading = read_bytes(tmp_path, "t.jsonl", json_lines([{"prompt": message("a")}]) + deep)
    assert fates(reading) == [(2, "too_deep")] and reading.messages.height == 1


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("shape", ["flat", "nested"])
def test_messages_are_the_same_from_every_container(tmp_path: Path, container: str, shape: str) -> None:
    labels = {"name": ["spam"], "value": [0.5], "count": [2]}
    rows = [message("a", lang="pt-BR", labels=labels), message("b", "a", role="assistant", rank=0, labels=labels)]
    rows = [{**row, "message_tree_id": "a", "tree_state": "ready"} for row in rows]
    reading = read_path(write(tmp_path, container, rows if shape == "flat" else nested(rows)))
    assert reading.fates.is_empty()
    assert reading.messages.select("tree_id", "message_id", "parent_id", "role", "lang", "spam").rows() == [
        ("a", "a", None, "user", "pt-BR", 0.5),
        ("a", "b", "a", "assistant", None, 0.5),
    ]
