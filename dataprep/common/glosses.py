"""Plain words for the rules of the fates, and a build's funnel counted in conversations.

This module imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dataprep.common.text import plural

# Why a record is dropped, not sampled or repaired, as a clause about the record.
_GLOSSES = {
    # reading
    "bad_csv": "the line is not valid CSV",
    "bad_json": "the line is not valid JSON",
    "no_role_marker": "text without the marker of a role",
    "other_split": "belongs to a split other than train",
    "too_deep": "nested deeper than can be read",
    "truncated": "the file ends in the middle of the record",
    "unknown_field": "has a field that is not used, and --unknown-fields is drop",
    "unsupported_field": "has a field that changes what is learnt and cannot be used",
    "wrong_schema": "a value does not fit the format",
    # choosing conversations from trees
    "cycle": "its ancestors form a circle",
    "deleted_reply": "the reply was deleted",
    "no_usable_path": "the first message was deleted or rejected in review",
    "off_path": "the conversation continues with another reply",
    "on_path": "part of a conversation",
    "orphan": "replies to a message that is not in the data",
    "rejected_reply": "reviewers rejected the reply",
    "repeated_id": "a second message with the same id",
    "repeated_tree": "the same tree was read before",
    "tree_not_ready": "the tree is not ready for export",
    # rules
    "broken_unicode": "text with NUL characters or runs of U+FFFD",
    "control_token": "a message spells out a control token of the template",
    "empty_turn": "a message without visible text",
    "language": "a language other than --lang",
    "no_answer": "has no answer to train on",
    "not_accepted": "rejected in review, or not reviewed",
    "nothing_trained": "all answers are marked as context only",
    "orphan_tool_result": "a tool's result that answers no call",
    "roles_do_not_alternate": "user and assistant do not alternate",
    "same_thread": "the same messages as another path, once what follows the last answer is cut",
    "too_few_reviews": "fewer reviews than --min-reviews",
    "too_few_turns": "fewer answers than --min-turns",
    "too_long": "more characters than --max-chars",
    "too_many_turns": "more answers than --max-turns",
    "too_short": "fewer characters than --min-chars",
    # duplicates, rendering, sample
    "contaminated": "overlaps with a benchmark",
    "exact_duplicate": "the same text as a conversation that is kept",
    "near_duplicate": "nearly the same text as a conversation that is kept",
    "reasoning_not_in_template": "has reasoning, which the template does not write",
    "template_refused": "the template raised an error",
    "tools_not_in_template": "has tools, which the template does not write",
    "not_sampled": "not drawn into the sample",
    # repairs
    "blank_system": "an empty system message was removed",
    "dangling_question": "what follows the last answer was cut",
    "escaped_control_token": "control tokens in the text were escaped",
    "merged_turns": "neighbouring messages of one role were merged",
}
_FORMATS_WITH_TREES = {"oasst-trees": "message tree", "oasst-messages": "message"}
_BEFORE_CONVERSATIONS = ("read", "threads")  # stages whose fates can be those of lines, messages and trees


@dataclass(frozen=True)
class Reason:
    """The records that one rule of one stage removed."""

    stage: str
    rule: str
    count: int
    left: int | None = None  # conversations that remain; None before there are conversations

    @property
    def gloss(self) -> str:
        """Plain words for the rule."""
        return gloss(self.rule)


@dataclass(frozen=True)
class ConversationFunnel:
    """A build's funnel: what was read, and then conversations only."""

    read: str  # such as "2,022 messages"
    has_trees: bool  # whether conversations were chosen from message trees
    before: list[Reason]  # records of the sources that became part of no conversation
    conversations: int  # that were read, or chosen from trees
    removed: list[Reason]  # conversations
    kept: int

    @property
    def headline(self) -> str:
        """`2,022 messages → 188 conversations → 180 kept`, with the steps that change anything."""
        conversations = plural(self.conversations, "conversation")
        steps = [self.read, conversations] if self.has_trees or self.before else [conversations]
        return " → ".join(steps + ([f"{self.kept:,} kept"] if self.removed else []))


def gloss(rule: str) -> str:
    """Plain words for a rule of the fates; empty for an unknown one."""
    for prefix, option in (("low_", "below --min-"), ("high_", "above --max-")):
        if rule.startswith(prefix):
            label = rule.removeprefix(prefix)
            return f"reviewers' mean vote for {label.replace('_', ' ')} is {option}{label.replace('_', '-')}"
    return _GLOSSES.get(rule, "")


def conversation_funnel(summary: Mapping[str, Any]) -> ConversationFunnel:
    """The funnel of a build in conversations.

    Args:
        summary: `sources, funnel, rows` of a manifest.
    """
    stages = summary["funnel"]
    chosen = [stage["out"] for stage in stages if stage["stage"] in _BEFORE_CONVERSATIONS]
    return ConversationFunnel(
        read=_records(summary["sources"]),
        has_trees=any(source.get("format") in _FORMATS_WITH_TREES for source in summary["sources"]),
        before=[reason for reason in _reasons(stages, before=True) if reason.rule != "on_path"],
        conversations=chosen[-1] if chosen else summary["rows"],
        removed=list(_reasons(stages, before=False)),
        kept=summary["rows"],
    )


def _reasons(stages: Sequence[Mapping[str, Any]], before: bool) -> Iterator[Reason]:
    for stage in stages:
        if (stage["stage"] in _BEFORE_CONVERSATIONS) == before:
            left = stage["in"]
            for rule, count in stage["rules"].items():
                left -= count
                yield Reason(stage["stage"], rule, count, None if before else left)


def _records(sources: Sequence[Mapping[str, Any]]) -> str:
    """The records of all sources by their kind: `2,022 messages`, `100 message trees and 518 records`."""
    counts: dict[str, int] = {}
    for source in sources:
        kind = _FORMATS_WITH_TREES.get(source.get("format", ""), "record")
        counts[kind] = counts.get(kind, 0) + source.get("records", 0)
    return " and ".join(plural(count, kind) for kind, count in counts.items())
