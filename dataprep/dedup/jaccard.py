"""Verify candidate pairs: compute their exact Jaccard similarity on the sets of their word 5-grams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.buffers import BATCH_BYTES, Offsets, offsets_from_sizes, on_threads, sorted_numbers
from dataprep.dedup.ngrams import JACCARD_WORDS, NGrams, document_ngrams
from dataprep.dedup.normal_form import RowIndices

Similarities = npt.NDArray[np.float64]

PAIRS = 1 << 12  # pairs whose sets are merged at a time
MARKING_PAIRS = 4  # pairs with the same left document from which marking its members beats merging for each pair


class Sets(NamedTuple):
    """A set of numbers for each document: document `i` has `members[offsets[i]:offsets[i + 1]]`, ascending."""

    members: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]

    def of(self, documents: RowIndices) -> tuple[RowIndices, npt.NDArray[np.uint32]]:
        """Return the sets of these documents one after the other: index into `documents`, and member."""
        sizes = np.diff(self.offsets)[documents]
        owner = np.repeat(np.arange(len(documents)), sizes)
        within = np.arange(len(owner)) - offsets_from_sizes(sizes)[owner]
        return owner, self.members[self.offsets[documents][owner] + within]


def jaccard(documents: pl.Series, left: RowIndices, right: RowIndices, words: int = JACCARD_WORDS) -> Similarities:
    """Return |A & B| / |A | B| of the n-grams of documents `left[i]` and `right[i]`; 0 if neither has a visible character.

    Args:
        documents: texts that end with a line feed (see `normal_form.documents`).
        left, right: rows of `documents`.
    """
    # Equal texts share one set, so that a text that occurs 20,000 times is processed once.
    numbered = documents.alias("text").to_frame().with_row_index("row")
    first_row = numbered.select(pl.col("row").min().over("text")).to_series().to_numpy()
    distinct, set_of = np.unique(first_row, return_inverse=True)
    sets = ngram_sets(document_ngrams(documents.gather(distinct), words), len(distinct))
    return set_similarities(sets, set_of[left], set_of[right])


def pair_similarities(
    documents_at: Callable[[RowIndices], pl.Series],
    sizes: npt.NDArray[np.int64],
    left: RowIndices,
    right: RowIndices,
    size: int = BATCH_BYTES,
) -> Similarities:
    """Return `jaccard` of pairs of documents, on threads that process about `size` bytes of text at a time in all.

    Pairs are taken in the order of `right`. In stars, where many documents are on the right and few on the left, each
    document is then read once.

    Args:
        documents_at: returns the texts of documents.
        sizes: [documents] bytes of each.
        left, right: documents.
    """
    similarities, order = np.zeros(len(left)), np.argsort(right, kind="stable")

    def verify(chosen: RowIndices) -> None:
        rows, pairs = np.unique(np.stack([left[chosen], right[chosen]]), return_inverse=True)
        similarities[chosen] = jaccard(documents_at(rows), *pairs.reshape(2, -1))

    on_threads(verify, _batches(left[order], right[order], sizes, order, size // pl.thread_pool_size()))
    return similarities


def set_similarities(sets: Sets, left: RowIndices, right: RowIndices) -> Similarities:
    """Return the Jaccard similarity of the sets `left[i]` and `right[i]`."""
    shared, sizes = np.zeros(len(left), np.int64), np.diff(sets.offsets)
    order = np.argsort(left, kind="stable")
    has_many = np.bincount(left)[left[order]] >= MARKING_PAIRS
    merged = order[~has_many]
    for chosen in (merged[i : i + PAIRS] for i in range(0, len(merged), PAIRS)):
        shared[chosen] = _common_members(sets, left[chosen], right[chosen])
    by_left = order[has_many]
    marked = np.zeros(int(sets.members.max(initial=0)) + 1, bool)
    for pairs in np.split(by_left, np.flatnonzero(np.diff(left[by_left])) + 1) if len(by_left) else ():
        members = sets.of(left[pairs[:1]])[1]
        marked[members] = True
        for chosen in (pairs[i : i + PAIRS] for i in range(0, len(pairs), PAIRS)):
            pair, member = sets.of(right[chosen])
            shared[chosen] = np.bincount(pair[marked[member]], minlength=len(chosen))
        marked[members] = False
    similarities: Similarities = shared / np.maximum(sizes[left] + sizes[right] - shared, 1)
    return similarities


def ngram_sets(ngrams: NGrams, count: int) -> Sets:
    """Return the n-grams of `count` documents as sets of dense numbers (0 for the smallest hash, …)."""
    number = pl.Series(ngrams.hash).rank("dense").to_numpy().astype(np.uint64) - np.uint64(1)
    keys = sorted_numbers(ngrams.document.astype(np.uint64) << np.uint64(32) | number)
    keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
    sizes = np.bincount((keys >> np.uint64(32)).astype(np.intp), minlength=count)
    return Sets(keys.astype(np.uint32), offsets_from_sizes(sizes))


def _batches(
    left: RowIndices, right: RowIndices, sizes: Offsets, order: RowIndices, limit: int
) -> Iterator[RowIndices]:
    """Divide `order`, the order in which `left` and `right` are given, into runs with at most `limit` bytes of text."""
    start = 0
    while start < len(left):
        stop = _last_fitting(left, right, sizes, start, limit)
        yield order[start:stop]
        start = stop


def _last_fitting(left: RowIndices, right: RowIndices, sizes: Offsets, start: int, limit: int) -> int:
    """Return where to stop, so that the distinct texts of the pairs from `start` on have at most `limit` bytes."""
    stop = len(left)
    while stop > start + 1:
        needed = sizes[np.unique(np.concatenate([left[start:stop], right[start:stop]]))].sum()
        if needed <= limit:
            break
        stop = start + max(1, int((stop - start) * min(0.8, limit / needed)))
    return stop


def _common_members(sets: Sets, left: RowIndices, right: RowIndices) -> npt.NDArray[np.int64]:
    """Return how many members the sets `left[i]` and `right[i]` have in common."""
    keys = []
    for side in (left, right):
        pair, member = sets.of(side)
        keys.append(pair.astype(np.uint64) << np.uint64(32) | member)
    both = np.sort(np.concatenate(keys), kind="stable")  # two sorted runs: one merge
    shared = both[1:][both[1:] == both[:-1]] >> np.uint64(32)
    return np.bincount(shared.astype(np.intp), minlength=len(left))
