"""Plain words for rules, and the funnel counted in conversations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from dataprep.common.glosses import conversation_funnel, gloss
from dataprep.curate.rules import drop_rules
from dataprep.recipe import Recipe
from dataprep.tables import LABELS, WANTED_LABELS


def summary(format: str, records: int, *stages: tuple[str, int, dict[str, int]]) -> Mapping[str, Any]:
    """The parts of a manifest that the funnel reads; `stages` are (name, records in, rules)."""
    funnel = [
        {"stage": name, "in": count, "out": count - sum(rules.values()), "rules": rules}
        for name, count, rules in stages
    ]
    return {"sources": [{"format": format, "records": records}], "funnel": funnel, "rows": funnel[-1]["out"]}


def test_messages_become_conversations_and_only_conversations_are_counted_then() -> None:
    threads = ("threads", 2022, {"off_path": 1412, "on_path": 422})
    funnel = conversation_funnel(
        summary("oasst-messages", 2022, threads, ("rules", 188, {"no_answer": 5, "empty_turn": 3}))
    )
    assert funnel.headline == "2,022 messages → 188 conversations → 180 kept"
    assert [(reason.rule, reason.count) for reason in funnel.before] == [("off_path", 1412)]
    assert [(reason.rule, reason.left) for reason in funnel.removed] == [("no_answer", 183), ("empty_turn", 180)]


def test_a_build_that_keeps_every_conversation_has_one_number() -> None:
    assert conversation_funnel(summary("guanaco", 518, ("threads", 518, {}))).headline == "518 conversations"


def test_records_that_cannot_be_read_come_before_the_conversations() -> None:
    funnel = conversation_funnel(summary("messages", 10, ("read", 10, {"bad_json": 2}), ("threads", 8, {})))
    assert funnel.headline == "10 records → 8 conversations" and not funnel.has_trees


@pytest.mark.parametrize("label", LABELS)
def test_the_thresholds_of_labels_name_their_option(label: str) -> None:
    if label in WANTED_LABELS:
        assert f"below --min-{label}" in gloss(f"low_{label}")
    else:
        assert gloss(f"high_{label}").endswith(f"above --max-{label.replace('_', '-')}")


def test_every_rule_of_a_recipe_has_a_gloss() -> None:
    every = Recipe(lang=("en",), accepted_only=True, min_reviews=1, min_turns=1, max_turns=9, min_chars=1, max_chars=9)
    for rule in drop_rules(every, ["</s>"], ("role", "content", "trained")):
        assert gloss(rule.name), rule.name


def test_an_unknown_rule_has_no_gloss() -> None:
    assert gloss("unheard_of") == ""
