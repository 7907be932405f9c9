"""Each rule drops what it is for and nothing else; repairs are recorded."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.curate.rules import abstentions, apply_rules, drop_rules
from dataprep.recipe import Recipe
from tests.support.frames import conversation, conversations

TOKENS = ("<s>", "</s>", "[INST]", "[/INST]")

SOUND = conversation("What is up?", "All is well.")

# rule, the options that switch it on, a row that it drops, a row that it must leave
CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("no_answer", {}, conversation("Only a question"), SOUND),
    ("no_answer", {}, conversation(), SOUND),
    ("empty_turn", {}, conversation("a", " \u200b\n"), conversation("a", " b ")),
    ("empty_turn", {}, conversation("a", None), conversation("a", "0")),
    ("empty_turn", {}, conversation("", "a"), SOUND),
    ("roles_do_not_alternate", {}, conversation("hi", roles=["assistant"]), SOUND),
    ("roles_do_not_alternate", {}, conversation("a", "b", "c", roles=["user", "tool", "assistant"]), SOUND),
    (
        "roles_do_not_alternate",
        {},
        conversation("a", "b", "s", "c", "d", roles=["user", "assistant", "system", "user", "assistant"]),
        conversation("s", "a", "b", roles=["system", "user", "assistant"]),
    ),
    ("broken_unicode", {}, conversation("a\0", "b"), SOUND),
    ("broken_unicode", {}, conversation("a", "b\ufffd\ufffd"), conversation("a", "one \ufffd alone")),
    ("control_token", {}, conversation("a", "b </s>"), conversation("a", "b < /s>")),
    ("language", {"lang": ("en",)}, conversation("a", "b", lang="de"), conversation("a", "b", lang="en-GB")),
    ("language", {"lang": ("en",)}, conversation("a", "b", lang=None), conversation("a", "b", lang="EN")),
    ("language", {"lang": ("pt-BR",)}, conversation("a", "b", lang="pt"), conversation("a", "b", lang="pt_br")),
    ("not_accepted", {"accepted_only": True}, conversation("a", "b"), conversation("a", "b", accepted=True)),
    (
        "too_few_reviews",
        {"min_reviews": 2},
        conversation("a", "b", review_count=1),
        conversation("a", "b", review_count=2),
    ),
    ("too_few_turns", {"min_turns": 2}, conversation("a", "b"), conversation("a", "b", "c", "d")),
    ("too_many_turns", {"max_turns": 1}, conversation("a", "b", "c", "d"), conversation("a", "b")),
    ("too_short", {"min_chars": 3}, conversation("a", "é"), conversation("a", "bé")),
    ("too_long", {"max_chars": 3}, conversation("aa", "éé"), conversation("a", "éé")),
    ("low_quality", {"min_quality": 0.5}, conversation("a", "b", quality=0.4), conversation("a", "b", quality=0.5)),
    ("low_helpfulness", {"min_helpfulness": 0.5}, conversation("a", "b", helpfulness=0.4), SOUND),
    *(
        (
            f"high_{label}",
            {f"max_{label}": 0.5},
            conversation("a", "b", **{label: 0.6}),
            conversation("a", "b", **{label: 0.5}),
        )
        for label in ("toxicity", "spam", "fails_task", "lang_mismatch", "pii", "not_appropriate", "hate_speech")
    ),
    ("high_sexual_content", {"max_sexual_content": 0.5}, conversation("a", "b", sexual_content=0.6), SOUND),
    ("high_violence", {"max_violence": 0.5}, conversation("a", "b", violence=0.6), SOUND),
]


@pytest.mark.parametrize(
    ("rule", "options", "bad", "good"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_rule_drops_what_it_is_for(
    rule: str, options: dict[str, Any], bad: dict[str, Any], good: dict[str, Any]
) -> None:
    kept, fates = apply_rules(conversations(bad, good), Recipe(**options), TOKENS)
    assert fates.select("id", "rule").rows() == [("c0", rule)]
    assert fates["detail"][0]
    assert kept["id"].to_list() == ["c1"]


def test_every_rule_has_a_case() -> None:
    on = {
        "lang": ("en",),
        "accepted_only": True,
        "min_reviews": 1,
        "min_turns": 1,
        "max_turns": 1,
        "min_chars": 1,
        "max_chars": 1,
    }
    labels = {name: 0.5 for name in Recipe.__dataclass_fields__ if name.startswith(("min_", "max_")) and name not in on}
    names = {rule.name for rule in drop_rules(Recipe(**on, **labels), TOKENS)}
    assert names == {rule for rule, *_ in CASES}


def test_a_dangling_question_is_cut_and_kept_in_the_repair() -> None:
    row = conversation(
        "q", "a", "and", "then?", roles=["user", "assistant", "user", "user"], message_ids=["1", "2", "3", "4"]
    )
    kept, _ = apply_rules(conversations(row), Recipe(), TOKENS)
    assert kept["messages"].to_list() == [[{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]]
    assert kept["message_ids"].to_list() == [["1", "2"]]
    assert kept["repairs"].to_list() == [[{"rule": "dangling_question", "detail": "and\n\nthen?"}]]


def test_neighbours_of_one_role_are_merged_and_every_source_message_stays_named() -> None:
    row = conversation(
        "q", "r", "a", "b", roles=["user", "user", "assistant", "assistant"], message_ids=["1", "2", "3", "4"]
    )
    kept, _ = apply_rules(conversations(SOUND, row), Recipe(), TOKENS)
    assert [turn["content"] for turn in kept["messages"].to_list()[1]] == ["q\n\nr", "a\n\nb"]
    assert kept["message_ids"].to_list()[1] == ["1", "2", "3", "4"]
    assert kept["repairs"].to_list()[1][0]["rule"] == "merged_turns"
    assert kept["id"].to_list() == ["c0", "c1"]


def test_a_blank_neighbour_of_one_role_adds_nothing_and_is_told() -> None:
    turns = conversation("", "Q2", "A", " \n", roles=["user", "user", "assistant", "assistant"])
    both = conversation("", " ", "A", roles=["user", "user", "assistant"])
    kept, fates = apply_rules(conversations(turns, both), Recipe(), ())
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


def test_threads_that_differ_in_what_was_cut_are_one() -> None:
    first = conversation("q", "a", "x", message_ids=["1", "2", "3"])
    second = conversation("q", "a", "y", message_ids=["1", "2", "4"])
    kept, fates = apply_rules(
        conversations(first, second, conversation("q", "a"), conversation("q", "a")), Recipe(), TOKENS
    )
    assert kept["id"].to_list() == ["c0", "c2", "c3"]  # without message ids there is nothing to compare
    assert fates.select("id", "rule", "survivor").rows() == [("c1", "same_thread", "c0")]


def test_system_text_is_added_where_there_is_none_and_a_blank_one_removed() -> None:
    rows = [
        conversation("q", "a"),
        conversation("mine", "q", "a", roles=["system", "user", "assistant"]),
        conversation(" ", "q", "a", roles=["system", "user", "assistant"]),
    ]
    kept, _ = apply_rules(conversations(*rows), Recipe(system="S"), TOKENS)
    assert [turns[0]["content"] for turns in kept["messages"].to_list()] == ["S", "mine", "S"]
    plain, _ = apply_rules(conversations(*rows), Recipe(), TOKENS)
    assert [turns[0]["role"] for turns in plain["messages"].to_list()] == ["user", "system", "user"]
    assert plain["repairs"].to_list()[2][0]["rule"] == "blank_system"


def test_control_tokens_are_escaped_or_kept_on_demand() -> None:
    row = conversation("say <s> and [INST]", "a")
    escaped, none = apply_rules(conversations(row), Recipe(control_tokens="escape"), TOKENS)
    assert escaped["messages"].to_list()[0][0]["content"] == "say < s> and [ INST]"
    assert escaped["repairs"].to_list()[0] == [{"rule": "escaped_control_token", "detail": "<s>, [INST]"}]
    assert none.is_empty()
    kept, none = apply_rules(conversations(row), Recipe(control_tokens="keep"), TOKENS)
    assert kept["messages"].to_list()[0][0]["content"] == "say <s> and [INST]"
    assert none.is_empty()


def test_a_missing_label_abstains_and_is_counted() -> None:
    frame = conversations(conversation("a", "b"), conversation("c", "d", quality=0.9))
    recipe = Recipe(min_quality=0.5, max_toxicity=0.5)
    kept, _ = apply_rules(frame, recipe, TOKENS)
    assert kept.height == 2
    assert abstentions(kept, recipe) == {"--min-quality": 1, "--max-toxicity": 2}


turns = st.lists(
    st.tuples(
        st.sampled_from(["user", "assistant", "system", "tool"]),
        st.text(alphabet="ab \n\0\ufffd<s>/[INST]é", max_size=12) | st.none(),
    ),
    max_size=6,
)


@given(st.lists(turns, min_size=1, max_size=6), st.sampled_from(["drop", "escape", "keep"]))
def test_rules_are_idempotent_and_lose_nothing(rows: list[list[tuple[str, str | None]]], tokens: str) -> None:
    frame = conversations(*(conversation(*(text for _, text in row), roles=[role for role, _ in row]) for row in rows))
    recipe = Recipe(control_tokens=tokens)
    kept, fates = apply_rules(frame, recipe, TOKENS)
    assert sorted([*kept["id"], *fates["id"]]) == sorted(frame["id"])
    again, more = apply_rules(kept, recipe, TOKENS)
    assert more.is_empty()
    assert again.equals(kept)
    for messages in kept["messages"].to_list():
        bare = [turn["role"] for turn in messages if turn["role"] != "system"]
        assert bare == ["user", "assistant"] * (len(bare) // 2)
        assert len(bare) >= 2
        if tokens != "keep":
            assert not any(token in turn["content"] for turn in messages for token in TOKENS)


def test_an_empty_frame_passes() -> None:
    kept, fates = apply_rules(conversations(SOUND).clear(), Recipe(system="x"), TOKENS)
    assert isinstance(kept, pl.DataFrame)
    assert kept.is_empty()
    assert fates.is_empty()
