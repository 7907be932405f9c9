"""Reading rendered texts back: the bundled templates, system texts, and counts of control tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataprep.audit import audit_file
from dataprep.rendering import load_template, render
from tests.support.audits import write_texts
from tests.support.chats import BUNDLED


@pytest.mark.parametrize("template", BUNDLED)
def test_texts_of_every_bundled_template_are_read_back(tmp_path: Path, template: str) -> None:
    loaded = load_template(template)
    chat = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n}"} for n in range(4)]
    texts = [render(loaded, chat), render(loaded, chat[:2])]
    audit = audit_file(write_texts(tmp_path, texts), template=template)
    assert audit.faults == {}
    assert [note for note in audit.notes if "fault" in note] == []
    assert audit.messages == [chat, chat[:2]]
    foreign = audit_file(write_texts(tmp_path, [*texts, "there is no marker at all"]), template=template)
    assert list(foreign.faults) == [2]


@pytest.mark.parametrize(
    ("template", "end"), [("chatml", "<|im_end|>"), ("gemma", "<end_of_turn>"), ("llama2", "</s>")]
)
def test_a_wrong_number_of_end_tokens_is_reported_with_its_place(tmp_path: Path, template: str, end: str) -> None:
    chat = [{"role": ("system", "user", "assistant")[n], "content": f"turn {n}"} for n in range(3)]
    sound = render(load_template(template), chat[(template == "gemma") :])
    head, _, tail = sound.rpartition(end)
    audit = audit_file(write_texts(tmp_path, [sound, head + tail, head + end + end + tail]), template=template)
    last = len(chat) - (template == "gemma")
    assert {row: [(fault.kind, fault.detail) for fault in faults[:1]] for row, faults in audit.faults.items()} == {
        1: [("missing_control_token", f"no {end} after message {last}, expected 1")],
        2: [("doubled_control_token", f"2 times {end} after message {last}, expected 1")],
    }


def test_a_system_text_inside_the_first_question_is_a_message_of_its_own(tmp_path: Path) -> None:
    file = write_texts(tmp_path, ["<s>[INST] <<SYS>>\nbe good\n<</SYS>>\n\nhello [/INST] hi </s>"])
    assert [turn["role"] for turn in audit_file(file).messages[0]] == ["system", "user", "assistant"]
