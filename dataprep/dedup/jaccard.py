"""Exact Jaccard similarity of candidate pairs, on the sets of their word 5-grams."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.buffers import BATCH, Offsets, offsets_of
from dataprep.dedup.ngrams import PROOF_WORDS, Grams, grams
from dataprep.dedup.normal_form import On, Rows, content_bytes, documents

Similarities = npt.NDArray[np.float64]

PAIRS = 1 << 12  # pairs whose sets are merged at a time
OFTEN = (
    4  # pairs with the same left from which its members are marked once, which is faster than merging them each time
)


class Sets(NamedTuple):
    """A set of numbers for each document: of document `i`, `members[offsets[i]:offsets[i + 1]]`, ascending."""

    members: npt.NDArray[np.uint32]
    offsets: npt.NDArray[np.int64]

    def of(self, documents: Rows) -> tuple[Rows, npt.NDArray[np.uint32]]:
        """The sets of these documents one after the other: place in `documents`, and member."""
        sizes = np.diff(self.offsets)[documents]
        owner = np.repeat(np.arange(len(documents)), sizes)
        within = np.arange(len(owner)) - offsets_of(sizes)[owner]
        return owner, self.members[self.offsets[documents][owner] + within]


def jaccard(documents: pl.Series, left: Rows, right: Rows, words: int = PROOF_WORDS) -> Similarities:
    """|A & B| / |A | B| of the 5-grams of documents `left[i]` and `right[i]`; 0 where both have no visible character.

    Args:
        documents: texts that end with a line feed (`normal.documents`).
        left, right: places in `documents`.
    """
    # A text that is there 20,000 times is read once: each stands for its first.
    numbered = documents.alias("text").to_frame().with_row_index("at")
    first = numbered.select(pl.col("at").min().over("text")).to_series().to_numpy()
    firsts, of = np.unique(first, return_inverse=True)
    return similarity(gram_sets(grams(documents.gather(firsts), words), len(firsts)), of[left], of[right])


def prove(conversations: pl.DataFrame, on: On, left: Rows, right: Rows, size: int = 2 * BATCH) -> Similarities:
    """`jaccard` of conversations, as many pairs at a time as `size` bytes of different texts allow.

    Taken in the order of `right`: where these are many and on the left are few, as in stars, each is read once.
    """
    sizes, found, start = content_bytes(conversations), np.zeros(len(left)), 0
    order = np.argsort(right, kind="stable")
    ordered = left[order], right[order]
    while start < len(left):
        stop = _fitting(*ordered, sizes, start, size)
        some = order[start:stop]
        places, pairs = np.unique(np.stack([left[some], right[some]]), return_inverse=True)
        found[some] = jaccard(documents(conversations[places], on), *pairs.reshape(2, -1))
        start = stop
    return found


def _fitting(left: Rows, right: Rows, sizes: Offsets, start: int, most: int) -> int:
    """Where to stop, so that the different texts of the pairs from `start` on have at most `most` bytes."""
    stop = len(left)
    while stop > start + 1:
        held = sizes[np.unique(np.concatenate([left[start:stop], right[start:stop]]))].sum()
        if held <= most:
            break
        stop = start + max(1, int((stop - start) * min(0.8, most / held)))
    return stop


def similarity(sets: Sets, left: Rows, right: Rows) -> Similarities:
    """Jaccard similarity of the sets `left[i]` and `right[i]`."""
    shared, sizes = np.zeros(len(left), np.int64), np.diff(sets.offsets)
    order = np.argsort(left, kind="stable")
    often = np.bincount(left)[left[order]] >= OFTEN
    few = order[~often]
    for some in (few[i : i + PAIRS] for i in range(0, len(few), PAIRS)):
        shared[some] = _common(sets, left[some], right[some])
    many, marked = order[often], np.zeros(int(sets.members.max(initial=0)) + 1, bool)
    for of_one in np.split(many, np.flatnonzero(np.diff(left[many])) + 1) if len(many) else ():
        mine = sets.of(left[of_one[:1]])[1]
        marked[mine] = True
        for some in (of_one[i : i + PAIRS] for i in range(0, len(of_one), PAIRS)):
            pair, member = sets.of(right[some])
            shared[some] = np.bincount(pair[marked[member]], minlength=len(some))
        marked[mine] = False
    found: Similarities = shared / np.maximum(sizes[left] + sizes[right] - shared, 1)
    return found


def _common(sets: Sets, left: Rows, right: Rows) -> npt.NDArray[np.int64]:
    """How many members the sets `left[i]` and `right[i]` have in common."""
    keys = []
    for side in (left, right):
        pair, member = sets.of(side)
        keys.append(pair.astype(np.uint64) << np.uint64(32) | member)
    both = np.sort(np.concatenate(keys), kind="stable")  # two sorted runs: one merge
    shared = both[1:][both[1:] == both[:-1]] >> np.uint64(32)
    return np.bincount(shared.astype(np.intp), minlength=len(left))


def gram_sets(found: Grams, count: int) -> Sets:
    """The grams of `count` documents as sets of dense numbers (0 for the least hash, …)."""
    order = np.argsort(found.gram)
    ranked = found.gram[order]
    number = np.empty(len(order), np.uint64)
    number[order] = np.cumsum(np.append(0, ranked[1:] != ranked[:-1]))[: len(order)]
    keys = np.sort(found.document.astype(np.uint64) << np.uint64(32) | number)
    keys = keys[np.append(True, keys[1:] != keys[:-1])[: len(keys)]]
    sizes = np.bincount((keys >> np.uint64(32)).astype(np.intp), minlength=count)
    return Sets(keys.astype(np.uint32), offsets_of(sizes))
