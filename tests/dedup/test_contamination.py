"""Decontamination: what convicts, what does not, and benchmark files of any shape."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random

import polars as pl
import pytest

from dataprep.common.errors import InputError
from dataprep.dedup.benchmarks import read_benchmark
from dataprep.dedup.contamination import drop_contaminated
from dataprep.tables import CONVERSATIONS, FATES
from tests.support.frames import conversation, conversations
from tests.support.talks import said, sentence

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
    kept, fates, _ = drop_contaminated(frame, [benchmark(SHORT, QUESTION)])
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
    "text",
    [
        "Yes, of course.",
        "1 2 3 4 5 6 7 8 9 10 11 12 13 14 15",
        "la " * 30,
        "?!",
        "0x10 " * 20,
        "٠١ ٢٣ ٤٥ ٦٧ ٨٩ ٠٢ ٠٣ ٠٤ ٠٥ ٠٦ ٠٧ ٠٨ ٠٩",
    ],
)
def test_numbers_repetition_and_small_talk_do_not_convict(text: str) -> None:
    assert drop_contaminated(said([text]), [benchmark(text)])[1].is_empty()


def test_boilerplate_of_many_items_does_not_convict() -> None:
    template = "the following are multiple choice questions with answers about the subject of interest here today"
    items = [f"{template} {sentence(Random(i), 20)}" for i in range(10)]
    kept, fates, notes = drop_contaminated(said([f"{template} x", items[3]]), [benchmark(*items)])
    assert fates["id"].to_list() == ["c1"]
    assert notes == [
        "1 conversations share only boilerplate with a benchmark and stay; 1 of them in the same words: shares 15 words "
        f"with item 1 of b.jsonl: '{template}'."
    ]


def test_boilerplate_of_many_conversations_does_not_convict_but_an_item_in_many_does() -> None:
    """What half the corpus says is no sign of an item, unless most of what the item says is there."""
    plea = "please think step by step and explain your answer in simple words before you give the result"
    item = f"{plea} {sentence(Random(1), 40)}"
    kept, fates, notes = drop_contaminated(said([*(f"{i}? {plea}" for i in range(30)), item]), [benchmark(item)])
    assert fates["id"].to_list() == ["c30"]
    assert "30 conversations share only boilerplate" in notes[0] and plea in notes[0]
    many = said([f"{QUESTION} {i}" for i in range(1_000)])
    kept, fates, notes = drop_contaminated(many, [benchmark(QUESTION, item)])
    assert kept.is_empty() and notes == []


def test_a_short_item_convicts_a_message_that_says_nothing_else() -> None:
    asked = "Who wrote Pride and Prejudice?"
    frame = conversations(conversation("hi", "hello", f"  {asked.upper()}", "Austen"), conversation(f"{asked} Tell me"))
    _, fates, _ = drop_contaminated(frame, [benchmark(asked)])
    assert fates.select("id", "detail").rows() == [
        ("c0", "Shares 5 words with item 1 of b.jsonl: 'who wrote pride and prejudice'.")
    ]


def test_characters_of_scripts_without_spaces_count_half() -> None:
    weather, longer = "今天天气很好", "我们都知道机器学习模型需要大量干净的数据"
    longest = longer + "才能得到好的结果所以数据清洗很重要"
    frame = said([f"我觉得{weather}，所以出去玩", f"他说{longer}！", f"他说{longest[:18]}！", f"他说{longest[:28]}！"])
    assert drop_contaminated(frame, [benchmark(weather)])[1].is_empty()
    assert drop_contaminated(frame, [benchmark(longer)])[1]["id"].to_list() == ["c1", "c3"]
    assert drop_contaminated(frame, [benchmark(longest)])[1]["id"].to_list() == ["c3"]


@pytest.mark.real
def test_an_item_with_many_answers_is_found_in_all(real: Path) -> None:
    lines = [json.loads(line) for line in (real / "benchmarks/mt_bench_questions.jsonl").open()]
    asked = [line["turns"][0] for line in lines if len(line["turns"][0].split()) >= 13]
    frame = conversations(*(conversation(turn, sentence(Random(i), 30)) for turn in asked for i in range(25)))
    kept, fates, _ = drop_contaminated(frame, [read_benchmark(real / "benchmarks/mt_bench_questions.jsonl")])
    assert len(asked) > 60 and len(fates) >= 0.97 * len(frame)


def test_any_message() -> None:
    frame = conversations(conversation("a?", QUESTION), conversation(QUESTION, "b"), conversation())
    assert drop_contaminated(frame, [benchmark(QUESTION)])[1]["id"].to_list() == ["c0", "c1"]
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
    (tmp_path / "half.jsonl").write_bytes(b'{"a": "half of \\ud83d a pair"}\n')
    assert read_benchmark(tmp_path / "half.jsonl")["text"].to_list() == ["half of ? a pair"]
    pl.DataFrame({"q": [[QUESTION], [SHORT]], "n": [1, 2]}).write_parquet(tmp_path / "b.parquet")
    assert read_benchmark(tmp_path / "b.parquet")["text"].to_list() == [QUESTION, SHORT]


GZIPPED = gzip.compress(sentence(Random(0), 2_000).encode())
BAD = [
    ("none.jsonl", None, "no benchmark file"),
    ("empty.jsonl", b"", "is empty"),
    ("empty.jsonl.gz", gzip.compress(b""), "is empty"),
    ("numbers.jsonl", b'{"a": 1}\n[2]\n', "None of the 2 items"),
    ("text.jsonl", b"hello\n", "cannot be read"),
    ("cut.jsonl.gz", gzip.compress(b'{"a": "b"}' * 99)[:-9], "cannot be read"),
    ("not.gz", b"hello", "cannot be read"),
    ("not.parquet", b"hello", "cannot be read"),
    ("corrupt.jsonl.gz", b"".join([GZIPPED[:200], b"\xff" * 60, GZIPPED[260:]]), "cannot be read"),
    ("deep.jsonl", b"[" * 100_000, "cannot be read"),
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
    kept, fates, _ = drop_contaminated(said(rows), benchmarks)
    assert (len(kept), len(fates)) == (len(rows) - 1, 1) and "fibonacci" in fates["detail"][0]
    prompts = benchmarks[1].group_by("item", maintain_order=True).agg(pl.col("text").get(1))["text"].to_list()
    assert len(drop_contaminated(said(prompts), benchmarks)[1]) > 0.95 * len(prompts)
