"""The division of a build's rows into trained, held-out and unused rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.training_builds import chatter, row, write_build
from training.config import RunConfig
from training.data.training_data import TrainingData, load_training_data, open_training_build
from training.errors import DataError
from training.model.tiny import tokenizer_for

BASE = RunConfig(data=Path("."), model="tiny")


def load(folder: Path, **options: Any) -> TrainingData:
    config = replace(BASE, data=folder, **options)
    build = open_training_build(config)
    return load_training_data(config, build, tokenizer_for(build.splits["train"], dict(build.manifest.template)))


def tree_ids(data: TrainingData) -> tuple[set[str], set[str]]:
    """Trees of the training rows and of the held-out rows."""
    assert data.test is not None
    return set(data.train.table["tree_id"].to_pylist()), set(data.test.table["tree_id"].to_pylist())


@pytest.mark.parametrize("held_out", [1, 5, 9, 32, 200])
def test_whole_trees_are_held_out_up_to_the_number_of_rows(tmp_path: Path, held_out: int) -> None:
    sizes = [1 + number % 4 for number in range(400)]
    rows = [row(f"t{number}/{n}", [("a", "b")]) for number, size in enumerate(sizes) for n in range(size)]
    data = load(write_build(tmp_path / "b", rows), held_out=held_out)
    assert data.test is not None
    ids = data.train.table["id"].to_pylist() + data.test.table["id"].to_pylist()
    assert sorted(ids) == sorted(row["id"] for row in rows)
    assert data.not_used == 0
    assert 0 < data.rows["held_out"] <= held_out
    trained, held = tree_ids(data)
    assert not trained & held


def test_the_choice_of_trees_is_deterministic_and_noted(tmp_path: Path) -> None:
    rows = [row(f"t{number // 2}/{number}", [("a", "b")]) for number in range(80)]
    folder = write_build(tmp_path / "b", rows)
    data, again = load(folder), load(folder)
    trained, held = tree_ids(data)
    assert not trained & held and len(held) == 2
    assert "2 of its 40 trees" in data.notes[0] and "held out from training" in data.notes[0]
    assert data.test is not None and again.test is not None
    assert again.test.table.equals(data.test.table)


def test_a_tree_with_too_many_rows_stays_in_training(tmp_path: Path) -> None:
    rows = [row(f"t{number}/{n}", [("a", "b")]) for number in range(2) for n in range(50)]
    data = load(write_build(tmp_path / "b", rows), held_out=32)
    assert data.rows == {"train": 100, "held_out": 0, "not_used": 0} and "no held-out loss" in data.notes[0]


def test_unused_rows_of_the_test_split_are_counted_and_noted(tmp_path: Path) -> None:
    folder = write_build(tmp_path / "b", chatter(30), chatter(20, seed=5))
    data = load(folder, held_out=12)
    assert data.rows == {"train": 30, "held_out": 12, "not_used": 8} and "8 rows" in data.notes[-1]
    assert load(folder, held_out=0).rows == {"train": 30, "held_out": 0, "not_used": 20}
    assert load(folder).notes == []
    with pytest.raises(AssertionError, match="50 rows"):
        replace(data, not_used=7)


def test_a_build_with_a_failed_gate_is_refused_unless_allowed(tmp_path: Path) -> None:
    config = replace(BASE, data=write_build(tmp_path / "b", chatter(5), gate="failed"))
    with pytest.raises(DataError, match="--allow-failed-gate"):
        open_training_build(config)
    assert open_training_build(replace(config, allow_failed_gate=True)).manifest.gate == "failed"


def test_options_select_truncate_and_hold_out_rows(tmp_path: Path) -> None:
    """--max-tokens, --cut, --train-on and --held-out."""
    folder = write_build(tmp_path / "b", chatter(60), chatter(12, seed=5))
    default = load(folder)
    assert default.train.labelled.ledger.rows_cut == 0 and default.rows["held_out"] == 12
    truncated = load(folder, max_tokens=20).train.labelled
    assert truncated.ledger.rows_cut > 0 and truncated.rows.lengths.max() <= 20
    dropped = load(folder, max_tokens=20, cut="drop").train.labelled.ledger
    assert dropped.rows_cut == 0 and dropped.rows_dropped > 0
    last_answer = load(folder, train_on="last-answer").train.labelled.ledger
    assert last_answer.tokens_trained < default.train.labelled.ledger.tokens_trained
    assert load(folder, held_out=3).rows["held_out"] == 3
    assert load(folder, held_out=0).test is None
