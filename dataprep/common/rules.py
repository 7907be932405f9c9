"""What each rule of a fate, and each repair, means: one clause for readers of the terminal and of the report.

This module imports the standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping

# Rules under which records are dropped or not sampled, in the order of the stages.
DROP_RULES: Mapping[str, str] = {
    # read: lines of a file
    "bad_json": "not valid JSON",
    "too_deep": "JSON that is nested too deeply",
    "bad_csv": "not a valid CSV record",
    "truncated": "the file breaks off inside it",
    "wrong_schema": "a key is missing, or has a value of another type",
    "no_role_marker": "no '### Human:' or '### Assistant:', or text before the first of them",
    "unsupported_field": "a field changes what is learnt and cannot be used",
    "unknown_field": "a field is not used, and --unknown-fields is drop",
    "other_split": "another split of the source, such as its test split",
    # threads: trees and messages
    "repeated_tree": "a tree whose id was read before",
    "repeated_id": "a message whose id was read before",
    "orphan": "a reply whose parent is missing",
    "cycle": "a message that is its own ancestor",
    "tree_not_ready": "a tree that OpenAssistant had not finished",
    "no_usable_path": "a tree whose prompt was deleted or failed review",
    "on_path": "a message that is part of one of the conversations",
    "off_path": "a reply on a path that was not chosen (--paths)",
    "deleted_reply": "a reply that was deleted",
    "rejected_reply": "a reply that failed review",
    # rules: conversations, from here on
    "same_thread": "the messages of another conversation, after the cut",
    "orphan_tool_result": "the result of a tool that was not called",
    "no_answer": "no answer to train on",
    "empty_turn": "a message without visible text",
    "roles_do_not_alternate": "user and assistant do not take turns",
    "broken_unicode": "NUL or a run of replacement characters in its text",
    "nothing_trained": "all its answers are marked as context",
    "control_token": "a control token of the template in its text (--control-tokens)",
    "language": "a language outside --lang",
    "not_accepted": "a message that failed review or has none (--accepted-only)",
    "too_few_reviews": "below --min-reviews",
    "too_few_turns": "below --min-turns",
    "too_many_turns": "above --max-turns",
    "too_short": "below --min-chars",
    "too_long": "above --max-chars",
    # dedup, render, select
    "exact_duplicate": "the same text as another conversation",
    "near_duplicate": "nearly the same text as another (--near-dup)",
    "contaminated": "it holds a part of a benchmark (--decontaminate)",
    "template_refused": "the template refuses it",
    "tools_not_in_template": "the template does not write its tools",
    "reasoning_not_in_template": "the template does not write its reasoning",
    "not_sampled": "outside the sample (--sample)",
}

REPAIR_RULES: Mapping[str, str] = {
    "dangling_question": "cut what follows the last answer",
    "blank_system": "removed a system message without text",
    "merged_turns": "joined neighbouring messages of one role",
    "escaped_control_token": "broke a typed control token by a space",
    "repeated_id": "gave a conversation an id of its own",
}

_LABEL_OPTION = {"low_": "below --min-", "high_": "above --max-"}


def meaning_of(rule: str, stage: str = "") -> str:
    """Return what a rule means, as a clause without a full stop; a rule of a newer version means its name.

    Args:
        rule: of a fate, or of a repair with the stage `repair`.
        stage: of the fate; one rule means something else where files are read.
    """
    if stage == "repair":
        return REPAIR_RULES.get(rule, rule.replace("_", " "))
    if (stage, rule) == ("read", "too_long"):
        return "above --max-record-bytes"
    for start, option in _LABEL_OPTION.items():  # the thresholds of labels: low_quality, high_toxicity, …
        if rule.startswith(start):
            return option + rule.removeprefix(start).replace("_", "-")
    return DROP_RULES.get(rule, rule.replace("_", " "))
