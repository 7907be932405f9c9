"""What changed between two versions, and the cause of each change."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataprep.contract import open_build
from dataprep.store.diff import (
    INPUT,
    NOT_IN_INPUT,
    SOURCE,
    SPLIT,
    SYSTEM_TEXT,
    TEMPLATE,
    Difference,
    diff,
    rows_by_rule,
)
from tests.support.builds import guanaco_file, guanaco_text, make_build
from tests.support.commands import dataprep, dataprep_error

QUICK = {"gate": "off", "near_dup": "off"}
PAIRS = [guanaco_text(f"question {n}", f"answer {n}") for n in range(30)]


def build(folder: Path, texts: list[str] = PAIRS, **options: object) -> Path:
    """Build guanaco texts into the store of `folder`."""
    path = make_build(folder / "store", source=(guanaco_file(folder, texts),), **QUICK | options).path
    assert path is not None
    return path


def compare(old: Path, new: Path) -> Difference:
    return diff(open_build(old), open_build(new))


def test_each_added_or_removed_row_has_the_rule_that_dropped_it(tmp_path: Path) -> None:
    texts = [*PAIRS, guanaco_text("short", "a"), guanaco_text("asked", "told", "and then?")]
    old = build(tmp_path, texts)
    new = build(tmp_path, [*texts[1:], guanaco_text("brand new", "row")], min_chars=8)
    difference = compare(old, new)
    assert difference.rows == (32, 31)
    assert rows_by_rule(difference.removed) == {NOT_IN_INPUT: 1, "too_short": 1}
    assert rows_by_rule(difference.added) == {NOT_IN_INPUT: 1}
    assert difference.changed.is_empty()
    assert difference.recipe["min_chars"] == (None, 8)
    assert set(difference.recipe) == {"min_chars", "contents of sources"}
    assert compare(new, old).added["rule"].to_list().count("too_short") == 1


def test_rows_outside_of_a_sample_are_removed_as_not_sampled(tmp_path: Path) -> None:
    assert rows_by_rule(compare(build(tmp_path), build(tmp_path, sample=10)).removed) == {"not_sampled": 20}


def test_a_row_is_attributed_to_every_option_that_changed_it(tmp_path: Path) -> None:
    old = build(tmp_path, system="Be brief.", split="0.2")
    new = build(tmp_path, system="Be kind.", split="0.2", template="chatml", seed=7)
    causes = rows_by_rule(compare(old, new).changed)
    assert causes.keys() == {f"{SYSTEM_TEXT}, {TEMPLATE}", f"{SYSTEM_TEXT}, {TEMPLATE}, {SPLIT}"}
    assert sum(causes.values()) == 30
    assert rows_by_rule(compare(old, build(tmp_path, system="Be kind.", split="0.2")).changed) == {SYSTEM_TEXT: 30}


def test_rows_of_another_template_differ_by_the_template(tmp_path: Path) -> None:
    difference = compare(build(tmp_path), build(tmp_path, template="chatml"))
    assert rows_by_rule(difference.changed) == {TEMPLATE: 30}


def test_rows_that_move_between_splits_differ_by_the_split(tmp_path: Path) -> None:
    difference = compare(build(tmp_path), build(tmp_path, split="test=4"))
    assert rows_by_rule(difference.changed) == {SPLIT: 4}
    assert difference.changed["detail"].unique().to_list() == ["train to test"]


def test_a_version_does_not_differ_from_itself(tmp_path: Path) -> None:
    path = build(tmp_path)
    difference = compare(path, path)
    assert difference.recipe == {}
    assert [frame.height for frame in difference.frames().values()] == [0, 0, 0]


def test_a_repaired_row_differs_by_its_repair(tmp_path: Path) -> None:
    texts = [*PAIRS, guanaco_text("what is [INST] here", "a marker")]
    kept, escaped = (build(tmp_path, texts, control_tokens=policy) for policy in ("keep", "escape"))
    difference = compare(kept, escaped)
    [(row, rule)] = difference.changed.select("id", "rule").rows()
    assert rule == "escaped_control_token"
    assert difference.recipe == {"control_tokens": ("keep", "escape")}
    assert compare(escaped, kept).changed["rule"].to_list() == [rule]
    dropped = build(tmp_path, texts)
    assert compare(escaped, dropped).removed.select("id", "rule").rows() == [(row, "control_token")]


def chats(folder: Path, name: str = "chats.jsonl", **answers: str) -> Path:
    """A file of the conversations `one` (with a system text), `two` and `three`; `answers` by id."""
    texts = {"one": "a", "two": "b", "three": "c"} | answers
    system = [{"role": "system", "content": "My own."}]
    rows = [
        {
            "id": key,
            "messages": system * (key == "one")
            + [{"role": "user", "content": "q"}, {"role": "assistant", "content": text}],
        }
        for key, text in texts.items()
    ]
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder / name


def build_chats(source: Path, **options: object) -> Path:
    path = make_build(source.parent / "store", source=(str(source),), **QUICK | options).path
    assert path is not None
    return path


def rules_of(difference: Difference) -> dict[str, str]:
    return dict(difference.changed.select("id", "rule").rows())


def test_a_changed_system_option_is_no_changed_input(tmp_path: Path) -> None:
    plain = build_chats(chats(tmp_path))
    brief, long = (build_chats(chats(tmp_path), system=text) for text in ("Be brief.", "Be long."))
    for old, new in ((plain, brief), (brief, plain), (brief, long)):
        assert rules_of(compare(old, new)) == {"two": SYSTEM_TEXT, "three": SYSTEM_TEXT}
    edited = build_chats(chats(tmp_path, two="other"), system="Be brief.")
    difference = compare(plain, edited)
    assert rules_of(difference) == {"two": f"{INPUT}, {SYSTEM_TEXT}", "three": SYSTEM_TEXT}
    assert difference.recipe["system"] == (None, "Be brief.")
    assert rules_of(compare(brief, edited)) == {"two": INPUT}


def test_a_renamed_source_is_no_changed_input(tmp_path: Path) -> None:
    plain = build_chats(chats(tmp_path))
    renamed = build_chats(chats(tmp_path, "renamed.jsonl"))
    assert compare(plain, renamed).changed["rule"].to_list() == [SOURCE] * 3
    other_template = build_chats(chats(tmp_path, "renamed.jsonl"), template="chatml")
    assert compare(plain, other_template).changed["rule"].to_list() == [f"{TEMPLATE}, {SOURCE}"] * 3


@pytest.fixture
def two_versions(tmp_path: Path) -> tuple[Path, Path]:
    return build(tmp_path), build(tmp_path, sample=10)


def test_the_diff_command_prints_causes_and_counts(tmp_path: Path, two_versions: tuple[Path, Path]) -> None:
    old, new = two_versions
    store = ("--store", tmp_path / "store")
    output = dataprep("diff", f"n@{old.name}", "n", *store).stdout
    for line in ("sample: none -> 10", "- 20 removed: 20 by not_sampled", "15 more"):
        assert line in output
    difference = json.loads(dataprep("diff", old, new, "--json").stdout)
    assert len(difference["removed"]) == 20
    assert difference["rules"]["removed"] == {"not_sampled": 20}
    assert "Did you mean" in dataprep_error(1, "diff", f"n@{old.name[:-1]}x", "n", *store)
