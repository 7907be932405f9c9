"""Conversations that differ only in reasoning, calls, tools or trained answers are no duplicates."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from dataprep.dedup.contamination import drop_contaminated
from dataprep.dedup.exact import drop_exact_duplicates
from dataprep.dedup.leaks import similar_groups
from dataprep.dedup.near import drop_near_duplicates
from dataprep.dedup.normal_form import documents
from tests.support.frames import chat, conversations
from tests.support.texts import leaks_between, sentence

QUESTION, ANSWER = sentence(Random(1), 60), sentence(Random(2), 60)
TOOLS = '[{"type": "function", "function": {"name": "search"}}]'
CALL = '[{"type": "function", "function": {"name": "search", "arguments": {"q": "%s"}}}]'


def talk(tools: str | None = None, **fields: Any) -> dict[str, Any]:
    return chat(
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": ANSWER, **fields},
        {"role": "user", "content": "and then?"},
        {"role": "assistant", "content": "then this"},
        tools=tools,
    )


VARIANTS = {
    "reasoning": [
        talk(reasoning_content=sentence(Random(3), 80)),
        talk(reasoning_content=sentence(Random(4), 80)),
        talk(),
    ],
    "calls": [talk(tool_calls=CALL % sentence(Random(3), 80)), talk(tool_calls=CALL % sentence(Random(4), 80)), talk()],
    "tools": [talk(tools=TOOLS), talk(tools=TOOLS.replace("search", "look_up")), talk()],
    "trained": [talk(trained=False), talk()],
}


@pytest.mark.parametrize("name", VARIANTS)
def test_conversations_that_differ_in_one_field_only_are_all_kept(name: str) -> None:
    frame = conversations(*VARIANTS[name])
    assert drop_exact_duplicates(frame).fates.is_empty()
    assert drop_near_duplicates(frame).fates.is_empty()


@pytest.mark.parametrize("name", VARIANTS)
def test_copies_with_equal_fields_are_duplicates(name: str) -> None:
    frame = conversations(*VARIANTS[name], *VARIANTS[name])
    count = len(VARIANTS[name])
    survivors = [(f"c{n + count}", f"c{n}") for n in range(count)]
    assert drop_exact_duplicates(frame).fates.select("id", "survivor").rows() == survivors
    assert drop_near_duplicates(frame).fates.select("id", "survivor").rows() == survivors


def test_a_flag_of_true_is_the_default() -> None:
    frame = conversations(talk(trained=True), talk(trained=None), talk(trained=False))
    assert drop_exact_duplicates(frame).fates["id"].to_list() == ["c1"]
    assert drop_near_duplicates(frame).fates["id"].to_list() == ["c1"]


@pytest.mark.parametrize("name", ["tools", "trained"])
def test_the_same_texts_with_other_tools_or_flags_still_leak(name: str) -> None:
    frame = conversations(*VARIANTS[name])
    assert similar_groups(frame)[0]["group"].n_unique() == 1
    assert leaks_between(frame[1:], frame[:1])["similarity"].to_list() == [1.0] * (len(frame) - 1)


def test_documents_hold_reasoning_and_calls() -> None:
    frame = conversations(
        chat(
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a", "reasoning_content": "r", "tool_calls": "[1]"},
            {"role": "tool", "content": "found"},
        )
    )
    assert documents(frame).to_list() == ["q\na\nr\n[1]\nfound\n"]
    assert documents(frame, "prompt").to_list() == ["q\n"]
    assert documents(frame, "answer").to_list() == ["a\nr\n[1]\n"]


def test_a_benchmark_item_in_the_reasoning_drops_a_conversation() -> None:
    import polars as pl

    item = sentence(Random(9), 30)
    text = " ".join(f"word{word}" for word in item.split(" "))
    benchmark = pl.DataFrame({"benchmark": ["b"], "item": [1], "text": [text]}, schema_overrides={"item": pl.Int64})
    frame = conversations(talk(), talk(reasoning_content=text))
    assert drop_contaminated(frame, [benchmark]).fates["id"].to_list() == ["c1"]
