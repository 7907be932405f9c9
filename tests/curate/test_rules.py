"""Each rule drops the conversations it describes and no others."""

from __future__ import annotations

import json
import random
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.curate.rules import apply_rules, drop_rules, unlabelled
from dataprep.curate.sampling import sample
from dataprep.curate.threads import choose_threads
from dataprep.curate.tool_results import orphan_results
from dataprep.recipe import Recipe
from dataprep.tables import LABELS, MESSAGE_FIELDS, WANTED_LABELS
from tests.support.frames import chat, conversation, conversations, tree_messages

TOKENS = ("<s>", "</s>", "[INST]", "[/INST]")

SOUND = conversation("What is up?", "All is well.")


def user(content: str) -> dict[str, Any]:
    return {"role": "user", "content": content}


def answer(content: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def call(*ids: str) -> dict[str, Any]:
    """A message that only calls tools: one call for each id, or one without an id."""
    calls = [{"type": "function", "id": id_, "function": {"name": "f", "arguments": {}}} for id_ in ids or (None,)]
    return {"role": "assistant", "tool_calls": json.dumps(calls)}


def result(id_: str | None = None, content: str = "found") -> dict[str, Any]:
    return {"role": "tool", "content": content, "tool_call_id": id_}


TOOL_CHAT = chat(
    user("a"),
    call("x", "y"),
    result("y"),
    result("x", ""),
    call(),
    result(),
    answer("b", trained=False),
    user("c"),
    call("z"),
)

# rule, the options that enable it, a row that it drops, a row that it keeps
CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    ("no_answer", {}, conversation("Only a question"), SOUND),
    ("no_answer", {}, conversation(), SOUND),
    ("empty_turn", {}, conversation("a", " \u200b\n"), conversation("a", " b ")),
    ("empty_turn", {}, conversation("a", None), conversation("a", "0")),
    ("empty_turn", {}, conversation("", "a"), SOUND),
    ("roles_do_not_alternate", {}, conversation("hi", roles=["assistant"]), SOUND),
    ("roles_do_not_alternate", {}, conversation("a", "b", "c", roles=["user", "bing", "assistant"]), SOUND),
    ("roles_do_not_alternate", {}, chat(user("a"), call(), result(), user("b"), answer("c")), TOOL_CHAT),
    ("roles_do_not_alternate", {}, chat(user("a"), answer("b", trained=False), answer("c")), SOUND),
    ("roles_do_not_alternate", {}, chat(user("a"), call(), answer("b")), TOOL_CHAT),
    ("orphan_tool_result", {}, conversation("a", "b", "c", roles=["user", "tool", "assistant"]), TOOL_CHAT),
    ("orphan_tool_result", {}, chat(user("a"), answer("b"), result(), answer("c")), TOOL_CHAT),
    ("orphan_tool_result", {}, chat(user("a"), call("x"), result("y"), answer("c")), TOOL_CHAT),
    ("orphan_tool_result", {}, chat(user("a"), call(), result(), result(), answer("c")), TOOL_CHAT),
    ("nothing_trained", {}, chat(user("a"), answer("b", trained=False)), TOOL_CHAT),
    ("empty_turn", {}, chat(user("a"), answer(" ", reasoning_content="hm")), TOOL_CHAT),
    ("broken_unicode", {}, chat(user("a"), answer("b", reasoning_content="h\0")), TOOL_CHAT),
    ("control_token", {}, chat(user("a"), answer("b", reasoning_content="[INST]")), TOOL_CHAT),
    ("control_token", {}, chat(user("a"), answer("b"), tools='[{"name": "<s>"}]'), TOOL_CHAT),
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
            conversation("a", "b", **dict[str, Any]({label: 0.6})),
            conversation("a", "b", **dict[str, Any]({label: 0.5})),
        )
        for label in ("toxicity", "spam", "fails_task", "lang_mismatch", "pii", "not_appropriate", "hate_speech")
    ),
    ("high_sexual_content", {"max_sexual_content": 0.5}, conversation("a", "b", sexual_content=0.6), SOUND),
    ("high_violence", {"max_violence": 0.5}, conversation("a", "b", violence=0.6), SOUND),
]


@pytest.mark.parametrize(
    ("rule", "options", "bad", "good"), CASES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_rule_drops_the_conversation_that_breaks_it_and_keeps_the_other(
    rule: str, options: dict[str, Any], bad: dict[str, Any], good: dict[str, Any]
) -> None:
    kept, fates, *_ = apply_rules(conversations(bad, good), Recipe(**options), TOKENS)
    assert fates.select("id", "rule").rows() == [("c0", rule)]
    assert fates["detail"][0]
    assert kept["id"].to_list() == ["c1"]


def test_every_rule_has_a_test_case() -> None:
    options: dict[str, Any] = {
        "lang": ("en",),
        "accepted_only": True,
        "min_reviews": 1,
        "min_turns": 1,
        "max_turns": 1,
        "min_chars": 1,
        "max_chars": 1,
    }
    labels: dict[str, Any] = {f"{'min' if label in WANTED_LABELS else 'max'}_{label}": 0.5 for label in LABELS}
    names = {rule.name for rule in drop_rules(Recipe(**options, **labels), TOKENS, MESSAGE_FIELDS)}
    assert names | {"orphan_tool_result"} == {rule for rule, *_ in CASES}


def test_threads_that_differ_only_in_what_was_cut_are_one() -> None:
    first = conversation("q", "a", "x", message_ids=["1", "2", "3"])
    second = conversation("q", "a", "y", message_ids=["1", "2", "4"])
    kept, fates, *_ = apply_rules(
        conversations(first, second, conversation("q", "a"), conversation("q", "a")), Recipe(), TOKENS
    )
    assert kept["id"].to_list() == ["c0", "c2", "c3"]  # without message ids, threads cannot be the same
    assert fates.select("id", "rule", "survivor").rows() == [("c1", "same_thread", "c0")]


def test_the_kept_threads_do_not_depend_on_the_order_of_lines() -> None:
    rows: list[dict[str, Any]] = [{"id": "q"}, {"id": "a", "parent": "q"}, {"id": "b", "parent": "q"}]
    rows += [{"id": f"{parent}{n}", "parent": parent, "role": "user"} for parent in "ab" for n in range(4)]
    results = []
    for seed in range(6):
        lines = random.Random(seed).sample(rows, len(rows))
        threads = choose_threads(tree_messages(*lines), "all").kept.with_columns(
            row=pl.int_range(pl.len(), dtype=pl.Int64)
        )
        kept = apply_rules(threads, Recipe(), TOKENS).kept
        sampled = sample(kept, Recipe(sample=1), threads.height).kept
        results.append((set(kept["id"]), set(sampled["id"])))
    assert results == [({"a0", "b0"}, results[0][1])] * 6


def test_a_missing_label_passes_every_threshold_and_a_note_counts_it() -> None:
    frame = conversations(conversation("a", "b"), conversation("c", "d", quality=0.9))
    recipe = Recipe(min_quality=0.5, max_toxicity=0.5)
    kept, _, notes, _ = apply_rules(frame, recipe, TOKENS)
    assert kept.height == 2
    assert notes == [
        "1 of 2 rows has no label for --min-quality and passed it unchecked.",
        "2 of 2 rows have no label for --max-toxicity and passed it unchecked.",
    ]
    assert unlabelled(kept, recipe) == {"--min-quality": 1, "--max-toxicity": 2}


turns = st.lists(
    st.tuples(
        st.sampled_from(["user", "assistant", "system", "tool"]),
        st.text(alphabet="ab \n\0\ufffd<s>/[INST]é", max_size=12) | st.none(),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(st.lists(turns, min_size=1, max_size=6), st.sampled_from(["drop", "escape", "keep"]))
def test_rules_are_idempotent_and_lose_no_conversation(
    rows: list[list[tuple[str, str | None]]], tokens: Literal["drop", "escape", "keep"]
) -> None:
    frame = conversations(*(conversation(*(text for _, text in row), roles=[role for role, _ in row]) for row in rows))
    recipe = Recipe(control_tokens=tokens)
    kept, fates, *_ = apply_rules(frame, recipe, TOKENS)
    assert sorted([*kept["id"], *fates["id"]]) == sorted(frame["id"])
    kept_again, more_fates, *_ = apply_rules(kept, recipe, TOKENS)
    assert more_fates.is_empty()
    assert kept_again.equals(kept)
    for messages in kept["messages"].to_list():
        without_system = [turn["role"] for turn in messages if turn["role"] != "system"]
        assert without_system == ["user", "assistant"] * (len(without_system) // 2)
        assert len(without_system) >= 2
        if tokens != "keep":
            assert not any(token in turn["content"] for turn in messages for token in TOKENS)


def test_rules_accept_an_empty_frame() -> None:
    kept, fates, *_ = apply_rules(conversations(SOUND).clear(), Recipe(system="x"), TOKENS)
    assert isinstance(kept, pl.DataFrame)
    assert kept.is_empty()
    assert fates.is_empty()


message = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "assistant", "tool"]),
        "content": st.sampled_from(["", "a", "b <s>"]),
    },
    optional={
        "reasoning_content": st.sampled_from(["hm", "<s>"]),
        "tool_calls": st.sampled_from([call()["tool_calls"], call("x", "y")["tool_calls"]]),
        "tool_call_id": st.sampled_from(["x", "y"]),
        "name": st.sampled_from(["ann", "bob"]),
        "trained": st.just(False),
    },
)


@settings(deadline=None)
@given(st.lists(st.lists(message, max_size=7), min_size=1, max_size=5), st.sampled_from(["drop", "escape"]))
def test_rules_for_any_fields_are_idempotent_and_lose_no_conversation(
    rows: list[list[dict[str, Any]]], tokens: Literal["drop", "escape"]
) -> None:
    frame = conversations(*(chat(*row) for row in rows))
    kept, fates, *_ = apply_rules(frame, Recipe(control_tokens=tokens), TOKENS)
    assert sorted([*kept["id"], *fates["id"]]) == sorted(frame["id"])
    kept_again, more_fates, *_ = apply_rules(kept, Recipe(control_tokens=tokens), TOKENS)
    assert more_fates.is_empty() and kept_again.equals(kept)
    assert kept.schema == frame.schema
    assert orphan_results(kept).is_empty()
    for messages in kept["messages"].to_list():
        assert messages[-1]["role"] == "assistant"
        assert any(turn["role"] == "assistant" and turn.get("trained") is not False for turn in messages)
        assert not any("<s>" in str(turn) for turn in messages)
