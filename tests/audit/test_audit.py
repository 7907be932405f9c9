"""The audit: planted faults of each kind, and the real rows as the well-known notebook damages them."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataprep.audit import audit_file, write_repaired
from dataprep.audit.audit import KINDS
from dataprep.common.errors import InputError
from dataprep.rendering import load_template, render
from dataprep.sources.files import find_files
from dataprep.sources.reader import read
from tests.support.commands import dataprep, dataprep_error

SOUND = "<s>[INST] {} [/INST] {} </s>"


def rows(folder: Path, texts: list[str], key: str = "text") -> Path:
    folder.mkdir(exist_ok=True)
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


TALL = "what is the height of it all?"


@pytest.mark.parametrize(
    ("mine", "theirs", "sure"),
    [
        ((TALL, "b"), ("What is the  height of it all?", "9"), "certain"),
        ((TALL, "b"), ("What is the height of it all", "9"), "certain"),
        (("short", "b", TALL, "c"), (TALL, "9"), "certain"),
        ((TALL, "b"), ("well", "yes", TALL, "9"), "likely"),
        (("another question", "the very same long answer " * 20), ("Hi?", "the very same long answer " * 20), "likely"),
        (("请解释一下量子纠缠是什么意思？", "a"), ("请解释一下量子纠缠是什么意思", "b"), "certain"),
        (("Hi?", "b"), ("hi?", "b"), "certain"),
        (("Hi?", "b"), ("hi?", "c"), None),
        (("5 + 3?", "8"), ("5 - 3?", "2"), None),
        (("Hi?", "I am fine, thank you very much."), ("Ho?", "I am fine, thank you very much."), None),
    ],
)
def test_leak(tmp_path: Path, mine: tuple[str, ...], theirs: tuple[str, ...], sure: str | None) -> None:
    def text(chat: tuple[str, ...]) -> str:
        return "".join(SOUND.format(question, answer) for question, answer in zip(chat[::2], chat[1::2], strict=True))

    file = rows(tmp_path, [text(("a sound row", "b")), text(mine)])
    held = rows(tmp_path / "held", [text(("not asked here", "x")), text(theirs)])
    found = audit_file(file, against=held).faults
    assert {row: [(fault.kind, fault.sure) for fault in told] for row, told in found.items()} == (
        {1: [("leak", sure)]} if sure else {}
    )
    if sure:
        assert "row 1 of set.jsonl" in found[1][0].detail


def test_leak_of_a_chat_with_another_system_text(tmp_path: Path) -> None:
    file = rows(tmp_path, ["<s>[INST] <<SYS>>\nbe good\n<</SYS>>\n\nHi? [/INST] b </s>"])
    assert kinds(file, against=rows(tmp_path / "held", [SOUND.format("Hi?", "b")])) == {0: ["leak"]}


def test_leak_of_a_benchmark_which_is_of_any_form(tmp_path: Path) -> None:
    words = " ".join(f"word{n}" for n in range(20))
    file = rows(tmp_path, [SOUND.format("a sound row", "b"), SOUND.format(f"Please tell me: {words}", "b")])
    (tmp_path / "held").mkdir()
    for name, item in (("any.jsonl", {"turns": [words]}), ("text.jsonl", {"text": words})):
        (tmp_path / "held" / name).write_text(json.dumps(item))
        found = audit_file(file, against=tmp_path / "held" / name)
        assert list(found.faults) == [1]
        assert found.faults[1][0].kind == "leak" and f"item 1 of {name}" in found.faults[1][0].detail


@pytest.mark.real
def test_leaks_of_real_benchmarks(tmp_path: Path, real: Path) -> None:
    asked = json.loads((real / "benchmarks/mt_bench_questions.jsonl").read_text().splitlines()[3])["turns"][0]
    file = rows(tmp_path, [SOUND.format("a sound row", "b"), SOUND.format(asked, "b")])
    assert kinds(file, against=real / "benchmarks/mt_bench_questions.jsonl") == {1: ["leak"]}
    assert kinds(file, against=real / "benchmarks/HumanEval.jsonl.gz") == {}


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


ODD_SPACE = "<s>[INST] b [/INST]   c </s>"  # sound, though not to the letter what the template writes


def test_repaired_keeps_other_columns_and_sound_texts_as_they_are(tmp_path: Path) -> None:
    texts = [ODD_SPACE, PLANTED["unparsable"], PLANTED["doubled_control_token"]]
    records = [{"id": n, "text": text, "half": "\ud83d"} for n, text in enumerate(texts)]
    file = tmp_path / "set.jsonl"
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert write_repaired(audit_file(file), tmp_path / "out.jsonl")["left_out_rows"] == [1]
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert written == [records[0], {**records[2], "text": "<s>[INST] a [/INST] b </s>"}]

    chat = {"n": 1, "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}
    file.write_text(json.dumps(chat))
    write_repaired(audit_file(file), tmp_path / "out.jsonl")
    told = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert json.loads((tmp_path / "out.jsonl").read_text()) == {"n": 1, "messages": told}


def test_repaired_mends_what_holds_for_every_row(tmp_path: Path) -> None:
    file = rows(tmp_path, [f"[INST] {n} [/INST] b </s>" for n in range(3)])
    assert write_repaired(audit_file(file), tmp_path / "out.jsonl")["left_out_rows"] == []
    assert all(json.loads(line)["text"].startswith("<s>") for line in (tmp_path / "out.jsonl").read_text().splitlines())


def test_repaired_parquet(tmp_path: Path) -> None:
    frame = pl.DataFrame({"n": [1, 2], "at": [date(2026, 1, 1)] * 2, "text": [ODD_SPACE, PLANTED["unparsable"]]})
    frame.write_parquet(tmp_path / "set.parquet")
    write_repaired(audit_file(tmp_path / "set.parquet"), tmp_path / "out.parquet")
    assert pl.read_parquet(tmp_path / "out.parquet").equals(frame[:1])


def test_what_is_written_takes_no_input_along(tmp_path: Path) -> None:
    file, held = rows(tmp_path, [ODD_SPACE]), tmp_path / "held.jsonl"
    held.write_text(file.read_text())
    (tmp_path / "link.jsonl").symlink_to(file)
    before = file.read_text()
    for out in (file, held, tmp_path / "link.jsonl"):
        assert "would be lost" in dataprep_error(1, "audit", file, "--against", held, "--repaired", out)
        assert "would be lost" in dataprep_error(1, "audit", file, "--against", held, "--report", out)
    assert "ends in .jsonl or .parquet" in dataprep_error(1, "audit", file, "--repaired", tmp_path / "out.csv")
    assert "cannot be written" in dataprep_error(1, "audit", file, "--repaired", tmp_path / "none/out.jsonl")
    assert "cannot be written" in dataprep_error(1, "audit", file, "--report", tmp_path / "none/r.html")
    assert "cannot be written" in dataprep_error(1, "audit", file, "--report", tmp_path)
    assert file.read_text() == held.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"set.jsonl", "held.jsonl", "link.jsonl"}


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    file, out = tmp_path / "set.jsonl", tmp_path / "out.parquet"
    file.write_text(
        "".join(json.dumps({"text": SOUND.format(n, "b"), "odd": odd}) + "\n" for n, odd in enumerate([1, {}]))
    )
    out.write_text("as it was")
    with pytest.raises(InputError, match="fit no columns .* write .jsonl"):
        write_repaired(audit_file(file), out)
    assert out.read_text() == "as it was"


def test_all_files_of_a_folder_or_a_glob_are_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(
            "".join(json.dumps({"text": text}) + "\n" for text in (SOUND.format(name, name), "no marker", ODD_SPACE))
        )
    for source in (tmp_path, tmp_path / "*.jsonl"):
        found = audit_file(source)
        assert found.summary["rows"] == 6
        assert [(row["file"], row["row"]) for row in found.facts()["rows"]] == [
            ("a.jsonl", 1),
            ("b.jsonl", 1),
            ("b.jsonl", 2),
        ]
        assert found.facts()["rows"][2]["faults"][0]["detail"] == "the same as row 2 of a.jsonl"
    done = dataprep("audit", tmp_path, "--repaired", tmp_path / "out.jsonl")
    assert "left out: 1 of a.jsonl, 1 of b.jsonl, 2 of b.jsonl" in done.stdout
    assert "b.jsonl    2  duplicate" in done.stdout


def test_a_row_that_cannot_be_read_is_a_fault_of_that_row(tmp_path: Path) -> None:
    pl.DataFrame({"text": [ODD_SPACE, None]}).write_parquet(tmp_path / "null.parquet")
    assert kinds(tmp_path / "null.parquet") == {1: ["unparsable"]}
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps({"text": ODD_SPACE}) + '\n{"text": \n\n{"text": 5}\n')
    assert kinds(broken) == {1: ["unparsable"], 2: ["unparsable"]}
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    broken.write_text(json.dumps(chat) + '\n{"messages": [{"content": "a"}]}\n{"messages":\n')
    found = audit_file(broken)
    assert {row: fault[0].kind for row, fault in found.faults.items()} == {1: "unparsable", 2: "unparsable"}
    assert found.faults[1][0].detail == "the record has a turn without a role"
    assert write_repaired(found, tmp_path / "out.jsonl")["written"] == 1


def test_bad_input(tmp_path: Path) -> None:
    assert "has no known format" in dataprep_error(1, "audit", rows(tmp_path, ["x"], "words"))
    assert "Unknown template" in dataprep_error(1, "audit", rows(tmp_path, ["x"]), "--template", "lama2")
    assert "none.jsonl" in dataprep_error(1, "audit", tmp_path / "none.jsonl")
    done = dataprep("audit", rows(tmp_path, ["evil \x1b[31m \u202e text [INST] x"]))
    assert "\x1b[31m" not in done.stdout and "<U+001B>" in done.stdout.replace("\n", "")


def test_rows_that_the_source_has_not_are_named(tmp_path: Path) -> None:
    source = rows(
        tmp_path / "source", ["### Human: what is a llama?### Assistant: An animal.### Human: more?### Assistant: no"]
    )
    system = "<s>[INST] <<SYS>>\nbe nice\n<</SYS>>\n\nwhat is a llama? [/INST] "
    texts = [
        SOUND.format("what's a llama?", "b"),
        f"{system}An animal. </s>" + SOUND.format("more?", "no"),
        f"{system}An </s>",
    ]
    found = audit_file(rows(tmp_path, texts), against=source, source_format="guanaco")
    assert found.summary["not_in_source"] == [{"row": 0}]
    assert "begins with their question: row 0." in found.notes[-1]
    (told,) = found.faults[2]
    assert list(found.faults) == [2]
    assert (told.kind, told.detail[:46]) == ("unfinished", "message 3 ends 8 characters early; the source ")
    write_repaired(found, tmp_path / "out.jsonl")
    mended = [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert mended == [texts[0], texts[1], texts[1]]
    source.write_text(source.read_text() + "{broken\n")
    asked = "<s>[INST]  [/INST] b </s>"  # an empty question is not the source's broken line
    found = audit_file(rows(tmp_path, [asked]), against=source, source_format="guanaco")
    assert found.summary["not_in_source"] == [{"row": 0}]


def test_names_of_files_steer_no_terminal(tmp_path: Path) -> None:
    file = tmp_path / "evil \x1b[31m.jsonl"
    file.write_text(json.dumps({"text": ODD_SPACE}) + "\n" + json.dumps({"text": "no marker"}))
    done = dataprep("audit", file, "--against", file, "--repaired", tmp_path / "out \x1b[31m.jsonl")
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
    assert done.stdout.count("<U+001B>") >= 3  # the leak, the note and what was written


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
    mended = write_repaired(against, tmp_path / "mended.jsonl")
    assert mended["left_out_rows"] == []
    assert not audit_file(tmp_path / "mended.jsonl").faults
