"""Which of the sound conversations are in the build, and on which side of train and test."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
import xxhash

from dataprep.recipe import Recipe
from dataprep.tables import NOT_SAMPLED, fated, no_fates

STAGE = "select"
TRAIN = "train"
TEST = "test"

LARGEST = 0.01  # share of all rows that a group of alike trees may have in test, and so may a tree,
MEANS = 4  # or this many times the mean group: in a corpus of a few dozen trees each has more than that share

_SPLIT_SALT = 0x73706C6974  # "split": so that a tree's side does not follow from its place in the sample


def sample(conversations: pl.DataFrame, recipe: Recipe, read: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The `recipe.sample` conversations of a seeded sample (all, where none is asked for or fewer are left).

    * `nested`: those with the smallest seeded hashes of their ids, in the order given. It depends on nothing
      else, so a sample of 1,000 is part of one of 2,000, and stays when data is added elsewhere.
    * `shuffle`: walks NumPy's `default_rng(seed).permutation(read)` over the conversations as read and takes the
      first that are still there, in that order: what `datasets.shuffle(seed=seed).select(range(N))` gives.

    Args:
        conversations: columns of `conversations.CONVERSATIONS`; `row` is the place among all `read`.
        recipe: `sample`, `sample_method` and `seed` are used.
        read: conversations read, before anything was dropped.

    Returns:
        (sampled, fates of those not sampled).
    """
    if recipe.sample is None:
        return conversations, no_fates()
    if recipe.sample_method == "shuffle":
        turn = np.empty(read, dtype=np.int64)
        turn[np.random.default_rng(recipe.seed).permutation(read)] = np.arange(read)
        order = np.argsort(turn[conversations["row"].to_numpy()])
        taken, left = order[: recipe.sample], np.sort(order[recipe.sample :])
    else:
        hashes = seeded_hashes(conversations["id"], recipe.seed)
        order = np.argsort(hashes, kind="stable")
        taken, left = np.sort(order[: recipe.sample]), np.sort(order[recipe.sample :])
    return conversations[taken], fated(conversations[left], "conversation", NOT_SAMPLED, STAGE, NOT_SAMPLED)


def seeded_hashes(ids: Iterable[str], seed: int) -> np.ndarray:
    """XXH3-64 of each id under `seed`: uint64, the same on every machine.

    A loop in Python, as no column library has a hash that is fixed across versions; 0.2 s a million.
    """
    return np.array([xxhash.xxh3_64_intdigest(text.encode(), seed=seed) for text in ids], dtype=np.uint64)


def split(conversations: pl.DataFrame, recipe: Recipe, kin: pl.DataFrame) -> tuple[dict[str, pl.DataFrame], list[str]]:
    """The conversations by split: `train`, and `test` where the recipe holds some out. What is akin stays together.

    A share is a threshold on a seeded hash of a group's smallest tree id: it is met approximately, and a tree keeps
    its side when others come or go. A number of rows takes the groups with the smallest hashes for as long as they
    fit. A group that is larger than `LARGEST` of all rows is trained on; a single tree only if it is also larger than
    `MEANS` mean groups, so that a corpus of few trees can be split.

    Args:
        conversations: columns of `conversations.CONVERSATIONS`.
        recipe: `split` and `seed` are used.
        kin: `row, group` of all conversations; those of one group stay on one side.

    Returns:
        (splits, notes): a split may come out empty; the notes are sentences.
    """
    share, rows = recipe.held_out
    grouped = conversations.join(kin, on="row", how="left", maintain_order="left")
    tree = pl.col("tree_id")
    groups = grouped.group_by("group", maintain_order=True).agg(tree.min(), size=pl.len(), trees=tree.n_unique())
    hashes = seeded_hashes(groups["tree_id"], recipe.seed ^ _SPLIT_SALT)
    size = groups["size"].to_numpy()
    several = groups["trees"].to_numpy() > 1
    too_large = (size > LARGEST * len(conversations)) & (several | (size * len(size) > MEANS * len(conversations)))
    if share is not None:
        held_out = hashes < np.uint64(int(share * 2**64))
    else:
        held_out = _that_fit(
            np.where(too_large, len(conversations), size), np.argsort(hashes, kind="stable"), rows or 0
        )
    names = groups["group"].filter(pl.Series(held_out & ~too_large, dtype=pl.Boolean))
    parts = divide(conversations, grouped["group"].is_in(names.implode()))
    notes = [
        f"A {'group' if alike else 'tree'} of {n} conversations{' that are alike' if alike else ''} is over {LARGEST:.0%} "
        "of all: it is in train."
        for n, alike in zip(size[too_large].tolist(), several[too_large].tolist(), strict=True)
    ]
    if rows and parts[TEST].height < rows:
        notes.append(f"--split {recipe.split}: {parts[TEST].height} rows, as trees and what is alike stay whole.")
    return parts, notes


def _that_fit(size: np.ndarray, order: np.ndarray, rows: int) -> np.ndarray:
    """A mask of the groups taken in `order` for as long as `rows` rows hold them; what does not fit is passed over.

    A loop, as each step depends on the ones before; it ends when the rows are full.
    """
    taken, left = np.zeros(len(size), dtype=bool), rows
    for group in order.tolist():
        if size[group] <= left:
            taken[group] = True
            left -= int(size[group])
        if not left:
            break
    return taken


def divide(conversations: pl.DataFrame, is_test: pl.Series) -> dict[str, pl.DataFrame]:
    """`train` and `test` by a mask."""
    return {TRAIN: conversations.filter(~is_test), TEST: conversations.filter(is_test)}
