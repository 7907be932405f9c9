"""The funnel that people read: one unit, and a meaning for each rule."""

from __future__ import annotations

import re
from typing import Any

import pytest

from dataprep.common.conversation_funnel import conversation_funnel
from dataprep.common.rules import DROP_RULES, meaning_of
from dataprep.curate.rules import drop_rules
from dataprep.recipe import Recipe
from tests.support.paths import ROOT


def manifest(sources: list[dict[str, Any]], *stages: tuple[str, int, dict[str, int]]) -> dict[str, Any]:
    funnel = [{"stage": stage, "out": out, "rules": rules} for stage, out, rules in stages]
    rows = stages[-1][1]
    return {"sources": sources, "funnel": funnel, "rows": rows, "splits": {"train": {"rows": rows}}, "repairs": {}}


def test_messages_become_conversations_and_only_conversations_are_counted_from_there_on() -> None:
    source = {"format": "oasst-messages", "records": 2022}
    stages = ("threads", 188, {"off_path": 1412, "on_path": 422}), ("rules", 180, {"too_short": 8})
    funnel = conversation_funnel(manifest([source], *stages))
    assert funnel.heading == "2,022 messages → 188 conversations"
    assert [(lost.rule, lost.count, lost.meaning) for lost in funnel.lost] == [("too_short", 8, "below --min-chars")]
    assert funnel.conversations - sum(lost.count for lost in funnel.lost) == funnel.kept == 180


def test_a_record_that_is_a_conversation_is_counted_once() -> None:
    funnel = conversation_funnel(manifest([{"format": "guanaco", "records": 1}], ("read", 1, {}), ("threads", 1, {})))
    assert funnel.heading == "1 conversation"


def test_sources_of_several_kinds_are_counted_by_kind() -> None:
    sources = [{"format": "oasst-trees", "records": 100}, {"format": "messages", "records": 2}]
    funnel = conversation_funnel(manifest(sources, ("read", 102, {"bad_json": 1}), ("threads", 101, {})))
    assert funnel.heading == "100 trees and 2 records → 101 conversations"


@pytest.mark.parametrize(
    ("stage", "rule", "meaning"),
    [
        ("read", "too_long", "above --max-record-bytes"),
        ("rules", "too_long", "above --max-chars"),
        ("rules", "high_hate_speech", "above --max-hate-speech"),
        ("repair", "repeated_id", "gave a conversation an id of its own"),
        ("rules", "of_a_newer_version", "of a newer version"),
    ],
)
def test_a_rule_is_explained_by_its_stage(stage: str, rule: str, meaning: str) -> None:
    assert meaning_of(rule, stage) == meaning


def test_every_rule_over_conversations_has_a_meaning() -> None:
    thresholds = {"min_reviews": 1, "min_turns": 1, "max_turns": 1, "min_chars": 1, "max_chars": 1}
    recipe = Recipe(lang=("en",), accepted_only=True, **thresholds)  # type: ignore[arg-type]
    names = {rule.name for rule in drop_rules(recipe, ["<s>"], ["role", "content", "trained"])}
    assert names <= DROP_RULES.keys()


def test_every_rule_that_drops_at_a_named_stage_has_a_meaning() -> None:
    named = re.compile(r'"(?:conversation|tree|message)", (?:STAGE|"dedup"), "(\w+)"')
    sources = [path.read_text() for path in (ROOT / "dataprep").rglob("*.py")]
    rules = {rule for source in sources for rule in named.findall(source)}
    assert rules >= {"on_path", "orphan", "repeated_tree", "same_thread"}
    assert rules <= DROP_RULES.keys()
