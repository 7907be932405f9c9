"""Divide the sampled conversations into train and test, and prove that no test conversation has a near-duplicate in train.

Conversations of one group (a tree, or near-duplicates of each other) stay on the same side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import polars as pl

from dataprep.common.errors import InputError
from dataprep.common.text import plural
from dataprep.curate.sampling import seeded_hashes
from dataprep.recipe import Recipe

TRAIN = "train"
TEST = "test"

MAX_GROUP_SHARE = 0.01  # a group of several trees above this share of all rows goes to train; so does a single tree
MAX_MEAN_GROUPS = 4  # if it is also larger than this many mean groups (in a corpus of few trees each exceeds the share)
FAR_FROM_SHARE = 0.5  # of the rows that a share asks for: a test split that differs by more gets a note
REPAIR_ROUNDS = 8  # repair rounds before the split is rejected; each leaves far fewer leaks

_SPLIT_SALT = 0x73706C6974  # "split": makes a tree's side independent of its rank in the nested sample

# (conversations, which of them are in test) -> test, train (ids), similarity
LeakFinder = Callable[[pl.DataFrame, pl.Series], pl.DataFrame]


class Split(NamedTuple):
    """The conversations of each split, the number of rows moved from test to train, and sentences to report."""

    parts: dict[str, pl.DataFrame]
    moved: int
    notes: list[str]


class Sides(NamedTuple):
    """Which conversations are planned for test, how many rows the plan has there, and sentences to report.

    A group that has to be in train can have planned rows, so `planned` may exceed the marked ones.
    """

    is_test: pl.Series
    planned: int
    notes: list[str]


def split(conversations: pl.DataFrame, recipe: Recipe, groups: pl.DataFrame, find_leaks: LeakFinder) -> Split:
    """Divide the conversations into `train` and `test` without leaks.

    The groups come from sketches, which can miss a pair. So every test conversation is then compared exactly with all
    of train; a leaking one moves to train with its whole group, until no leak is left.

    Args:
        conversations: columns of `tables.CONVERSATIONS`, and `split` with `--split keep`.
        recipe: `split` and `seed` are used.
        groups: `row, group` of all conversations.
        find_leaks: returns all pairs of similar conversations across the two sides.

    Raises:
        InputError: leaks are left after `REPAIR_ROUNDS` rounds, or `--split keep` finds no split to keep.
    """
    own_splits = recipe.held_out.keep
    sides = keep_sides(conversations, groups) if own_splits else assign_sides(conversations, recipe, groups)
    is_test, planned, notes = sides
    conversations = conversations.drop("split", strict=False)
    for _ in range(REPAIR_ROUNDS + 1):
        leaks = find_leaks(conversations, is_test)
        if leaks.is_empty():
            break
        is_test = _without_leaking_groups(conversations, is_test, groups, leaks["test"])
    else:
        test_id, train_id, similarity = leaks.row(0)
        raise InputError(
            f"--split leaks: '{test_id}' in test and '{train_id}' in train are near-duplicates (similarity {similarity:.3f})."
        )
    parts = divide(conversations, is_test)
    moved = planned - parts[TEST].height
    if moved and own_splits:
        notes.append(
            f"{plural(moved, 'row')} of the sources' held-out splits moved to train because of near-duplicates, or of "
            "threads of the same tree, in train."
        )
    elif moved:
        notes.append(
            f"{plural(moved, 'row')} planned for test moved to train because of near-duplicates in train that the sketches "
            "missed."
        )
    if parts[TEST].is_empty():
        notes.append(f"--split {recipe.split} left test empty: too few trees are independent of each other.")
    elif recipe.held_out.share is not None:
        notes += _share_notes(recipe, parts[TEST].height, conversations.height)
    return Split(parts, moved, notes)


def _share_notes(recipe: Recipe, held_out: int, rows: int) -> list[str]:
    """Return a note if a share came out far from what was asked, as it does where a hash decides about few trees."""
    wanted = (recipe.held_out.share or 0) * rows
    if abs(held_out - wanted) <= max(FAR_FROM_SHARE * wanted, 1):
        return []
    return [
        f"--split {recipe.split} asks for about {plural(round(wanted), 'row')} in test, and it has {held_out:,}: a hash "
        f"decides for each tree as a whole. --split {max(round(wanted), 1)} takes a number of rows."
    ]


def keep_sides(conversations: pl.DataFrame, groups: pl.DataFrame) -> Sides:
    """Plan the division that the sources have; a group with a conversation in train goes to train as a whole.

    Splits whose names begin with `train`, and rows without a split, are train; all others are test.

    Args:
        conversations: columns of `tables.CONVERSATIONS`, and `split`.
        groups: `row, group` of all conversations.

    Raises:
        InputError: the sources hold nothing out.
    """
    names = (
        conversations["split"].fill_null(TRAIN) if "split" in conversations.columns else pl.Series([], dtype=pl.String)
    )
    held_out = ~names.str.starts_with(TRAIN)
    if not held_out.any():
        raise InputError(
            "--split keep: the sources have no split besides train. Use --split test=0.05 to hold rows out."
        )
    counts = names.filter(held_out).value_counts().sort("split").rows()
    listed = ", ".join(f"{name} ({plural(count, 'row')})" for name, count in counts)
    labelled = conversations.select("row", held_out=held_out).join(groups, on="row", how="left", maintain_order="left")
    is_test = labelled.select(pl.col("held_out").all().over("group")).to_series()
    return Sides(is_test, int(held_out.sum()), [f"--split keep: test is made of the sources' {listed}."])


def assign_sides(conversations: pl.DataFrame, recipe: Recipe, groups: pl.DataFrame) -> Sides:
    """Plan the conversations of `train` and `test`, group by group.

    A share is a threshold on a seeded hash of a group's smallest tree id: the share is met approximately, and a tree
    keeps its side when others are added or removed. A number of rows takes the groups with the smallest hashes as long
    as they fit. A group above `MAX_GROUP_SHARE` of all rows goes to train; a single tree does so only if it is also
    larger than `MAX_MEAN_GROUPS` mean groups, so that a corpus of few trees can be split.

    Args:
        conversations: columns of `tables.CONVERSATIONS`.
        recipe: `split` and `seed` are used.
        groups: `row, group` of all conversations.
    """
    share, rows, _ = recipe.held_out
    narrow = conversations.select(
        "row", "tree_id"
    )  # a join of all columns would copy what it holds of each conversation
    grouped = narrow.join(groups, on="row", how="left", maintain_order="left")
    tree = pl.col("tree_id")
    summary = grouped.group_by("group", maintain_order=True).agg(tree.min(), size=pl.len(), trees=tree.n_unique())
    hashes = seeded_hashes(summary["tree_id"], recipe.seed ^ _SPLIT_SALT)
    size = summary["size"].to_numpy()
    many_trees = summary["trees"].to_numpy() > 1
    over_share = size > MAX_GROUP_SHARE * len(conversations)
    too_large = over_share & (many_trees | (size * len(size) > MAX_MEAN_GROUPS * len(conversations)))
    if share is not None:
        in_test = hashes < np.uint64(int(share * 2**64))
    else:
        capped_size = np.where(too_large, len(conversations), size)
        in_test = _fill_rows(capped_size, np.argsort(hashes, kind="stable"), rows or 0)
    test_groups = summary["group"].filter(pl.Series(in_test & ~too_large, dtype=pl.Boolean))
    is_test = grouped["group"].is_in(test_groups.implode())
    notes = [
        f"A {'group of near-duplicates' if several else 'tree'} with {plural(count, 'conversation')} is over "
        f"{MAX_GROUP_SHARE:.0%} of all: it is in train."
        for count, several in zip(size[too_large].tolist(), many_trees[too_large].tolist(), strict=True)
    ]
    planned = int(is_test.sum())
    if rows and planned < rows:
        notes.append(
            f"--split {recipe.split}: test has {plural(planned, 'row')}, because trees and near-duplicates stay "
            "together."
        )
    return Sides(is_test, planned, notes)


def divide(conversations: pl.DataFrame, is_test: pl.Series) -> dict[str, pl.DataFrame]:
    """Return `train` and `test` as selected by a mask."""
    return {TRAIN: conversations.filter(~is_test), TEST: conversations.filter(is_test)}


def _fill_rows(size: np.ndarray, order: np.ndarray, rows: int) -> np.ndarray:
    """Return a mask of the groups chosen in `order` so that they have at most `rows` rows; groups that do not fit are skipped.

    This is a loop, because each step depends on the ones before; it ends when the rows are full.
    """
    chosen, free = np.zeros(len(size), dtype=bool), rows
    for group in order.tolist():
        if size[group] <= free:
            chosen[group] = True
            free -= int(size[group])
        if not free:
            break
    return chosen


def _without_leaking_groups(
    conversations: pl.DataFrame, is_test: pl.Series, groups: pl.DataFrame, leaking_ids: pl.Series
) -> pl.Series:
    """Return `is_test` without the groups of the leaking test conversations."""
    row = conversations["row"]
    leaking_rows = row.filter(is_test & conversations["id"].is_in(leaking_ids.implode()))
    leaking_groups = groups.filter(groups["row"].is_in(leaking_rows.implode()))["group"]
    moved_rows = groups.filter(groups["group"].is_in(leaking_groups.implode()))["row"]
    return is_test & ~row.is_in(moved_rows.implode())
