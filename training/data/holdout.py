"""Which rows of a build are trained and which are held out for the held-out loss."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.text import plural
from dataprep.contract import Build

TREE_SHARE = 0.05  # share of the trees that is held out if the build has no test split
MAX_TREES = 64


@dataclass(frozen=True)
class Division:
    """Tables of SHARD_SCHEMA for training and testing, and the number of rows that are in neither."""

    train: pa.Table
    test: pa.Table | None
    not_used: int
    notes: list[str] = field(default_factory=list)


def divide(build: Build, *, held_out: int, seed: int) -> Division:
    """Choose at most `held_out` rows to hold out: from the test split or, without one, whole trees of the train split."""
    train = build.splits["train"]
    other_rows = sum(table.num_rows for name, table in build.splits.items() if name != "train")
    if held_out == 0:
        return Division(train, None, other_rows)
    test = build.splits.get("test")
    if test is not None and test.num_rows:
        rows = np.random.default_rng(seed).permutation(test.num_rows)[:held_out]
        return Division(train, test.take(np.sort(rows)), other_rows - len(rows))
    chosen, trees = _choose_trees(train["tree_id"], held_out, seed)
    if not chosen:
        none = f"none of its {plural(trees, 'tree')} could be held out"
        note = f"The build has no test split, and {none}, so there is no held-out loss."
        return Division(train, None, other_rows, [note])
    mask = pc.is_in(train["tree_id"], value_set=pa.array(chosen))
    note = f"The build has no test split: {len(chosen):,} of its {plural(trees, 'tree')} (seed {seed}) held out from training."
    return Division(train.filter(pc.invert(mask)), train.filter(mask), other_rows, [note])


def _choose_trees(tree_ids: pa.ChunkedArray, held_out: int, seed: int) -> tuple[list[str], int]:
    """Draw whole trees with at most `held_out` rows together; also returns the number of all trees.

    A drawn tree with more rows than remain of `held_out` stays in training.
    """
    counts = pc.value_counts(tree_ids).sort("ascending", by="values")  # the order of rows does not change the choice
    names, sizes = counts.field("values").to_pylist(), counts.field("counts").to_pylist()
    drawn = np.random.default_rng(seed).permutation(len(names))
    limit = min(MAX_TREES, max(1, round(TREE_SHARE * len(names))), len(names) - 1)
    chosen: list[str] = []
    remaining = held_out
    for index in drawn[:limit].tolist():
        if sizes[index] <= remaining:
            chosen.append(names[index])
            remaining -= sizes[index]
    return sorted(chosen), len(names)
