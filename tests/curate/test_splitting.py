"""Splits keep trees and groups of near-duplicates on one side, and repair what the groups missed."""

from __future__ import annotations

import polars as pl
import pytest

from dataprep.common.errors import InputError
from dataprep.curate.sampling import sample
from dataprep.curate.splitting import assign_sides, divide, split
from dataprep.recipe import Recipe
from tests.support.frames import trees_of_conversations


def groups_by_tree(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.select("row", group=pl.col("row").min().over("tree_id"))


def sides(frame: pl.DataFrame, recipe: Recipe) -> dict[str, pl.DataFrame]:
    return divide(frame, assign_sides(frame, recipe, groups_by_tree(frame)).is_test)


def no_leaks(frame: pl.DataFrame, is_test: pl.Series) -> pl.DataFrame:
    return pl.DataFrame(schema={"test": pl.String, "train": pl.String, "similarity": pl.Float64})


def leaks_of(frame: pl.DataFrame, is_test: pl.Series, ids: list[str]) -> pl.DataFrame:
    """Return a leak into train for each of these conversations that is in test."""
    leaking = frame.filter(is_test & frame["id"].is_in(ids))["id"]
    train = frame.filter(~is_test)["id"][: len(leaking)]
    return pl.DataFrame({"test": leaking, "train": train, "similarity": [0.9] * len(leaking)})


@pytest.mark.parametrize("held_out", ["test=0.3", "test=40"])
def test_a_tree_is_on_one_side_only(held_out: str) -> None:
    parts = sides(trees_of_conversations(200, trees=50), Recipe(split=held_out))
    assert not set(parts["train"]["tree_id"]) & set(parts["test"]["tree_id"])
    assert parts["train"].height + parts["test"].height == 200
    assert 20 < parts["test"].height < 100


def test_a_number_of_rows_is_met_exactly_if_the_trees_allow_it() -> None:
    assert sides(trees_of_conversations(200, trees=50), Recipe(split="test=40"))["test"].height == 40


def test_a_number_of_rows_skips_a_tree_that_does_not_fit() -> None:
    frame = trees_of_conversations(100, trees=10)  # ten rows a tree
    is_test, planned, notes = assign_sides(frame, Recipe(split="test=25"), groups_by_tree(frame))
    assert is_test.sum() == planned == 20
    assert notes == ["--split test=25: test has 20 rows, because trees and near-duplicates stay together."]


def test_a_tree_keeps_its_side_when_data_is_added() -> None:
    recipe = Recipe(split="test=0.2")
    before, after = sides(trees_of_conversations(100), recipe), sides(trees_of_conversations(300), recipe)
    assert set(before["test"]["tree_id"]) <= set(after["test"]["tree_id"])
    assert set(before["train"]["tree_id"]) <= set(after["train"]["tree_id"])


def test_the_share_of_test_does_not_depend_on_the_sample() -> None:
    sampled, *_ = sample(trees_of_conversations(4000), Recipe(sample=2000), 4000)
    assert sides(sampled, Recipe(split="test=0.25"))["test"].height == pytest.approx(500, abs=80)


def test_a_group_stays_together_and_a_large_group_is_in_train() -> None:
    frame = trees_of_conversations(300)
    groups = frame.select("row", group=pl.when(pl.col("row") < 10).then(0).otherwise(pl.col("row") // 2 * 2))
    for seed in range(8):
        is_test, _, notes = assign_sides(frame, Recipe(split="test=0.5", seed=seed), groups)
        parts = divide(frame, is_test)
        assert set(range(10)) <= set(parts["train"]["row"])
        assert notes == ["A group of near-duplicates with 10 conversations is over 1% of all: it is in train."]
        assert not {row // 2 for row in parts["train"]["row"]} & {row // 2 for row in parts["test"]["row"]}


def test_a_tree_much_larger_than_the_others_is_in_train() -> None:
    large = pl.col("row") < 40
    frame = trees_of_conversations(100).with_columns(tree_id=pl.when(large).then(pl.lit("large")).otherwise("tree_id"))
    for seed in range(20):
        is_test, _, notes = assign_sides(frame, Recipe(split="test=0.5", seed=seed), groups_by_tree(frame))
        assert "large" in set(divide(frame, is_test)["train"]["tree_id"])
        assert notes == ["A tree with 40 conversations is over 1% of all: it is in train."]


def test_a_share_that_comes_out_far_from_what_was_asked_is_noted() -> None:
    frame = trees_of_conversations(100, trees=10)  # ten rows a tree: 5 are asked for, and 0 or 10 or more come out
    notes = {
        seed: split(frame, Recipe(split="0.05", seed=seed), groups_by_tree(frame), no_leaks).notes for seed in range(9)
    }
    far = next(notes[seed] for seed in notes if notes[seed] and "left test empty" not in notes[seed][0])
    assert far[0].startswith("--split test=0.05 asks for about 5 rows in test, and it has 10: a hash decides")
    assert far[0].endswith("--split 5 takes a number of rows.")
    even = trees_of_conversations(1000)
    assert split(even, Recipe(split="0.3"), groups_by_tree(even), no_leaks).notes == []


def test_a_split_without_leaks_moves_nothing() -> None:
    frame = trees_of_conversations(100)
    parts, moved, notes = split(frame, Recipe(split="test=0.3"), groups_by_tree(frame), no_leaks)
    assert (moved, notes) == (0, [])
    assert parts["test"].equals(sides(frame, Recipe(split="test=0.3"))["test"])


def test_a_leaking_conversation_moves_to_train_with_its_whole_group() -> None:
    frame = trees_of_conversations(100, trees=50)
    planned = sides(frame, Recipe(split="test=0.3"))["test"]
    leaking = planned["id"][0]

    def one_leak(frame: pl.DataFrame, is_test: pl.Series) -> pl.DataFrame:
        return leaks_of(frame, is_test, [leaking])

    parts, moved, notes = split(frame, Recipe(split="test=0.3"), groups_by_tree(frame), one_leak)
    group = planned.filter(tree_id=planned["tree_id"][0])
    assert moved == group.height == 2
    assert set(group["id"]) <= set(parts["train"]["id"])
    assert parts["train"]["row"].is_sorted() and parts["train"].height + parts["test"].height == 100
    assert notes == [
        "2 rows planned for test moved to train because of near-duplicates in train that the sketches missed."
    ]


def test_leaks_that_repair_rounds_do_not_remove_reject_the_split() -> None:
    def always_leaks(frame: pl.DataFrame, is_test: pl.Series) -> pl.DataFrame:
        return pl.DataFrame({"test": ["a"], "train": ["b"], "similarity": [0.9]})

    frame = trees_of_conversations(20)
    with pytest.raises(InputError, match=r"--split leaks: 'a' in test and 'b' in train are near-duplicates"):
        split(frame, Recipe(split="test=0.3"), groups_by_tree(frame), always_leaks)


def test_an_empty_test_split_is_reported() -> None:
    frame = trees_of_conversations(20, trees=1)
    parts, moved, notes = split(frame, Recipe(split="test=5"), groups_by_tree(frame), no_leaks)
    assert parts["test"].is_empty() and moved == 0
    assert notes[-1] == "--split test=5 left test empty: too few trees are independent of each other."


def with_splits(frame: pl.DataFrame, *names: str | None) -> pl.DataFrame:
    """Give the conversations these splits in turn."""
    return frame.with_columns(split=pl.Series([names[n % len(names)] for n in range(frame.height)], dtype=pl.String))


def test_keep_divides_as_the_sources_do_and_drops_the_column() -> None:
    frame = with_splits(trees_of_conversations(60), "train", "test", None, "validation", "train_sft", "train")
    parts, moved, notes = split(frame, Recipe(split="keep"), groups_by_tree(frame), no_leaks)
    assert parts["test"]["id"].to_list() == [f"c{n}" for n in range(60) if n % 6 in (1, 3)]
    assert parts["train"].height == 40 and moved == 0
    assert parts["train"].columns == parts["test"].columns == frame.drop("split").columns
    assert notes == ["--split keep: test is made of the sources' test (10 rows), validation (10 rows)."]


def test_keep_moves_rows_with_a_tree_or_near_duplicate_in_train_to_train() -> None:
    frame = with_splits(trees_of_conversations(60, trees=20), *["train"] * 20, *["test"] * 20, *["test"] * 19, "train")
    groups = groups_by_tree(frame).with_columns(group=pl.when(pl.col("row") % 20 < 18).then("row").otherwise("group"))
    leaking = {"c30", "c50"}

    def two_leaks(frame: pl.DataFrame, is_test: pl.Series) -> pl.DataFrame:
        return leaks_of(frame, is_test, sorted(leaking))

    parts, moved, notes = split(frame, Recipe(split="keep"), groups, two_leaks)
    assert {"c38", "c39", "c58", "c30", "c50"} <= set(parts["train"]["id"])
    assert (parts["test"].height, moved) == (34, 5)
    assert parts["train"]["row"].is_sorted()
    assert notes[-1] == (
        "5 rows of the sources' held-out splits moved to train because of near-duplicates, or of threads of the same tree, "
        "in train."
    )


@pytest.mark.parametrize("names", [None, ["train", None]])
def test_keep_needs_a_held_out_split(names: list[str | None] | None) -> None:
    frame = trees_of_conversations(10)
    frame = with_splits(frame, *names) if names else frame
    with pytest.raises(InputError, match="--split keep: the sources have no split besides train"):
        split(frame, Recipe(split="keep"), groups_by_tree(frame), no_leaks)
