"""What must not be torn apart by a split, and the proof that nothing was."""

from __future__ import annotations

import numpy as np
import polars as pl

from dataprep.dedup.buffers import blocks, offsets_of
from dataprep.dedup.corpus import Corpus, best_first, half_of_memory
from dataprep.dedup.jaccard import prove
from dataprep.dedup.normal_form import content_bytes
from dataprep.dedup.prefix_filter import firsts, rarity
from dataprep.dedup.recall import Budget, budget, plant
from dataprep.dedup.survivors import components, settle

LEAK_THRESHOLD = 0.7  # similarity from which two conversations must lie on one side
INSTEAD = "build without --split"
INDEXED = 8  # bytes of memory that a byte of a test conversation may take in the index


def similar_groups(
    conversations: pl.DataFrame, threshold: float = LEAK_THRESHOLD, max_memory: int | None = None
) -> tuple[pl.DataFrame, Budget]:
    """row, group: conversations that must stay on one side of a split have the same `group` (a `row` of theirs).

    Connected are the threads of a tree, and conversations that are proven alike at `threshold`.

    Args:
        conversations: CONVERSATIONS.
        max_memory: bytes above the text itself (default: half of what the machine has).

    Returns:
        groups, and what the search for them finds of planted copies.

    Raises:
        RecipeError: `max_memory` is too little.
    """
    corpus = Corpus(best_first(conversations), "thread", max_memory or half_of_memory(), INSTEAD)
    count, tree = len(corpus.ranked), corpus.ranked["tree_id"]
    made = corpus.sketches()
    _, alike, _ = settle(corpus, made, threshold)
    places = corpus.ranked.select(at=pl.int_range(pl.len()), tree=tree)
    eldest = pl.when(pl.col("tree").is_null()).then("at").otherwise(pl.col("at").min().over("tree"))
    eldest_of = places.select(eldest).to_series().to_numpy()
    group = components(count, np.append(alike.left, eldest_of), np.append(alike.right, np.arange(count)))
    rows = corpus.ranked["row"]
    planted = budget(plant(count, corpus.documents), made, corpus.documents, threshold)
    return pl.DataFrame({"row": rows, "group": rows.gather(group)}), planted


def find_leaks(
    train: pl.DataFrame, test: pl.DataFrame, threshold: float = LEAK_THRESHOLD, max_memory: int | None = None
) -> pl.DataFrame:
    """test, train (ids), similarity: all pairs of a test and a train conversation with this Jaccard similarity or more.

    Exact, without sketches: train is looked up in an index of the first grams of the test conversations (`rare`), as many
    of them at a time as there is memory for, and all that can be alike is compared.

    Args:
        train, test: CONVERSATIONS.
        threshold: above 0, up to 1.
        max_memory: bytes above the text itself (default: half of what the machine has).

    Raises:
        RecipeError: `max_memory` is too little.
    """
    both = Corpus(pl.concat([test, train]), "thread", max_memory or half_of_memory(), INSTEAD)
    ids, trains = both.ranked["id"], np.arange(len(test), len(both.ranked))
    common = rarity(both.documents, np.arange(len(both.ranked)))
    found = [pl.DataFrame(schema={"test": pl.String, "train": pl.String, "similarity": pl.Float64})]
    for start, stop in blocks(offsets_of(content_bytes(test)), max(both.room // INDEXED, both.batch)):
        index = both.new_index(threshold)
        for batch in both.batches(np.arange(start, stop)):
            index.add(firsts(both.documents(batch), batch, common, threshold))
        for batch in both.batches(trains):
            left, right = index.pairs(firsts(both.documents(batch), batch, common, threshold))
            alike = prove(both.ranked, both.on, left, right, 2 * both.batch)
            pairs = pl.DataFrame({"test": ids.gather(left), "train": ids.gather(right), "similarity": alike})
            found.append(pairs.filter(pl.col("similarity") >= threshold))
    return pl.concat(found).sort("test", "train")
