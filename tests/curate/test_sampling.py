"""Samples nest, do not depend on order, and shuffle as datasets does; splits keep trees whole."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.curate.sampling import sample
from dataprep.curate.sampling import split as split_by
from dataprep.recipe import Recipe
from tests.support.frames import conversation, conversations


def talks(count: int, trees: int | None = None) -> pl.DataFrame:
    rows = [conversation(f"q{n}", f"a{n}", tree_id=f"t{n % (trees or count)}") for n in range(count)]
    return conversations(*rows)


def split(frame: pl.DataFrame, recipe: Recipe) -> dict[str, pl.DataFrame]:
    kin = frame.select("row", group=pl.col("row").min().over("tree_id"))
    return split_by(frame, recipe, kin)[0]


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5), st.randoms())
def test_nested_samples_nest_and_do_not_depend_on_order(small: int, large: int, seed: int, random: object) -> None:
    small, large = sorted((small, large))
    frame = talks(25)
    shuffled = frame[np.random.default_rng(seed).permutation(25)]
    few, left = sample(frame, Recipe(sample=small, seed=seed), 25)
    many, _ = sample(shuffled, Recipe(sample=large, seed=seed), 25)
    assert set(few["id"]) <= set(many["id"])
    assert few.height == min(small, 25)
    assert few["row"].is_sorted()
    assert sorted([*few["id"], *left["id"]]) == sorted(frame["id"])
    assert set(left["fate"]) <= {"not_sampled"}


def test_shuffle_is_what_datasets_gives() -> None:
    from datasets import Dataset

    frame = talks(200)
    theirs = Dataset.from_dict({"id": frame["id"].to_list()}).shuffle(seed=42).select(range(50))["id"]
    ours, _ = sample(frame, Recipe(sample=50, sample_method="shuffle"), 200)
    assert ours["id"].to_list() == list(theirs)


def test_shuffle_gives_the_place_of_a_dropped_one_to_the_next() -> None:
    order = np.random.default_rng(42).permutation(200)
    left = talks(200).filter(~pl.col("row").is_in(order[[0, 3]].tolist()))
    ours, _ = sample(left, Recipe(sample=5, sample_method="shuffle"), 200)
    assert ours["row"].to_list() == order[[1, 2, 4, 5, 6]].tolist()


def test_another_seed_gives_another_sample() -> None:
    frame = talks(100)
    one, other = (sample(frame, Recipe(sample=20, seed=seed), 100)[0]["id"].to_list() for seed in (1, 2))
    assert one != other


@pytest.mark.parametrize("held_out", ["test=0.3", "test=40"])
def test_trees_stay_whole(held_out: str) -> None:
    parts = split(talks(200, trees=50), Recipe(split=held_out))
    assert not set(parts["train"]["tree_id"]) & set(parts["test"]["tree_id"])
    assert parts["train"].height + parts["test"].height == 200
    assert parts["test"].height == 40 or held_out == "test=0.3"
    assert 20 < parts["test"].height < 100


def test_a_number_of_rows_passes_over_what_does_not_fit() -> None:
    frame = talks(100, trees=10)  # ten rows a tree
    kin = frame.select("row", group=pl.col("row").min().over("tree_id"))
    parts, notes = split_by(frame, Recipe(split="test=25"), kin)
    assert parts["test"].height == 20
    assert notes == ["--split test=25: 20 rows, as trees and what is alike stay whole."]


def test_a_tree_keeps_its_side_when_data_is_added() -> None:
    recipe = Recipe(split="test=0.2")
    before, after = split(talks(100), recipe), split(talks(300), recipe)
    assert set(before["test"]["tree_id"]) <= set(after["test"]["tree_id"])
    assert set(before["train"]["tree_id"]) <= set(after["train"]["tree_id"])


def test_the_share_is_met_and_is_independent_of_the_sample() -> None:
    sampled, _ = sample(talks(4000), Recipe(sample=2000), 4000)
    assert split(sampled, Recipe(split="test=0.25"))["test"].height == pytest.approx(500, abs=80)


def test_what_is_akin_stays_together_and_a_large_group_is_trained_on() -> None:
    frame = talks(300)
    kin = frame.select("row", group=pl.when(pl.col("row") < 10).then(0).otherwise(pl.col("row") // 2 * 2))
    for seed in range(8):
        parts, notes = split_by(frame, Recipe(split="test=0.5", seed=seed), kin)
        assert set(range(10)) <= set(parts["train"]["row"])
        assert notes == ["A group of 10 conversations that are alike is over 1% of all: it is in train."]
        assert not {row // 2 for row in parts["train"]["row"]} & {row // 2 for row in parts["test"]["row"]}


def test_a_tree_much_larger_than_the_others_is_trained_on() -> None:
    large = pl.col("row") < 40
    frame = talks(100).with_columns(tree_id=pl.when(large).then(pl.lit("large")).otherwise("tree_id"))
    kin = frame.select("row", group=pl.col("row").min().over("tree_id"))
    for seed in range(20):
        parts, notes = split_by(frame, Recipe(split="test=0.5", seed=seed), kin)
        assert "large" in set(parts["train"]["tree_id"])
        assert notes == ["A tree of 40 conversations is over 1% of all: it is in train."]
