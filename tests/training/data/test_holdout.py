"""The rows of a build are trained, held out, or said to be neither; a step is what the options make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.training_builds import chatter, row, write_build
from training.config import RunConfig
from training.data.training_data import load_training_data, open_training_build
from training.model.tiny import tokenizer_for

BASE = RunConfig(data=Path("."), model="tiny")


def loaded(folder, **options):
    config = replace(BASE, data=folder, **options)
    build = open_training_build(config)
    return load_training_data(config, build, tokenizer_for(build.splits["train"], dict(build.manifest.template)))


def ids(found) -> list[str]:
    held_out = found.test.table["id"].to_pylist() if found.test else []
    return found.train.table["id"].to_pylist() + held_out


@pytest.mark.parametrize("held_out", [1, 5, 9, 32, 200])
def test_trees_are_held_out_only_while_their_rows_fit(tmp_path, held_out):
    """Trees of 1 to 4 rows: none is halved, and what is not held out is trained."""
    sizes = [1 + number % 4 for number in range(400)]
    rows = [row(f"t{number}/{n}", [("a", "b")]) for number, size in enumerate(sizes) for n in range(size)]
    folder = write_build(tmp_path / "b", rows)
    found = loaded(folder, held_out=held_out)
    assert sorted(ids(found)) == sorted(row["id"] for row in rows)  # each once
    assert found.not_used == 0
    assert 0 < found.rows["held_out"] <= held_out
    trees = [set(side.table["tree_id"].to_pylist()) for side in (found.train, found.test)]
    assert not trees[0] & trees[1]


def test_a_tree_too_large_to_hold_out_is_trained(tmp_path):
    rows = [row(f"t{number}/{n}", [("a", "b")]) for number in range(2) for n in range(50)]
    found = loaded(write_build(tmp_path / "b", rows), held_out=32)
    assert found.rows == {"train": 100, "held_out": 0, "not_used": 0} and "no held-out loss" in found.notes[0]


def test_rows_of_the_test_split_that_are_not_used_are_told(tmp_path):
    folder = write_build(tmp_path / "b", chatter(30), chatter(20, seed=5))
    found = loaded(folder, held_out=12)
    assert found.rows == {"train": 30, "held_out": 12, "not_used": 8} and "8 rows" in found.notes[-1]
    assert loaded(folder, held_out=0).rows == {"train": 30, "held_out": 0, "not_used": 20}
    assert loaded(folder).notes == []
    with pytest.raises(AssertionError, match="50 rows"):
        replace(found, not_used=7)
