"""What must not be torn apart by a split, and the proof that nothing was."""

from __future__ import annotations

import numpy as np
import polars as pl

from dataprep.dedup.clusters import components, settle
from dataprep.dedup.corpus import Corpus, best_first, half_of_memory
from dataprep.dedup.proof import prove
from dataprep.dedup.rare import Index, firsts, rarity

LEAK = 0.7  # similarity from which two conversations must lie on one side


def alike_groups(conversations: pl.DataFrame, threshold: float = LEAK, max_memory: int | None = None) -> pl.DataFrame:
    """row, group: conversations that must stay on one side of a split have the same `group` (a `row` of theirs).

    Connected are the threads of a tree, and conversations that are proven alike at `threshold`.

    Args:
        conversations: CONVERSATIONS.

    Raises:
        RecipeError: `max_memory` is too little.
    """
    corpus = Corpus(best_first(conversations), "thread", max_memory or half_of_memory())
    count, tree = len(corpus.ranked), corpus.ranked["tree_id"]
    made = corpus.sketches()
    _, alike, _ = settle(corpus, made, threshold)
    places = corpus.ranked.select(at=pl.int_range(pl.len()), tree=tree)
    eldest = pl.when(pl.col("tree").is_null()).then("at").otherwise(pl.col("at").min().over("tree"))
    eldest_of = places.select(eldest).to_series().to_numpy()
    group = components(count, np.append(alike.left, eldest_of), np.append(alike.right, np.arange(count)))
    rows = corpus.ranked["row"]
    return pl.DataFrame({"row": rows, "group": rows.gather(group)})


def find_leaks(train: pl.DataFrame, test: pl.DataFrame, threshold: float = LEAK) -> pl.DataFrame:
    """test, train (ids), similarity: all pairs of a test and a train conversation with this Jaccard similarity or more.

    Exact, without sketches: train is looked up in an index of the first grams of each test conversation (`rare`), and
    all that can be alike is compared.

    Args:
        train, test: CONVERSATIONS.
        threshold: above 0, up to 1.
    """
    both, index = Corpus(pl.concat([test, train]), "thread", 0), Index(threshold)
    tests, trains = np.arange(len(test)), np.arange(len(test), len(test) + len(train))
    common = rarity(both.documents, np.append(tests, trains))
    for batch in both.batches(tests):
        index.add(firsts(both.documents(batch), batch, common, threshold))
    found = [pl.DataFrame(schema={"test": pl.String, "train": pl.String, "similarity": pl.Float64})]
    for batch in both.batches(trains):
        left, right = index.pairs(firsts(both.documents(batch), batch, common, threshold))
        alike = prove(both.ranked, both.on, left, right)
        ids = both.ranked["id"]
        pairs = pl.DataFrame({"test": ids.gather(left), "train": ids.gather(right), "similarity": alike})
        found.append(pairs.filter(pl.col("similarity") >= threshold))
    return pl.concat(found).sort("test", "train")
