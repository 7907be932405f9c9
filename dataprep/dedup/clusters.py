"""Who survives among documents that are alike, without chains; and connected components."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.dedup.candidates import star_pairs
from dataprep.dedup.minhash import Sketches
from dataprep.dedup.normal import Rows

Packed = npt.NDArray[np.uint64]
Prove = Callable[[Rows, Rows], npt.NDArray[np.float64]]


ENOUGH = 8  # pairs for each document without a survivor that are compared in one round, before it is settled anew


class Pairs(NamedTuple):
    """Pairs of documents, `left` < `right`, and their similarity."""

    left: Rows
    right: Rows
    similarity: npt.NDArray[np.float64]


class Settled(NamedTuple):
    """Per document: who stays in its place (-1: it stays itself), and their similarity (NaN: it stays)."""

    survivor: Rows
    similarity: npt.NDArray[np.float64]


def settle(made: Sketches, threshold: float, prove: Prove) -> tuple[Settled, Pairs]:
    """Who stays: documents are given best first, and none is dropped but for a better one that it is alike itself.

    The first candidates are the stars of all buckets. A document that was alike only to documents which were dropped
    themselves has no survivor: it is compared with their survivors and, in stars again, with the others that have
    none; and so on until nothing is left to compare. So of two documents that were compared and are alike, at most
    one stays.

    Args:
        made: of the documents, best first.
        threshold: least similarity of what is alike.
        prove: exact similarities of pairs.

    Returns:
        who stays, and all pairs that were compared (similarity NaN: not promising).
    """

    def measured(left: Rows, right: Rows) -> Pairs:
        found = np.full(len(left), np.nan)
        worth = made.promising(left, right, threshold)
        found[worth] = prove(left[worth], right[worth])
        return Pairs(left, right, found)

    compared = measured(*star_pairs(made.keys, np.arange(len(made.keys))))
    while True:
        settled = _greedy(len(made.keys), _alike(compared, threshold))
        left, right = _second_chances(made.keys, settled, _alike(compared, threshold), compared)
        if not len(left):
            return settled, compared
        more = measured(left, right)
        compared = Pairs(*(np.concatenate(both) for both in zip(compared, more, strict=True)))


def _alike(pairs: Pairs, threshold: float) -> Pairs:
    alike = pairs.similarity >= threshold
    return Pairs(pairs.left[alike], pairs.right[alike], pairs.similarity[alike])


def _greedy(count: int, alike: Pairs) -> Settled:
    """Best first, each document that stays drops all that are alike to it and still there."""
    settled = Settled(np.full(count, -1), np.full(count, np.nan))
    survivor = settled.survivor.tolist()
    order = np.lexsort((alike.right, alike.left))
    # One by one, since each decision rests on those before; only proven pairs come here, 0.2 µs each.
    for pair, a, b in zip(order.tolist(), alike.left[order].tolist(), alike.right[order].tolist(), strict=True):
        if survivor[a] < 0 and survivor[b] < 0:
            survivor[b] = a
            settled.similarity[b] = alike.similarity[pair]
    return settled._replace(survivor=np.array(survivor, np.intp).reshape(count))


def _second_chances(keys: npt.NDArray[np.uint32], settled: Settled, alike: Pairs, compared: Pairs) -> tuple[Rows, Rows]:
    """What to compare yet for documents that stay although they are alike to one which another document dropped."""
    one, other = np.concatenate([alike.left, alike.right]), np.concatenate([alike.right, alike.left])
    better = settled.survivor[other]
    chained = (settled.survivor[one] < 0) & (better >= 0) & (better != one)
    one, better = one[chained], better[chained]
    seen = np.sort(_packed(compared.left, compared.right))
    new, members = [_unseen(seen, _packed(np.minimum(one, better), np.maximum(one, better)))], np.unique(one)
    enough = ENOUGH * len(members)
    while len(members) and sum(map(len, new)) < enough:  # then stars around the next in each bucket, and so on
        heads, others = star_pairs(keys, members)
        new.append(_unseen(seen, _packed(heads, others)))
        members = np.unique(others)
    pairs = np.unique(np.concatenate(new))
    return (pairs >> np.uint64(32)).astype(np.intp), (pairs & np.uint64(0xFFFFFFFF)).astype(np.intp)


def _unseen(seen: Packed, pairs: Packed) -> Packed:
    """Those of `pairs` that are not among `seen` (ascending)."""
    at = np.searchsorted(seen, pairs)
    new: Packed = pairs[np.append(seen, np.uint64(0))[at] != pairs]
    return new


def _packed(left: Rows, right: Rows) -> Packed:
    """Pairs as numbers that sort like them; no pair is 0, for its right is never 0."""
    return left.astype(np.uint64) << np.uint64(32) | right.astype(np.uint64)


def components(count: int, left: Rows, right: Rows) -> Rows:
    """[count] The least document that each one is connected with (itself, where it has no pair).

    Least labels spread along pairs and then jump to their own label, in O(log count) rounds.
    """
    label = np.arange(count)
    while True:
        least = np.minimum(label[left], label[right])
        before = label.copy()
        for side in (left, right):
            np.minimum.at(label, label[side], least)
            np.minimum.at(label, side, least)
        label = label[label]
        if (label == before).all():
            return label
