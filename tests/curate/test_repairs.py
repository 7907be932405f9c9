"""Repairs change what must change, keep the rest, and are recorded."""

from __future__ import annotations

import json
from typing import Any

from dataprep.curate.rules import apply_rules
from dataprep.recipe import Recipe
from tests.support.frames import chat, conversation, conversations

TOKENS = ("<s>", "</s>", "[INST]", "[/INST]")

SOUND = conversation("What is up?", "All is well.")


def test_a_dangling_question_is_cut_and_recorded_in_the_repair() -> None:
    row = conversation(
        "q", "a", "and", "then?", roles=["user", "assistant", "user", "user"], message_ids=["1", "2", "3", "4"]
    )
    kept, *_ = apply_rules(conversations(row), Recipe(), TOKENS)
    assert kept["messages"].to_list() == [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]]
    assert kept["message_ids"].to_list() == [["1", "2"]]
    assert kept["repairs"].to_list() == [[{"rule": "dangling_question", "detail": "and\n\nthen?"}]]


def test_neighbours_of_one_role_are_merged_and_message_ids_still_name_every_source_message() -> None:
    row = conversation(
        "q", "r", "a", "b", roles=["user", "user", "assistant", "assistant"], message_ids=["1", "2", "3", "4"]
    )
    kept, *_ = apply_rules(conversations(SOUND, row), Recipe(), TOKENS)
    assert [turn["content"] for turn in kept["messages"].to_list()[1]] == ["q\n\nr", "a\n\nb"]
    assert kept["message_ids"].to_list()[1] == ["1", "2", "3", "4"]
    assert kept["repairs"].to_list()[1][0]["rule"] == "merged_turns"
    assert kept["id"].to_list() == ["c0", "c1"]


def test_merging_ignores_a_blank_neighbour_and_counts_it() -> None:
    one_blank = conversation("", "Q2", "A", " \n", roles=["user", "user", "assistant", "assistant"])
    all_blank = conversation("", " ", "A", roles=["user", "user", "assistant"])
    kept, fates, *_ = apply_rules(conversations(one_blank, all_blank), Recipe(), ())
    assert [turn["content"] for turn in kept["messages"][0]] == ["Q2", "A"]
    assert kept["repairs"].to_list() == [
        [
            {
                "rule": "merged_turns",
                "detail": "2 messages joined to a neighbour of the same role, 2 of them without text",
            }
        ]
    ]
    assert fates.select("id", "rule").rows() == [("c1", "empty_turn")]


def test_the_system_text_is_added_to_conversations_without_one_and_a_blank_one_is_removed() -> None:
    rows = [
        conversation("q", "a"),
        conversation("mine", "q", "a", roles=["system", "user", "assistant"]),
        conversation(" ", "q", "a", roles=["system", "user", "assistant"]),
    ]
    kept, *_ = apply_rules(conversations(*rows), Recipe(system="S"), TOKENS)
    assert [turns[0]["content"] for turns in kept["messages"].to_list()] == ["S", "mine", "S"]
    plain, *_ = apply_rules(conversations(*rows), Recipe(), TOKENS)
    assert [turns[0]["role"] for turns in plain["messages"].to_list()] == ["user", "system", "user"]
    assert plain["repairs"].to_list()[2][0]["rule"] == "blank_system"


def test_control_tokens_are_escaped_or_kept_as_the_option_says() -> None:
    row = conversation("say <s> and [INST]", "a")
    escaped, fates, *_ = apply_rules(conversations(row), Recipe(control_tokens="escape"), TOKENS)
    assert escaped["messages"].to_list()[0][0]["content"] == "say < s> and [ INST]"
    assert escaped["repairs"].to_list()[0] == [{"rule": "escaped_control_token", "detail": "<s>, [INST]"}]
    assert fates.is_empty()
    kept, fates, *_ = apply_rules(conversations(row), Recipe(control_tokens="keep"), TOKENS)
    assert kept["messages"].to_list()[0][0]["content"] == "say <s> and [INST]"
    assert fates.is_empty()


def test_the_system_text_and_escaping_keep_every_field_of_a_message() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "q", "name": "ann"},
        {"role": "assistant", "content": "a", "reasoning_content": "why <s>", "trained": False},
        {"role": "user", "content": "r", "name": "ann"},
        {"role": "assistant", "tool_calls": '[{"function": {"name": "f", "arguments": {"x": "<s>"}}}]'},
    ]
    row = chat(*messages, tools='[{"function": {"name": "f", "description": "</s>"}}]')
    kept, *_ = apply_rules(conversations(row), Recipe(system="S", control_tokens="escape"), TOKENS)
    system, *rest = ({k: v for k, v in message.items() if v is not None} for message in kept["messages"].to_list()[0])
    assert system == {"role": "system", "content": "S"}
    assert rest[1]["reasoning_content"] == "why < s>" and rest[1]["trained"] is False
    assert rest[3]["tool_calls"] == messages[3]["tool_calls"].replace("<s>", "< s>")
    assert [message.get("name") for message in rest] == ["ann", None, "ann", None]
    assert kept["tools"].to_list() == ['[{"function": {"name": "f", "description": "< /s>"}}]']
    assert kept["repairs"].to_list()[0] == [{"rule": "escaped_control_token", "detail": "<s>, </s>"}]


def test_text_and_consecutive_calls_are_merged_into_one_message() -> None:
    one, two = ('[{"id": "1", "function": {"name": "f"}}]', '[{"id": "2", "function": {"name": "g"}}]')
    row = chat(
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "let me see"},
        {"role": "assistant", "tool_calls": one},
        {"role": "assistant", "tool_calls": two},
        {"role": "tool", "content": "r1", "tool_call_id": "1"},
        {"role": "tool", "content": "r2", "tool_call_id": "2"},
        {"role": "assistant", "content": "done"},
    )
    kept, *_ = apply_rules(conversations(row), Recipe(), ())
    merged = kept["messages"].to_list()[0]
    assert [message["role"] for message in merged] == ["user", "assistant", "tool", "tool", "assistant"]
    assert merged[1]["content"] == "let me see"
    assert json.loads(merged[1]["tool_calls"]) == [*json.loads(one), *json.loads(two)]


def test_messages_that_differ_in_flag_or_name_or_have_reasoning_are_not_merged() -> None:
    answer = {"role": "assistant", "content": "a"}
    rows = [
        chat({"role": "user", "content": "q"}, answer, {**answer, "trained": False}),
        chat({"role": "user", "content": "q"}, answer, {**answer, "reasoning_content": "hm"}),
        chat({"role": "user", "content": "q", "name": "ann"}, {"role": "user", "content": "r", "name": "bob"}, answer),
    ]
    kept, fates, *_ = apply_rules(conversations(*rows), Recipe(), ())
    assert kept.is_empty() and fates["rule"].to_list() == ["roles_do_not_alternate"] * 3


def test_the_result_of_a_last_call_is_cut() -> None:
    call = {"role": "assistant", "tool_calls": '[{"function": {"name": "f"}}]'}
    row = chat({"role": "user", "content": "q"}, call, {"role": "tool", "content": "r"})
    kept, *_ = apply_rules(conversations(row), Recipe(), ())
    assert [message["role"] for message in kept["messages"].to_list()[0]] == ["user", "assistant"]
    assert kept["repairs"].to_list() == [[{"rule": "dangling_question", "detail": "r"}]]
