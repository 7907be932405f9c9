"""Decontamination: what convicts, what does not, and benchmark files of any shape."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random

import polars as pl
import pytest

from dataprep.conversations import CONVERSATIONS, FATES
from dataprep.dedup.decontaminate import drop_contaminated, read_benchmark
from dataprep.errors import InputError
from tests.dedup.talks import said, sentence
from tests.frames import conversation, conversations

QUESTION = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences."
SHORT = "What is the capital of the Marshall Islands?"


def benchmark(*items: object) -> pl.DataFrame:
    """The texts of these items, as read from a file."""
    rows = [("b.jsonl", i, text) for i, text in enumerate(items, 1)]
    return pl.DataFrame(rows, schema={"benchmark": pl.String, "item": pl.Int64, "text": pl.String}, orient="row")


def test_span_and_whole_item_convict() -> None:
    frame = said(
        [
            "hello",
            f"Please: {QUESTION.upper()} Thanks",
            QUESTION.replace("engaging", "boring"),
            f"Tell me, {SHORT.lower()}",
            "What is the capital of France",
        ]
    )
    kept, fates = drop_contaminated(frame, [benchmark(SHORT, QUESTION)])
    assert kept["id"].to_list() == ["c0", "c2", "c4"] and kept.schema == pl.Schema(CONVERSATIONS)
    assert fates.schema == pl.Schema(FATES)
    assert fates.select("id", "stage", "rule", "detail").rows() == [
        (
            "c1",
            "dedup",
            "contaminated",
            "Shares 15 words with item 2 of b.jsonl: 'compose an engaging travel blog post about a recent trip to "
            "hawaii highlighting cultural experiences'.",
        ),
        (
            "c3",
            "dedup",
            "contaminated",
            "Shares 8 words with item 1 of b.jsonl: 'what is the capital of the marshall islands'.",
        ),
    ]


@pytest.mark.parametrize(
    "text", ["Yes, of course.", "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15", "la " * 30, "?!", "0x10 " * 20]
)
def test_numbers_repetition_and_small_talk_do_not_convict(text: str) -> None:
    assert drop_contaminated(said([text]), [benchmark(text)])[1].is_empty()


def test_boilerplate_does_not_convict() -> None:
    template = "the following are multiple choice questions with answers about the subject of interest here today"
    items = [f"{template} {sentence(Random(i), 20)}" for i in range(10)]
    kept, fates = drop_contaminated(said([f"{template} x", items[3]]), [benchmark(*items)])
    assert fates["id"].to_list() == ["c1"]
    many = said([f"{QUESTION} {i}" for i in range(30)])
    assert drop_contaminated(many, [benchmark(QUESTION)])[1].is_empty()


def test_any_message_and_only_asked_roles() -> None:
    frame = conversations(conversation("a?", QUESTION), conversation(QUESTION, "b"), conversation())
    assert drop_contaminated(frame, [benchmark(QUESTION)])[1]["id"].to_list() == ["c0", "c1"]
    assert drop_contaminated(frame, [benchmark(QUESTION)], on="prompt")[1]["id"].to_list() == ["c1"]
    assert drop_contaminated(frame, [])[0].equals(frame)
    assert drop_contaminated(frame.clear(), [benchmark(QUESTION)])[0].is_empty()


def test_files(tmp_path: Path) -> None:
    item = {"id": 1, "turns": [QUESTION, {"deep": [SHORT, None, 3]}], "blank": " "}
    lines = f"{json.dumps(item)}\n\n{json.dumps(SHORT)}\n".encode()
    (tmp_path / "b.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    rows = [(1, QUESTION), (1, SHORT), (3, SHORT)]
    for name in ("b.jsonl", "b.jsonl.gz"):
        assert read_benchmark(tmp_path / name).rows() == [(name, *row) for row in rows]
    pl.DataFrame({"q": [[QUESTION], [SHORT]], "n": [1, 2]}).write_parquet(tmp_path / "b.parquet")
    assert read_benchmark(tmp_path / "b.parquet")["text"].to_list() == [QUESTION, SHORT]


BAD = [
    ("none.jsonl", None, "no benchmark file"),
    ("empty.jsonl", b"", "is empty"),
    ("empty.jsonl.gz", gzip.compress(b""), "is empty"),
    ("numbers.jsonl", b'{"a": 1}\n[2]\n', "None of the 2 items"),
    ("text.jsonl", b"hello\n", "cannot be read"),
    ("cut.jsonl.gz", gzip.compress(b'{"a": "b"}' * 99)[:-9], "cannot be read"),
    ("not.gz", b"hello", "cannot be read"),
    ("not.parquet", b"hello", "cannot be read"),
    ("latin.jsonl", '{"a": "é"}'.encode("latin-1"), "cannot be read"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_bad_files(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_benchmark(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)


@pytest.mark.real
def test_real_benchmarks(real: Path) -> None:
    """MT-bench and HumanEval against the guanaco test split: one program that everybody writes; and each item finds itself."""
    benchmarks = [
        read_benchmark(real / "benchmarks" / name) for name in ("mt_bench_questions.jsonl", "HumanEval.jsonl.gz")
    ]
    rows = [json.loads(line)["text"] for line in (real / "guanaco/openassistant_best_replies_eval.jsonl").open()]
    kept, fates = drop_contaminated(said(rows), benchmarks)
    assert (len(kept), len(fates)) == (len(rows) - 1, 1) and "fibonacci" in fates["detail"][0]
    prompts = benchmarks[1].group_by("item", maintain_order=True).agg(pl.col("text").get(1))["text"].to_list()
    assert len(drop_contaminated(said(prompts), benchmarks)[1]) > 0.95 * len(prompts)
