"""The audit: planted faults of each kind, and the real rows as the well-known notebook damages them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataprep.audit import audit_file
from dataprep.audit.audit import KINDS
from dataprep.rendering import load_template, render
from dataprep.sources import find_files, read
from tests.test_cli import dataprep, refused

SOUND = "<s>[INST] {} [/INST] {} </s>"


def rows(folder: Path, texts: list[str], key: str = "text") -> Path:
    file = folder / "set.jsonl"
    file.write_text("".join(json.dumps({key: text}) + "\n" for text in texts))
    return file


def kinds(file: Path, **options: Any) -> dict[int, list[str]]:
    return {row: [fault.kind for fault in told] for row, told in audit_file(file, **options).faults.items()}


PLANTED = {
    "unparsable": "there is no marker at all",
    "odd_roles": "<s>[INST] a [INST] b [/INST] c </s>",
    "empty_turn": SOUND.format("what is this?", ""),
    "missing_control_token": "<s>[INST] a [/INST] b",
    "doubled_control_token": "<s><s>[INST] a [/INST] b </s>",
    "cut_at_heading": SOUND.format("in C", "#  The pattern"),
    "heading_in_user_turn": SOUND.format("how?", "First") + SOUND.format("1. Install it\nLike so", "2. Run it\nAnd so"),
    "unfinished": SOUND.format("a", "b") + "<s>[INST] and then?",
    "duplicate": SOUND.format("tell me something new", "no"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_planted_fault_is_found_and_sound_rows_are_not_named(tmp_path: Path, kind: str) -> None:
    file = rows(
        tmp_path, [SOUND.format("tell me something new", "no"), SOUND.format("x", "# A title\n\ntext"), PLANTED[kind]]
    )
    found = kinds(file)
    assert list(found) == [2]
    assert kind in found[2]
    assert kind in KINDS


def test_leak(tmp_path: Path) -> None:
    file = rows(tmp_path, [SOUND.format("what is the height of it all?", "b"), SOUND.format("short", "b")])
    held = tmp_path / "eval.jsonl"
    held.write_text(
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": "What is the  height of it all?"},
                    {"role": "assistant", "content": "9"},
                ]
            }
        )
    )
    assert kinds(file, against=held) == {0: ["leak"]}


def test_what_holds_for_every_row_goes_to_the_summary(tmp_path: Path) -> None:
    file = rows(tmp_path, [f"[INST] {n} [/INST] b" for n in range(3)])
    found = audit_file(file)
    assert found.faults == {}
    assert "missing_control_token" in found.summary["every_row"][0]
    sound = audit_file(rows(tmp_path, [SOUND.format(n, "b") for n in range(3)]))
    assert sound.summary["every_row"] == [
        "Every row begins with a typed <s>: a tokenizer that adds its own doubles it."
    ]


@pytest.mark.parametrize("template", ["llama2", "chatml", "alpaca", "vicuna", "mistral", "gemma", "zephyr", "llama3"])
def test_every_template_is_read_back(tmp_path: Path, template: str) -> None:
    known = load_template(template)
    chat = [{"role": ("user", "assistant")[n % 2], "content": f"turn {n}"} for n in range(4)]
    texts = [render(known, chat), render(known, chat[:2])]
    found = audit_file(rows(tmp_path, texts), template=template)
    assert found.faults == {}
    assert [note for note in found.notes if "fault" in note] == []
    assert found.messages == [chat, chat[:2]]
    foreign = audit_file(rows(tmp_path, [*texts, "there is no marker at all"]), template=template)
    assert list(foreign.faults) == [2]


@pytest.mark.parametrize(
    ("template", "end"), [("chatml", "<|im_end|>"), ("gemma", "<end_of_turn>"), ("llama2", "</s>")]
)
def test_a_wrong_number_of_end_tokens_is_found_where_it_is(tmp_path: Path, template: str, end: str) -> None:
    chat = [{"role": ("system", "user", "assistant")[n], "content": f"turn {n}"} for n in range(3)]
    sound = render(load_template(template), chat[(template == "gemma") :])
    head, _, tail = sound.rpartition(end)
    found = audit_file(rows(tmp_path, [sound, head + tail, head + end + end + tail]), template=template)
    last = len(chat) - (template == "gemma")
    assert {row: [(fault.kind, fault.detail) for fault in told[:1]] for row, told in found.faults.items()} == {
        1: [("missing_control_token", f"no {end} after message {last}")],
        2: [("doubled_control_token", f"2 times {end} after message {last}")],
    }


def test_system_text_and_messages_files(tmp_path: Path) -> None:
    file = rows(tmp_path, ["<s>[INST] <<SYS>>\nbe good\n<</SYS>>\n\nhello [/INST] hi </s>"])
    assert [turn["role"] for turn in audit_file(file).messages[0]] == ["system", "user", "assistant"]
    talk = [{"from": "human", "value": "a"}, {"from": "gpt", "value": ""}]
    assert kinds(rows(tmp_path, [talk], "conversations")) == {0: ["empty_turn"]}  # type: ignore[list-item]


def test_repaired(tmp_path: Path) -> None:
    texts = [SOUND.format("a", "c"), PLANTED["doubled_control_token"], PLANTED["unparsable"], SOUND.format("a", "c")]
    done = dataprep(
        "audit", rows(tmp_path, texts), "--repaired", tmp_path / "out.jsonl", "--report", tmp_path / "r.html", "--json"
    )
    told = json.loads(done.stdout)
    assert told["repaired"] | {"path": ""} == {"path": "", "written": 2, "repaired": 1, "left_out_rows": [2, 3]}
    assert all(json.loads(line)["text"].count("<s>") == 1 for line in (tmp_path / "out.jsonl").read_text().splitlines())
    assert "Row by row" in (tmp_path / "r.html").read_text()


def test_bad_input(tmp_path: Path) -> None:
    assert "of no known format" in refused(1, "audit", rows(tmp_path, ["x"], "words"))
    assert "Unknown template" in refused(1, "audit", rows(tmp_path, ["x"]), "--template", "lama2")
    assert "none.jsonl" in refused(1, "audit", tmp_path / "none.jsonl")
    done = dataprep("audit", rows(tmp_path, ["evil \x1b[31m \u202e text [INST] x"]))
    assert "\x1b[31m" not in done.stdout and "<U+001B>" in done.stdout.replace("\n", "")


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
def test_what_people_type_is_no_damage(tmp_path: Path, chat: tuple[str, ...]) -> None:
    text = "".join(SOUND.format(question, answer) for question, answer in zip(chat[::2], chat[1::2], strict=True))
    assert kinds(rows(tmp_path, [text])) == {}


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
def test_rests_of_answers_are_found_and_certain_only_by_a_marker(
    tmp_path: Path, chat: tuple[str, ...], sure: str
) -> None:
    text = "".join(SOUND.format(question, answer) for question, answer in zip(chat[::2], chat[1::2], strict=True))
    (told,) = audit_file(rows(tmp_path, [text])).faults.values()
    assert [fault.sure for fault in told if fault.kind == "heading_in_user_turn"] == [sure]


def damaged(text: str) -> str:
    """A guanaco row as the notebook formats it: cut at every '###', the pieces taken in pairs, a last odd one lost."""
    pieces = text.split("###")[1:]
    turns = [piece.strip().replace(("Human:", "Assistant:")[n % 2], "").strip() for n, piece in enumerate(pieces)]
    return "".join(SOUND.format(question, answer) for question, answer in zip(turns[0::2], turns[1::2], strict=False))


@pytest.fixture(scope="module")
def eval_rows(real: Path) -> Path:
    return real / "guanaco/openassistant_best_replies_eval.jsonl"


@pytest.mark.real
def test_the_notebooks_damage_on_real_rows(tmp_path: Path, eval_rows: Path) -> None:
    texts = [json.loads(line)["text"] for line in eval_rows.read_text().splitlines()]
    file = rows(tmp_path, [damaged(text) for text in texts])
    sources = read(find_files([str(eval_rows)])).conversations["messages"].to_list()
    mangled, lost = set(), set()
    for row, source in enumerate(sources):
        wanted = "".join(
            SOUND.format(q["content"].strip(), a["content"].strip())
            for q, a in zip(source[::2], source[1::2], strict=False)
        )
        mangled |= {row} if damaged(texts[row]) != wanted else set()
        lost |= {row} if len(source) % 2 else set()
    assert mangled and len(lost) > 100

    visible = audit_file(file)
    assert set(visible.faults) == mangled
    assert "doubles it" in visible.notes[0]
    against = audit_file(file, against=eval_rows, source_format="guanaco")
    assert set(against.faults) == mangled | lost
    mended = against.write_repaired(tmp_path / "mended.jsonl")
    assert mended["left_out_rows"] == []
    assert not audit_file(tmp_path / "mended.jsonl").faults
