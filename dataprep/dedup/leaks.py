"""What must not be torn apart by a split, and the proof that nothing was."""

from __future__ import annotations

import numpy as np
import polars as pl

from dataprep.dedup.buffers import BATCH, blocks, offsets_of
from dataprep.dedup.candidates import star_pairs
from dataprep.dedup.clusters import components
from dataprep.dedup.grams import Grams, grams
from dataprep.dedup.near import Corpus, best_first, half_of_memory
from dataprep.dedup.normal import On, Rows, content_bytes, documents
from dataprep.dedup.proof import prove

LEAK = 0.7  # similarity from which two conversations must lie on one side


def alike_groups(
    conversations: pl.DataFrame, threshold: float = LEAK, on: On = "thread", max_memory: int | None = None
) -> pl.DataFrame:
    """row, group: conversations that must stay on one side of a split have the same `group` (a `row` of theirs).

    Connected are the threads of a tree, and conversations that are proven alike at `threshold`.

    Args:
        conversations: CONVERSATIONS.

    Raises:
        RecipeError: `max_memory` is too little.
    """
    corpus = Corpus(best_first(conversations), on, max_memory or half_of_memory())
    count, tree = len(corpus.ranked), corpus.ranked["tree_id"]
    made = corpus.sketches()
    left, right = star_pairs(made.keys, np.arange(count))
    worth = made.promising(left, right, threshold)
    left, right = left[worth], right[worth]
    alike = corpus.prove(left, right) >= threshold
    places = corpus.ranked.select(at=pl.int_range(pl.len()), tree=tree)
    eldest = pl.when(pl.col("tree").is_null()).then("at").otherwise(pl.col("at").min().over("tree"))
    eldest_of = places.select(eldest).to_series().to_numpy()
    group = components(count, np.append(left[alike], eldest_of), np.append(right[alike], np.arange(count)))
    rows = corpus.ranked["row"]
    return pl.DataFrame({"row": rows, "group": rows.gather(group)})


def find_leaks(train: pl.DataFrame, test: pl.DataFrame, threshold: float = LEAK, on: On = "thread") -> pl.DataFrame:
    """test, train (ids), similarity: all pairs of a test and a train conversation with this Jaccard similarity or more.

    Exact, without sketches: train is looked up in an index of the rarest 5-grams of each test conversation (`_rarest`),
    and all that is hit is compared.

    Args:
        train, test: CONVERSATIONS.
        threshold: above 0, up to 1.
    """
    index = _rarest(grams(documents(test, on)), threshold)
    found = [pl.DataFrame(schema={"test": pl.String, "train": pl.String, "similarity": pl.Float64})]
    for start, stop in blocks(offsets_of(content_bytes(train)), BATCH):
        batch = train[start:stop]
        left, right = _hits(index, grams(documents(batch, on), among=index["gram"].to_numpy()))
        alike = prove(pl.concat([test, batch]), on, left, right + len(test))
        pairs = pl.DataFrame({"test": test["id"].gather(left), "train": batch["id"].gather(right), "similarity": alike})
        found.append(pairs.filter(pl.col("similarity") >= threshold))
    return pl.concat(found).sort("test", "train")


def _rarest(all_grams: Grams, threshold: float) -> pl.DataFrame:
    """document, gram: of a document with n different grams, the n - ceil(t n) + 1 rarest.

    A document with which it shares at least t n of them has one of these (prefix filtering: Chaudhuri, Ganti, Kaushik,
    "A Primitive Operator for Similarity Joins", 2006). Rare ones first, so that templates do not hit everything.
    """
    sets = pl.DataFrame({"document": all_grams.document, "gram": all_grams.gram}).unique()
    n, rank = pl.len().over("document"), pl.int_range(pl.len()).over("document")
    # Rounded up only where n t is not whole but for the error of floating point: one gram more does no harm.
    prefix = n - (n * threshold - 1e-9).ceil() + 1
    ranked = sets.with_columns(occurs=pl.len().over("gram")).sort("document", "occurs", "gram")
    return ranked.filter(rank < prefix).select("document", "gram").sort("gram", "document")


def _hits(index: pl.DataFrame, found: Grams) -> tuple[Rows, Rows]:
    """Pairs (document of the index, document of `found`) that share a gram, each once, in order."""
    train = pl.DataFrame({"train": found.document, "gram": found.gram}).unique()
    pairs = index.join(train, on="gram").select("document", "train").unique().sort("document", "train")
    return pairs["document"].to_numpy().astype(np.intp), pairs["train"].to_numpy().astype(np.intp)
