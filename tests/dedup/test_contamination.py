"""Decontamination drops conversations that share text with a benchmark, and keeps those that share only boilerplate."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

import polars as pl
import pytest

from dataprep.dedup.benchmarks import read_benchmark
from dataprep.dedup.contamination import drop_contaminated
from dataprep.tables import CONVERSATIONS, FATES
from tests.support.frames import conversation, conversations
from tests.support.texts import questions, sentence

QUESTION = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences."
SHORT = "What is the capital of the Marshall Islands?"


def benchmark(*items: object) -> pl.DataFrame:
    """The texts of these items, as read from a file."""
    rows = [("b.jsonl", i, text) for i, text in enumerate(items, 1)]
    return pl.DataFrame(rows, schema={"benchmark": pl.String, "item": pl.Int64, "text": pl.String}, orient="row")


def test_thirteen_shared_words_or_a_whole_short_item_drop_a_conversation() -> None:
    frame = questions(
        [
            "hello",
            f"Please: {QUESTION.upper()} Thanks",
            QUESTION.replace("engaging", "boring"),
            f"Tell me, {SHORT.lower()}",
            "What is the capital of France",
        ]
    )
    kept, fates, *_ = drop_contaminated(frame, [benchmark(SHORT, QUESTION)])
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
def test_numbers_repetition_and_small_talk_do_not_match(text: str) -> None:
    assert drop_contaminated(questions([text]), [benchmark(text)])[1].is_empty()


def test_text_that_many_items_share_does_not_match() -> None:
    template = "the following are multiple choice questions with answers about the subject of interest here today"
    items = [f"{template} {sentence(Random(i), 20)}" for i in range(10)]
    kept, fates, notes, *_ = drop_contaminated(questions([f"{template} x", items[3]]), [benchmark(*items)])
    assert fates["id"].to_list() == ["c1"]
    assert notes == [
        "1 conversation with nothing but boilerplate of a benchmark in common is kept; the most frequent case (1): shares "
        f"15 words with item 1 of b.jsonl: '{template}'."
    ]


def test_text_that_many_conversations_share_does_not_match_unless_it_is_most_of_an_item() -> None:
    plea = "please think step by step and explain your answer in simple words before you give the result"
    item = f"{plea} {sentence(Random(1), 40)}"
    kept, fates, notes, *_ = drop_contaminated(
        questions([*(f"{i}? {plea}" for i in range(30)), item]), [benchmark(item)]
    )
    assert fates["id"].to_list() == ["c30"]
    assert notes[0].startswith("30 conversations with nothing but boilerplate") and plea in notes[0]
    many = questions([f"{QUESTION} {i}" for i in range(1_000)])
    kept, fates, notes, *_ = drop_contaminated(many, [benchmark(QUESTION, item)])
    assert kept.is_empty() and notes == []


def test_an_item_of_five_words_matches_only_a_whole_message() -> None:
    question = "Who wrote Pride and Prejudice?"
    frame = conversations(
        conversation("hi", "hello", f"  {question.upper()}", "Austen"), conversation(f"{question} Tell me")
    )
    _, fates, *_ = drop_contaminated(frame, [benchmark(question)])
    assert fates.select("id", "detail").rows() == [
        ("c0", "Shares 5 words with item 1 of b.jsonl: 'who wrote pride and prejudice'.")
    ]


def test_characters_of_scripts_without_spaces_count_half_a_word() -> None:
    weather, longer = "今天天气很好", "我们都知道机器学习模型需要大量干净的数据"
    longest = longer + "才能得到好的结果所以数据清洗很重要"
    frame = questions(
        [f"我觉得{weather}，所以出去玩", f"他说{longer}！", f"他说{longest[:18]}！", f"他说{longest[:28]}！"]
    )
    assert drop_contaminated(frame, [benchmark(weather)])[1].is_empty()
    assert drop_contaminated(frame, [benchmark(longer)])[1]["id"].to_list() == ["c1", "c3"]
    assert drop_contaminated(frame, [benchmark(longest)])[1]["id"].to_list() == ["c3"]


@pytest.mark.real
def test_an_item_is_found_in_all_conversations_that_ask_it(real: Path) -> None:
    lines = [json.loads(line) for line in (real / "benchmarks/mt_bench_questions.jsonl").open()]
    question = [line["turns"][0] for line in lines if len(line["turns"][0].split()) >= 13]
    frame = conversations(*(conversation(turn, sentence(Random(i), 30)) for turn in question for i in range(25)))
    kept, fates, *_ = drop_contaminated(frame, [read_benchmark(real / "benchmarks/mt_bench_questions.jsonl")])
    assert len(question) > 60 and len(fates) >= 0.97 * len(frame)


def test_any_message_of_a_conversation_can_match() -> None:
    frame = conversations(conversation("a?", QUESTION), conversation(QUESTION, "b"), conversation())
    assert drop_contaminated(frame, [benchmark(QUESTION)])[1]["id"].to_list() == ["c0", "c1"]
    assert drop_contaminated(frame, [])[0].equals(frame)
    assert drop_contaminated(frame.clear(), [benchmark(QUESTION)])[0].is_empty()


@pytest.mark.real
def test_real_conversations_share_one_program_with_real_benchmarks_and_each_prompt_matches_itself(real: Path) -> None:
    benchmarks = [
        read_benchmark(real / "benchmarks" / name) for name in ("mt_bench_questions.jsonl", "HumanEval.jsonl.gz")
    ]
    rows = [json.loads(line)["text"] for line in (real / "guanaco/openassistant_best_replies_eval.jsonl").open()]
    kept, fates, *_ = drop_contaminated(questions(rows), benchmarks)
    assert (len(kept), len(fates)) == (len(rows) - 1, 1) and "fibonacci" in fates["detail"][0]
    prompts = benchmarks[1].group_by("item", maintain_order=True).agg(pl.col("text").get(1))["text"].to_list()
    assert len(drop_contaminated(questions(prompts), benchmarks)[1]) > 0.95 * len(prompts)


def test_batches_of_any_size_give_the_same_fates(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = questions([QUESTION, "hello", SHORT, f"So: {QUESTION} Thanks", "Name five green animals", "hello again"])
    items = benchmark(SHORT, QUESTION, "Name five green animals")
    whole = drop_contaminated(frame, [items])
    monkeypatch.setattr("dataprep.dedup.contamination.BATCH_BYTES", 1)
    in_batches = drop_contaminated(frame, [items])
    assert whole.fates["id"].to_list() == ["c0", "c2", "c3", "c4"]
    assert in_batches.fates.equals(whole.fates)
