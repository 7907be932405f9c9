"""The audit: it finds planted faults of each kind, names sound rows never, and refuses what it cannot read."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from dataprep.audit import audit_file, write_repaired
from dataprep.audit.faults import KINDS
from tests.support.audits import ODD_SPACE, PAIR, fault_kinds, write_records, write_texts
from tests.support.commands import dataprep, dataprep_error

PLANTED = {
    "unparsable": "there is no marker at all",
    "odd_roles": "<s>[INST] a [INST] b [/INST] c </s>",
    "empty_turn": PAIR.format("what is this?", ""),
    "missing_control_token": "<s>[INST] a [/INST] b",
    "doubled_control_token": "<s><s>[INST] a [/INST] b </s>",
    "cut_at_heading": PAIR.format("in C", "#  The pattern"),
    "heading_in_user_turn": PAIR.format("how?", "First") + PAIR.format("1. Install it\nLike so", "2. Run it\nAnd so"),
    "unfinished": PAIR.format("a", "b") + "<s>[INST] and then?",
    "duplicate": PAIR.format("tell me something new", "no"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_fault_is_found_and_sound_rows_are_not_named(tmp_path: Path, kind: str) -> None:
    sound = [PAIR.format("tell me something new", "no"), PAIR.format("x", "# A title\n\ntext")]
    kinds = fault_kinds(write_texts(tmp_path, [*sound, PLANTED[kind]]))
    assert list(kinds) == [2]
    assert kind in kinds[2]
    assert kind in KINDS


def test_a_fault_of_all_rows_is_reported_once_in_the_summary(tmp_path: Path) -> None:
    audit = audit_file(write_texts(tmp_path, [f"[INST] {n} [/INST] b" for n in range(3)]))
    assert audit.faults == {}
    assert "missing_control_token" in audit.summary["every_row"][0]


def test_typed_begin_tokens_of_all_rows_are_reported_once(tmp_path: Path) -> None:
    audit = audit_file(write_texts(tmp_path, [PAIR.format(n, "b") for n in range(3)]))
    assert audit.faults == {}
    assert audit.summary["every_row"] == ["All texts begin with <s>: a tokenizer that adds it too will double it."]


def test_conversations_under_other_keys_are_audited(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": ""}]
    assert fault_kinds(write_texts(tmp_path, [talk], "conversations")) == {0: ["empty_turn"]}


def test_all_files_of_a_folder_or_a_glob_are_audited(tmp_path: Path) -> None:
    for name in ("a", "b"):
        texts = (PAIR.format(name, name), "no marker", ODD_SPACE)
        write_records(tmp_path / f"{name}.jsonl", [{"text": text} for text in texts])
    for source in (tmp_path, tmp_path / "*.jsonl"):
        audit = audit_file(source)
        assert audit.summary["rows"] == 6
        rows = audit.to_json()["rows"]
        assert [(row["file"], row["row"]) for row in rows] == [("a.jsonl", 1), ("b.jsonl", 1), ("b.jsonl", 2)]
        assert rows[2]["faults"][0]["detail"] == "same conversation as row 2 of a.jsonl"
    done = dataprep("audit", tmp_path, "--repaired", tmp_path / "out.jsonl")
    assert "left out: 1 of a.jsonl, 1 of b.jsonl, 2 of b.jsonl" in done.stdout
    assert "b.jsonl    2  duplicate" in done.stdout


def test_a_row_that_cannot_be_read_is_a_fault_of_that_row_only(tmp_path: Path) -> None:
    pl.DataFrame({"text": [ODD_SPACE, None]}).write_parquet(tmp_path / "null.parquet")
    assert fault_kinds(tmp_path / "null.parquet") == {1: ["unparsable"]}
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps({"text": ODD_SPACE}) + '\n{"text": \n\n{"text": 5}\n')
    assert fault_kinds(broken) == {1: ["unparsable"], 2: ["unparsable"]}


def test_a_record_that_a_build_would_drop_when_reading_is_unparsable(tmp_path: Path) -> None:
    file = tmp_path / "broken.jsonl"
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    file.write_text(json.dumps(chat) + '\n{"messages": [{"content": "a"}]}\n{"messages":\n')
    audit = audit_file(file)
    assert {row: faults[0].kind for row, faults in audit.faults.items()} == {1: "unparsable", 2: "unparsable"}
    assert audit.faults[1][0].detail == "the record cannot be used: turn 1 has no role"
    assert write_repaired(audit, tmp_path / "out.jsonl")["written"] == 1


def test_files_of_no_known_format_unknown_templates_and_missing_files_are_refused(tmp_path: Path) -> None:
    assert "has no known format" in dataprep_error(1, "audit", write_texts(tmp_path, ["x"], "words"))
    assert "Unknown template" in dataprep_error(1, "audit", write_texts(tmp_path, ["x"]), "--template", "lama2")
    assert "none.jsonl" in dataprep_error(1, "audit", tmp_path / "none.jsonl")


def test_texts_and_file_names_cannot_steer_the_terminal(tmp_path: Path) -> None:
    done = dataprep("audit", write_texts(tmp_path, ["evil \x1b[31m \u202e text [INST] x"]))
    assert "\x1b[31m" not in done.stdout and "<U+001B>" in done.stdout.replace("\n", "")
    file = write_records(tmp_path / "evil \x1b[31m.jsonl", [{"text": ODD_SPACE}, {"text": "no marker"}])
    done = dataprep("audit", file, "--against", file, "--repaired", tmp_path / "out \x1b[31m.jsonl")
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
    assert done.stdout.count("<U+001B>") >= 3  # in the leak, in the note, and in the name of the output
