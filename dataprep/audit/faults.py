"""The kinds of faults that an audit reports."""

from __future__ import annotations

from dataclasses import dataclass

CERTAIN, LIKELY = "certain", "likely"

KINDS = (
    "unparsable",
    "odd_roles",
    "empty_turn",
    "missing_control_token",
    "doubled_control_token",
    "cut_at_heading",
    "heading_in_user_turn",
    "unfinished",
    "duplicate",
    "leak",
)
CONTROL_TOKEN_KINDS = ("missing_control_token", "doubled_control_token")  # rendering the messages again repairs these


@dataclass(frozen=True)
class Fault:
    """One fault of one row: its kind, what is wrong and where, and how sure the audit is (`certain` or `likely`)."""

    kind: str
    detail: str
    sure: str = CERTAIN
