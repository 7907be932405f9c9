"""Group conversations that a split must keep together, and find the pairs that a split tore apart."""

from __future__ import annotations

import numpy as np
import polars as pl

from dataprep.dedup.buffers import offsets_from_sizes, ranges_of_size
from dataprep.dedup.components import connected_components
from dataprep.dedup.corpus import Corpus, SketchCache, best_first, half_of_memory
from dataprep.dedup.jaccard import pair_similarities
from dataprep.dedup.minhash import Sketches
from dataprep.dedup.normal_form import content_bytes
from dataprep.dedup.prefix_filter import frequency_levels, prefix_grams
from dataprep.dedup.recall import RecallEstimate, estimate_recall
from dataprep.dedup.survivors import SimilarPairs, choose_survivors, verify_pairs

LEAK_THRESHOLD = 0.7  # similarity from which two conversations must be on the same side
ALTERNATIVE = "build without --split"
INDEX_FACTOR = 8  # bytes of memory that the index may take per byte of a test conversation


def similar_groups(
    conversations: pl.DataFrame,
    threshold: float = LEAK_THRESHOLD,
    max_memory: int | None = None,
    cache: SketchCache | None = None,
) -> tuple[pl.DataFrame, RecallEstimate]:
    """Group the conversations that must stay on one side of a split.

    Threads of one tree are connected, and so are conversations with a similarity of `threshold` or more.

    Args:
        conversations: CONVERSATIONS.
        max_memory: bytes above the text itself (default: half of the machine's memory).
        cache: sketches of these conversations, if near-duplicate removal has made them.

    Returns:
        (`row, group` of each conversation, where `group` is the `row` of one member; the measured recall).

    Raises:
        RecipeError: `max_memory` is too little.
    """
    corpus = Corpus(best_first(conversations), "thread", max_memory or half_of_memory(), ALTERNATIVE)
    count = len(corpus.ranked)
    sketches = corpus.sketches(cache)
    similar = _linking_pairs(corpus, sketches, threshold)
    places = corpus.ranked.select(at=pl.int_range(pl.len()), tree=pl.col("tree_id"))
    first_of_tree = pl.when(pl.col("tree").is_null()).then("at").otherwise(pl.col("at").min().over("tree"))
    tree_edges = places.select(first_of_tree).to_series().to_numpy()
    group = connected_components(count, np.append(similar.left, tree_edges), np.append(similar.right, np.arange(count)))
    rows = corpus.ranked["row"]
    recall = estimate_recall(count, sketches, corpus.documents, threshold)
    return pl.DataFrame({"row": rows, "group": rows.gather(group)}), recall


def _linking_pairs(corpus: Corpus, sketches: Sketches, threshold: float) -> SimilarPairs:
    """Return similar pairs that link the documents of each group.

    A dropped document is linked with a survivor. The candidate pairs that the search for survivors skipped can link it with
    another group as well; two survivors are known not to be similar.
    """
    search = choose_survivors(corpus, sketches, threshold)
    group = connected_components(len(corpus.ranked), search.similar.left, search.similar.right)
    left, right = search.skipped
    is_dropped = search.survivors.survivor >= 0
    links = (is_dropped[left] | is_dropped[right]) & (group[left] != group[right])
    return search.similar.concatenated(verify_pairs(corpus, left[links], right[links], threshold))


def find_leaks(
    train: pl.DataFrame, test: pl.DataFrame, threshold: float = LEAK_THRESHOLD, max_memory: int | None = None
) -> pl.DataFrame:
    """Find all pairs of a test and a train conversation with a Jaccard similarity of `threshold` or more.

    The search is exact and uses no sketches: train is looked up in a prefix index of the test conversations, as many of
    them at a time as fit into memory, and all pairs that can be similar are verified.

    Args:
        train, test: CONVERSATIONS.
        threshold: above 0, up to 1.
        max_memory: bytes above the text itself (default: half of the machine's memory).

    Returns:
        `test`, `train` (ids) and `similarity`, sorted by the ids.

    Raises:
        RecipeError: `max_memory` is too little.
    """
    both = Corpus(pl.concat([test, train]), "thread", max_memory or half_of_memory(), ALTERNATIVE)
    ids, train_rows = both.ranked["id"], np.arange(len(test), len(both.ranked))
    levels = frequency_levels(both.documents, np.arange(len(both.ranked)))
    leaks = [pl.DataFrame(schema={"test": pl.String, "train": pl.String, "similarity": pl.Float64})]
    index_bytes = max(both.free_memory // INDEX_FACTOR, both.batch_bytes)
    for start, stop in ranges_of_size(offsets_from_sizes(content_bytes(test)), index_bytes):
        index = both.new_index(threshold)
        for batch in both.batches(np.arange(start, stop)):
            index.add(prefix_grams(both.documents(batch), batch, levels, threshold))
        for batch in both.batches(train_rows):
            left, right = index.pairs(prefix_grams(both.documents(batch), batch, levels, threshold))
            similarity = pair_similarities(both.ranked, both.compared, left, right, 2 * both.batch_bytes)
            pairs = pl.DataFrame({"test": ids.gather(left), "train": ids.gather(right), "similarity": similarity})
            leaks.append(pairs.filter(pl.col("similarity") >= threshold))
    return pl.concat(leaks).sort("test", "train")
