"""The funnel of a build in one unit: what was read became conversations, and from there on only conversations are counted.

The funnel of a manifest counts records of several kinds (lines, trees, messages, conversations), so that its sums can be
checked. People read this one. It imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dataprep.common.rules import meaning_of
from dataprep.common.text import plural

_RECORD_NOUNS = {"oasst-messages": "message", "oasst-trees": "tree"}
_BEFORE_CONVERSATIONS = ("read", "threads")  # the stages that make conversations of what was read


@dataclass(frozen=True)
class RuleCount:
    """The number of records that a rule dropped, did not sample or repaired."""

    stage: str  # of `common.funnel.STAGES`, or `repair`
    rule: str
    count: int
    meaning: str


@dataclass(frozen=True)
class ConversationFunnel:
    """How many conversations were read and kept, and why the others were not."""

    read: str  # what the sources held: `2,022 messages`
    before: tuple[RuleCount, ...]  # lines, trees and messages that are no conversation of their own
    conversations: int
    lost: tuple[RuleCount, ...]  # conversations that were dropped or not sampled
    kept: int
    splits: Mapping[str, int]  # kept conversations by split
    repaired: tuple[RuleCount, ...]  # kept conversations

    @property
    def heading(self) -> str:
        """`2,022 messages → 188 conversations`, or one count where each record is a conversation."""
        conversations = plural(self.conversations, "conversation")
        return f"{self.read} → {conversations}" if self.before or "record" not in self.read else conversations


def conversation_funnel(manifest: Mapping[str, Any]) -> ConversationFunnel:
    """Return the funnel of a build in conversations.

    Args:
        manifest: `sources, funnel, splits, rows, repairs` of a manifest or of the summary of a dry run.
    """
    before, lost = [], []
    conversations = int(manifest["rows"])
    for stage in manifest["funnel"]:
        counts = [
            RuleCount(stage["stage"], rule, n, meaning_of(rule, stage["stage"])) for rule, n in stage["rules"].items()
        ]
        if stage["stage"] in _BEFORE_CONVERSATIONS:
            before += counts
            conversations = stage["out"]
        else:
            lost += counts
    repaired = [RuleCount("repair", rule, n, meaning_of(rule, "repair")) for rule, n in manifest["repairs"].items()]
    splits = {name: int(split["rows"]) for name, split in manifest["splits"].items()}
    read = _records_read(manifest["sources"])
    return ConversationFunnel(
        read, tuple(before), conversations, tuple(lost), int(manifest["rows"]), splits, tuple(repaired)
    )


def _records_read(sources: list[Mapping[str, Any]]) -> str:
    """Return the records of all sources, by what a record is: `2,022 messages and 518 records`."""
    counts: dict[str, int] = {}
    for source in sources:
        noun = _RECORD_NOUNS.get(source.get("format", ""), "record")
        counts[noun] = counts.get(noun, 0) + source.get("records", 0)
    return " and ".join(plural(count, noun) for noun, count in counts.items()) or "nothing"
