"""Draw a reproducible sample of the conversations."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import polars as pl
import xxhash

from dataprep.common.text import plural
from dataprep.recipe import Recipe
from dataprep.tables import NOT_SAMPLED, StageResult, fated

STAGE = "select"


def sample(conversations: pl.DataFrame, recipe: Recipe, read_count: int) -> StageResult[None]:
    """Draw a seeded sample of `recipe.sample` conversations (all of them if no sample is asked for or fewer are left).

    * `nested`: those with the smallest seeded hashes of their ids, in input order. Nothing else matters, so a sample of
      1,000 is part of a sample of 2,000, and its members remain in it when unrelated data is added.
    * `shuffle`: walks NumPy's `default_rng(seed).permutation(read_count)` over the conversations as read and takes the
      first ones that were not dropped, in that order; equals `datasets.shuffle(seed=seed).select(range(N))`.

    Args:
        conversations: columns of `tables.CONVERSATIONS`; `row` is the position among all that were read.
        recipe: `sample`, `sample_method` and `seed` are used.
        read_count: number of conversations read, before any was dropped.

    Returns:
        the sample, the fates of the rest, and a note if fewer conversations are left than were asked for.
    """
    if recipe.sample is None:
        return StageResult(conversations)
    if recipe.sample_method == "shuffle":
        position = np.empty(read_count, dtype=np.int64)
        position[np.random.default_rng(recipe.seed).permutation(read_count)] = np.arange(read_count)
        order = np.argsort(position[conversations["row"].to_numpy()])
        chosen, rest = order[: recipe.sample], np.sort(order[recipe.sample :])
    else:
        order = np.argsort(seeded_hashes(conversations["id"], recipe.seed), kind="stable")
        chosen, rest = np.sort(order[: recipe.sample]), np.sort(order[recipe.sample :])
    notes = []
    if len(chosen) < recipe.sample:
        notes.append(
            f"--sample {recipe.sample} asks for more than is left: {plural(len(chosen), 'row')}, all of them kept."
        )
    fates = fated(conversations[rest], "conversation", NOT_SAMPLED, STAGE, NOT_SAMPLED)
    return StageResult(conversations[chosen], fates, notes)


def seeded_hashes(ids: Iterable[str], seed: int) -> np.ndarray:
    """Return the XXH3-64 hash of each id under `seed`: uint64, the same on every machine.

    This is a Python loop, because no column library has a hash that is stable across versions; 0.2 s per million ids.
    """
    return np.array([xxhash.xxh3_64_intdigest(text.encode(), seed=seed) for text in ids], dtype=np.uint64)
