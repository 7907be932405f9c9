"""Samples nest, do not depend on input order, and shuffle as `datasets` does."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from dataprep.curate.sampling import sample
from dataprep.recipe import Recipe
from tests.support.frames import trees_of_conversations


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 5))
def test_a_nested_sample_is_part_of_a_larger_one_and_does_not_depend_on_input_order(
    size_a: int, size_b: int, seed: int
) -> None:
    small, large = sorted((size_a, size_b))
    frame = trees_of_conversations(25)
    shuffled = frame[np.random.default_rng(seed).permutation(25)]
    few, rest, *_ = sample(frame, Recipe(sample=small, seed=seed), 25)
    many, *_ = sample(shuffled, Recipe(sample=large, seed=seed), 25)
    assert set(few["id"]) <= set(many["id"])
    assert few.height == min(small, 25)
    assert few["row"].is_sorted()
    assert sorted([*few["id"], *rest["id"]]) == sorted(frame["id"])
    assert set(rest["fate"]) <= {"not_sampled"}


def test_shuffle_chooses_what_datasets_chooses() -> None:
    from datasets import Dataset

    frame = trees_of_conversations(200)
    expected = Dataset.from_dict({"id": frame["id"].to_list()}).shuffle(seed=42).select(range(50))["id"]
    sampled, *_ = sample(frame, Recipe(sample=50, sample_method="shuffle"), 200)
    assert sampled["id"].to_list() == list(expected)


def test_shuffle_replaces_a_dropped_conversation_by_the_next_one() -> None:
    order = np.random.default_rng(42).permutation(200)
    remaining = trees_of_conversations(200).filter(~pl.col("row").is_in(order[[0, 3]].tolist()))
    sampled, *_ = sample(remaining, Recipe(sample=5, sample_method="shuffle"), 200)
    assert sampled["row"].to_list() == order[[1, 2, 4, 5, 6]].tolist()


def test_another_seed_gives_another_sample() -> None:
    frame = trees_of_conversations(100)
    one, other = (sample(frame, Recipe(sample=20, seed=seed), 100)[0]["id"].to_list() for seed in (1, 2))
    assert one != other
