"""Faults in messages: answers that were split at headings, told apart from what people type."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataprep.audit import audit_file
from tests.support.audits import fault_kinds, rendered, write_texts

LONG = "This is a longer answer that explains everything in a way that is easy to follow"


@pytest.mark.parametrize(
    "chat",
    [
        ("I need help with my script.", "Sure, please paste it here", "# my script\nimport os", "It imports os."),
        ("Can you improve my README?", "Yes. Paste it.", "# Title\n\nSome text", "# A better title\n\nSome text"),
        ("Quiz me.", "Ready?", "1. Paris\nBecause it is the capital", "2. What is the capital of Spain?"),
        ("Count", "1 2 3", "4 5 6", "5 is what I'd say"),
        ("List 3 fruits.", "1. Apple\n2. Pear\n3. Plum", "5 more please", "6. Fig\n7. Kiwi\n8. Lime"),
        ("10 facts please", "1. A\n2. B", "3 more", "4 more? Sure"),
        ("Plan", LONG, "Step 1\nI did it and it worked", "Step 2\nNow do this"),
        ("Give me python", "```python\nprint(1)\n```", "### what does ### mean?", "It is a heading."),
        ("What is C#?", "A language", "# vs ## in Markdown?", "Headings"),
    ],
)
def test_headings_and_numbers_that_people_type_are_no_fault(tmp_path: Path, chat: tuple[str, ...]) -> None:
    assert fault_kinds(write_texts(tmp_path, [rendered(chat)])) == {}


@pytest.mark.parametrize(
    ("chat", "sure"),
    [
        (("how?", LONG, "1. Install it\nLike so", "2. Run it\nAnd so"), "likely"),
        (("how?", "You need:", "Step 1 – Install it\nLike so", "Step 2 – Run it\nAnd so"), "likely"),
        (("how?", "In this order.", "Step 1: Install\n" + LONG * 3, "Step 2: Run it\nAnd so"), "likely"),
        (("how?", "# Keras\n>>", "## Pros\n- fast", "## Cons\n- old"), "likely"),
        (("how?", "f(regex('^", "), 'x')", "And so on."), "likely"),
        (("how?", "As told.", "Many models\nThere are", "Human: and now?"), "certain"),
    ],
)
def test_a_split_answer_is_certain_only_if_a_speakers_marker_follows(
    tmp_path: Path, chat: tuple[str, ...], sure: str
) -> None:
    (faults,) = audit_file(write_texts(tmp_path, [rendered(chat)])).faults.values()
    assert [fault.sure for fault in faults if fault.kind == "heading_in_user_turn"] == [sure]
