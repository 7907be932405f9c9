"""Comparison with other data: leaks of evaluation sets and benchmarks, and differences from the source."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataprep.audit import audit_file, write_repaired
from tests.support.audits import PAIR, fault_kinds, read_records, rendered, write_records, write_texts

QUESTION = "what is the height of it all?"


@pytest.mark.parametrize(
    ("chat", "held_out", "sure"),
    [
        ((QUESTION, "b"), ("What is the  height of it all?", "9"), "certain"),
        ((QUESTION, "b"), ("What is the height of it all", "9"), "certain"),
        (("short", "b", QUESTION, "c"), (QUESTION, "9"), "certain"),
        ((QUESTION, "b"), ("well", "yes", QUESTION, "9"), "likely"),
        (("another question", "the very same long answer " * 20), ("Hi?", "the very same long answer " * 20), "likely"),
        (("请解释一下量子纠缠是什么意思？", "a"), ("请解释一下量子纠缠是什么意思", "b"), "certain"),
        (("Hi?", "b"), ("hi?", "b"), "certain"),
        (("Hi?", "b"), ("hi?", "c"), None),
        (("5 + 3?", "8"), ("5 - 3?", "2"), None),
        (("Hi?", "I am fine, thank you very much."), ("Ho?", "I am fine, thank you very much."), None),
    ],
)
def test_overlap_with_held_out_conversations_is_a_leak(
    tmp_path: Path, chat: tuple[str, ...], held_out: tuple[str, ...], sure: str | None
) -> None:
    file = write_texts(tmp_path, [rendered(("a sound row", "b")), rendered(chat)])
    held_out_file = write_texts(tmp_path / "held", [rendered(("not asked here", "x")), rendered(held_out)])
    faults = audit_file(file, against=held_out_file).faults
    assert {row: [(fault.kind, fault.sure) for fault in row_faults] for row, row_faults in faults.items()} == (
        {1: [("leak", sure)]} if sure else {}
    )
    if sure:
        assert "row 1 of set.jsonl" in faults[1][0].detail


def test_a_leak_is_found_where_only_the_system_texts_differ(tmp_path: Path) -> None:
    file = write_texts(tmp_path, ["<s>[INST] <<SYS>>\nbe good\n<</SYS>>\n\nHi? [/INST] b </s>"])
    assert fault_kinds(file, against=write_texts(tmp_path / "held", [PAIR.format("Hi?", "b")])) == {0: ["leak"]}


@pytest.mark.parametrize("key", ["turns", "text"])
def test_a_benchmark_of_any_columns_can_be_compared(tmp_path: Path, key: str) -> None:
    words = " ".join(f"word{n}" for n in range(20))
    file = write_texts(tmp_path, [PAIR.format("a sound row", "b"), PAIR.format(f"Please tell me: {words}", "b")])
    (tmp_path / "held").mkdir()
    benchmark = write_records(tmp_path / "held/any.jsonl", [{key: [words] if key == "turns" else words}])
    audit = audit_file(file, against=benchmark)
    assert list(audit.faults) == [1]
    assert audit.faults[1][0].kind == "leak" and "item 1 of any.jsonl" in audit.faults[1][0].detail


@pytest.mark.real
def test_a_question_of_mt_bench_is_found_and_humaneval_gives_no_false_alarm(tmp_path: Path, real: Path) -> None:
    asked = json.loads((real / "benchmarks/mt_bench_questions.jsonl").read_text().splitlines()[3])["turns"][0]
    file = write_texts(tmp_path, [PAIR.format("a sound row", "b"), PAIR.format(asked, "b")])
    assert fault_kinds(file, against=real / "benchmarks/mt_bench_questions.jsonl") == {1: ["leak"]}
    assert fault_kinds(file, against=real / "benchmarks/HumanEval.jsonl.gz") == {}


def test_rows_are_compared_with_their_source_and_repaired_from_it(tmp_path: Path) -> None:
    original = "### Human: what is a llama?### Assistant: An animal.### Human: more?### Assistant: no"
    source = write_texts(tmp_path / "source", [original])
    system = "<s>[INST] <<SYS>>\nbe nice\n<</SYS>>\n\nwhat is a llama? [/INST] "
    texts = [
        PAIR.format("what's a llama?", "b"),
        f"{system}An animal. </s>" + PAIR.format("more?", "no"),
        f"{system}An </s>",
    ]
    audit = audit_file(write_texts(tmp_path, texts), against=source, source_format="guanaco")
    assert audit.summary["not_in_source"] == [{"row": 0}]
    assert "begins with their question: row 0." in audit.notes[-1]
    (fault,) = audit.faults[2]
    assert list(audit.faults) == [2]
    assert (fault.kind, fault.detail[:46]) == ("unfinished", "message 3 ends 8 characters early; the source ")
    write_repaired(audit, tmp_path / "out.jsonl")
    assert [record["text"] for record in read_records(tmp_path / "out.jsonl")] == [texts[0], texts[1], texts[1]]


def test_an_empty_question_does_not_match_a_broken_line_of_the_source(tmp_path: Path) -> None:
    source = write_texts(tmp_path / "source", ["### Human: what is a llama?### Assistant: An animal."])
    source.write_text(source.read_text() + "{broken\n")
    file = write_texts(tmp_path, ["<s>[INST]  [/INST] b </s>"])
    audit = audit_file(file, against=source, source_format="guanaco")
    assert audit.summary["not_in_source"] == [{"row": 0}]


def split_at_headings(text: str) -> str:
    """A guanaco row as a popular notebook formats it: split at every '###' and taken in pairs, without an odd last piece."""
    pieces = text.split("###")[1:]
    turns = [piece.strip().replace(("Human:", "Assistant:")[n % 2], "").strip() for n, piece in enumerate(pieces)]
    return rendered(turns[: len(turns) // 2 * 2])


@pytest.mark.real
def test_exactly_the_real_rows_that_the_notebook_damages_are_found_and_repaired(tmp_path: Path, real: Path) -> None:
    from dataprep.sources.files import find_files
    from dataprep.sources.reader import read

    source_file = real / "guanaco/openassistant_best_replies_eval.jsonl"
    texts = [record["text"] for record in read_records(source_file)]
    file = write_texts(tmp_path, [split_at_headings(text) for text in texts])
    sources = read(find_files([str(source_file)])).conversations["messages"].to_list()
    mangled, shortened = set(), set()
    for row, source in enumerate(sources):
        contents = [message["content"].strip() for message in source]
        mangled |= {row} if split_at_headings(texts[row]) != rendered(contents[: len(source) // 2 * 2]) else set()
        shortened |= {row} if len(source) % 2 else set()
    assert mangled and len(shortened) > 100

    alone = audit_file(file)
    assert set(alone.faults) == mangled
    assert "will double it" in alone.notes[0]
    compared = audit_file(file, against=source_file, source_format="guanaco")
    assert set(compared.faults) == mangled | shortened
    assert write_repaired(compared, tmp_path / "repaired.jsonl")["left_out_rows"] == []
    assert not audit_file(tmp_path / "repaired.jsonl").faults
