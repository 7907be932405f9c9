"""The kinds of faults that an audit reports."""

from __future__ import annotations

from dataclasses import dataclass

CERTAIN, LIKELY = "certain", "likely"

KINDS = {  # of faults, in plain words
    "unparsable": "the text cannot be read back to messages",
    "odd_roles": "the roles are out of order, or a message has another speaker's text",
    "empty_turn": "a message is empty",
    "missing_control_token": "a control token of the template is missing",
    "doubled_control_token": "a control token of the template is there twice",
    "cut_at_heading": "an answer is cut at a Markdown heading (###)",
    "heading_in_user_turn": "the rest of an answer stands in a user's message",
    "unfinished": "the conversation ends without its last answer",
    "duplicate": "the same conversation as an earlier row",
    "leak": "the same text is in the set that was compared",
}
CONTROL_TOKEN_KINDS = ("missing_control_token", "doubled_control_token")  # rendering the messages again repairs these


@dataclass(frozen=True)
class Fault:
    """One fault of one row: its kind, what is wrong and where, and how sure the audit is (`certain` or `likely`)."""

    kind: str
    detail: str
    sure: str = CERTAIN
