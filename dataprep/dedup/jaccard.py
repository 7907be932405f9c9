"""Verify candidate pairs: compute their exact Jaccard similarity on the sets of their word 5-grams."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.buffers import BATCH_BYTES, Offsets, offsets_from_sizes, on_threads, sorted_unique
from dataprep.dedup.ngrams import JACCARD_WORDS, Hashes, ngrams_of, words_of
from dataprep.dedup.normal_form import NormalisedBlock, RowIndices, for_each_normalised_block

Similarities = npt.NDArray[np.float64]

# The number of a document or of a pair (12 bits) and 52 bits of a hash are packed into one number, so that sorting is one
# sort of numbers. Two different n-grams of a pair of texts with 300 words collide with a probability of 2 in 10^11.
NUMBER_BITS = np.uint64(12)
HASH_MASK = np.uint64((1 << 52) - 1)
PAIRS = 1 << 9  # pairs whose sets are merged at a time, in the caches; at most as many as NUMBER_BITS can number
STAR_PAIRS = 8  # pairs with the same left document from which its set is searched instead of merged with each
BATCH_PAIRS = 1 << 14  # pairs whose texts are read at a time


class Sets(NamedTuple):
    """A set of numbers for each document: document `i` has the `size[i]` members from `start[i]` on, ascending."""

    member: Hashes  # below 2^52
    start: RowIndices
    size: RowIndices

    def of(self, documents: RowIndices) -> tuple[RowIndices, Hashes]:
        """Return the sets of these documents one after the other: index into `documents`, and member."""
        sizes = self.size[documents]
        owner = np.repeat(np.arange(len(documents)), sizes)
        within = np.arange(len(owner)) - offsets_from_sizes(sizes)[owner]
        return owner, self.member[self.start[documents][owner] + within]


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
    sets = ngram_sets(documents.gather(distinct), words)
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
    shared, order = np.zeros(len(left), np.int64), np.argsort(left, kind="stable")
    in_star = np.bincount(left)[left[order]] >= STAR_PAIRS
    for chosen in _steps(order[~in_star]):
        shared[chosen] = _common_members(sets, left[chosen], right[chosen])
    stars = order[in_star]
    for pairs in np.split(stars, np.flatnonzero(np.diff(left[stars])) + 1):
        for chosen in _steps(pairs):
            shared[chosen] = _members_shared_with(sets, left[chosen[0]], right[chosen])
    similarities: Similarities = shared / np.maximum(sets.size[left] + sets.size[right] - shared, 1)
    return similarities


def ngram_sets(documents: pl.Series, words: int = JACCARD_WORDS) -> Sets:
    """Return the set of n-grams of each document, by 52 bits of their hashes."""
    parts, sizes = list[tuple[RowIndices, Hashes]](), np.zeros(len(documents), np.intp)

    def process(block: NormalisedBlock) -> None:
        ngrams = ngrams_of(words_of(block.texts), words)
        keys = sorted_unique(ngrams.document.astype(np.uint64) << np.uint64(52) | ngrams.hash >> NUMBER_BITS)
        sizes[block.rows] = np.bincount((keys >> np.uint64(52)).astype(np.intp), minlength=len(block.rows))
        parts.append((block.rows, keys & HASH_MASK))

    for_each_normalised_block(documents, process)
    # blocks arrive in the order of threads
    rows = np.concatenate([np.zeros(0, np.intp), *(rows for rows, _ in parts)])
    start = np.zeros(len(documents), np.intp)
    start[rows] = offsets_from_sizes(sizes[rows])[:-1]
    return Sets(np.concatenate([np.zeros(0, np.uint64), *(members for _, members in parts)]), start, sizes)


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
    stop = min(len(left), start + BATCH_PAIRS)
    while stop > start + 1:
        needed = sizes[np.unique(np.concatenate([left[start:stop], right[start:stop]]))].sum()
        if needed <= limit:
            break
        stop = start + max(1, int((stop - start) * min(0.8, limit / needed)))
    return stop


def _steps(pairs: RowIndices) -> Iterator[RowIndices]:
    """Divide pairs into steps of at most `PAIRS`."""
    return (pairs[start : start + PAIRS] for start in range(0, len(pairs), PAIRS))


def _members_shared_with(sets: Sets, document: int, others: RowIndices) -> npt.NDArray[np.int64]:
    """Return how many members the set of each of `others` has in common with that of `document`."""
    members = sets.member[sets.start[document] :][: sets.size[document]]
    members = np.append(members, HASH_MASK + np.uint64(1))  # above all others, so that every search ends at a member
    other, member = sets.of(others)
    return np.bincount(other[members[np.searchsorted(members, member)] == member], minlength=len(others))


def _common_members(sets: Sets, left: RowIndices, right: RowIndices) -> npt.NDArray[np.int64]:
    """Return how many members the sets `left[i]` and `right[i]` have in common."""
    keys = []
    for side in (left, right):
        pair, member = sets.of(side)
        keys.append(pair.astype(np.uint64) << np.uint64(52) | member)
    both = np.sort(np.concatenate(keys), kind="stable")  # two sorted runs: one merge
    shared = both[1:][both[1:] == both[:-1]] >> np.uint64(52)
    return np.bincount(shared.astype(np.intp), minlength=len(left))
