"""Group conversations that a split must keep together, and find the pairs that a split tore apart."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.buffers import offsets_from_sizes, ranges_of_size
from dataprep.dedup.components import connected_components
from dataprep.dedup.corpus import Corpus, best_first, half_of_memory
from dataprep.dedup.document_sketches import DocumentSketches
from dataprep.dedup.fingerprints import FingerprintTable
from dataprep.dedup.normal_form import RowIndices
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
    table: FingerprintTable | None = None,
) -> tuple[pl.DataFrame, RecallEstimate]:
    """Group the conversations that must stay on one side of a split.

    Threads of one tree are connected, and so are conversations with a similarity of `threshold` or more.

    Args:
        conversations: CONVERSATIONS.
        max_memory: bytes above the text itself (default: half of the machine's memory).
        table: fingerprints of these conversations, if they are known.

    Returns:
        (`row, group` of each conversation, where `group` is the `row` of one member; the measured recall).

    Raises:
        RecipeError: `max_memory` is too little.
    """
    table = FingerprintTable.of(conversations, "thread", table)
    corpus = _numbered(conversations, table, max_memory, best_first(conversations, _sizes(conversations, table)))
    sketches = table.sketches(corpus.rows)
    similar = _linking_pairs(corpus, sketches, threshold)
    trees = conversations.select(tree="tree_id")[corpus.order].with_row_index("at")
    first_of_tree = pl.when(pl.col("tree").is_null()).then("at").otherwise(pl.col("at").min().over("tree"))
    tree_edges = trees.select(first_of_tree).to_series().to_numpy().astype(np.intp)
    group = connected_components(
        corpus.count, np.append(similar.left, tree_edges), np.append(similar.right, np.arange(corpus.count))
    )
    recall = estimate_recall(corpus.count, sketches, corpus.documents, threshold)
    return pl.DataFrame({"row": corpus.rows, "group": corpus.rows[group]}), recall


def _sizes(conversations: pl.DataFrame, table: FingerprintTable) -> npt.NDArray[np.int64]:
    """Return the bytes of the texts of each conversation."""
    return table.fingerprints.size[table.places(conversations["row"].to_numpy())]


def _numbered(
    conversations: pl.DataFrame, table: FingerprintTable, max_memory: int | None, order: RowIndices
) -> Corpus:
    """Number the conversations in this order.

    Raises:
        RecipeError: `max_memory` is too little.
    """
    sizes = _sizes(conversations, table)[order]
    corpus = Corpus(conversations, order, sizes, "thread", max_memory or half_of_memory(), ALTERNATIVE)
    corpus.check_memory()
    return corpus


def _linking_pairs(corpus: Corpus, sketches: DocumentSketches, threshold: float) -> SimilarPairs:
    """Return similar pairs that link the documents of each group.

    A dropped document is linked with a survivor. The candidate pairs that the search for survivors skipped can link it with
    another group as well; two survivors are known not to be similar.
    """
    search = choose_survivors(corpus, sketches, threshold)
    group = connected_components(corpus.count, search.similar.left, search.similar.right)
    left, right = search.skipped
    is_dropped = search.survivors.survivor >= 0
    links = (is_dropped[left] | is_dropped[right]) & (group[left] != group[right])
    return search.similar.concatenated(verify_pairs(corpus, left[links], right[links], threshold))


def find_leaks(
    conversations: pl.DataFrame,
    is_test: pl.Series,
    threshold: float = LEAK_THRESHOLD,
    max_memory: int | None = None,
    table: FingerprintTable | None = None,
) -> pl.DataFrame:
    """Find all pairs of a test and a train conversation with a Jaccard similarity of `threshold` or more.

    The search is exact and uses no sketches: train is looked up in a prefix index of the test conversations, as many of
    them at a time as fit into memory, and all pairs that can be similar are verified.

    Args:
        conversations: CONVERSATIONS.
        is_test: which of them are in test; the others are in train.
        threshold: above 0, up to 1.
        max_memory: bytes above the text itself (default: half of the machine's memory).
        table: fingerprints of these conversations, if they are known.

    Returns:
        `test`, `train` (ids) and `similarity`, sorted by the ids.

    Raises:
        RecipeError: `max_memory` is too little.
    """
    table = FingerprintTable.of(conversations, None, table)
    in_test = is_test.to_numpy()
    test_first = np.append(np.flatnonzero(in_test), np.flatnonzero(~in_test))
    both, test_count = _numbered(conversations, table, max_memory, test_first), int(in_test.sum())
    ids, train_rows = conversations["id"], np.arange(test_count, both.count)
    levels = frequency_levels(both.documents, np.arange(both.count))
    leaks = [pl.DataFrame(schema={"test": pl.String, "train": pl.String, "similarity": pl.Float64})]
    index_bytes = max(both.free_memory // INDEX_FACTOR, both.batch_bytes)
    for start, stop in ranges_of_size(offsets_from_sizes(both.sizes[:test_count]), index_bytes):
        index = both.new_index(threshold)
        for batch in both.batches(np.arange(start, stop)):
            index.add(prefix_grams(both.documents(batch), batch, levels, threshold))
        for batch in both.batches(train_rows):
            left, right = index.pairs(prefix_grams(both.documents(batch), batch, levels, threshold))
            similarity = both.text_similarities(left, right)
            test_ids, train_ids = (ids.gather(both.order[side]) for side in (left, right))
            pairs = pl.DataFrame({"test": test_ids, "train": train_ids, "similarity": similarity})
            leaks.append(pairs.filter(pl.col("similarity") >= threshold))
    return pl.concat(leaks).sort("test", "train")
