"""Who survives among documents that are alike, without chains; and connected components."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.dedup.candidates import crowded, star_pairs
from dataprep.dedup.corpus import Corpus
from dataprep.dedup.minhash import Sketches
from dataprep.dedup.normal_form import Rows
from dataprep.dedup.prefix_filter import Firsts, Index, firsts, rarity

TOGETHER = 1 << 9  # documents compared with each other before those that stay among them are put into the index
SOME = 8  # of the documents that share a gram, those that are looked at first
DENSE = 4  # pairs a document from which its sketch is asked which are worth a proof


class Proven(NamedTuple):
    """Pairs of documents that are proven alike, `left` < `right`, and their similarity; of `pairs` that were compared."""

    left: Rows
    right: Rows
    similarity: npt.NDArray[np.float64]
    pairs: int

    def joined(self, more: Proven) -> Proven:
        """With others."""
        both = [np.concatenate([a, b]) for a, b in zip(self[:3], more[:3], strict=True)]
        return Proven(both[0], both[1], both[2], self.pairs + more.pairs)

    @staticmethod
    def none() -> Proven:
        """No pairs."""
        return Proven(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0), 0)


class Settled(NamedTuple):
    """Per document: who stays in its place (-1: it stays itself), and their similarity (NaN: it stays)."""

    survivor: Rows
    similarity: npt.NDArray[np.float64]


def settle(corpus: Corpus, made: Sketches, threshold: float) -> tuple[Settled, Proven, int]:
    """Who stays: documents are given best first, and none is dropped but for a better one that stays and is alike itself.

    First the stars of all buckets are proven, a pair or a few for each document. Where two or more that stay share a
    bucket with neither its head, stars tell nothing of the two: these documents are compared once more, each with all
    better ones that stay, by the index of `rare`. Whoever goes then may set others free, which are compared likewise,
    until there is nothing left to compare. So no two documents that stay and share a bucket are alike; and since each of
    the others is alike to a better one that stays, who stays does not depend on what was compared first.

    Args:
        corpus: the documents, best first.
        made: their sketches.
        threshold: least similarity of what is alike.

    Returns:
        who stays, the pairs that were found to be alike, and how many were candidates.
    """
    left, right = star_pairs(made.keys)
    candidates, worth = len(left), made.promising(left, right, threshold)
    proven = _proven(corpus, left[worth], right[worth], threshold)
    settled, told_apart = _greedy(len(made.keys), proven), np.zeros(len(made.keys), bool)
    some = np.union1d(left, right)  # the others, most of all, are alone in their buckets
    while True:
        standing = settled.survivor < 0
        members = some[crowded(made.keys[some], standing[some], (standing & ~told_apart)[some])]
        if not len(members):
            return settled, proven, candidates
        staying, more = _sift(corpus, made, members, threshold)
        proven, candidates = proven.joined(more), candidates + more.pairs
        told_apart = standing
        told_apart[members] = False
        told_apart[staying] = True
        settled = _greedy(len(made.keys), proven)


def _proven(corpus: Corpus, left: Rows, right: Rows, threshold: float) -> Proven:
    """Those of the pairs that are alike."""
    similarity = corpus.prove(left, right)
    alike = similarity >= threshold
    return Proven(left[alike], right[alike], similarity[alike], len(left))


def _greedy(count: int, alike: Proven) -> Settled:
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


def _sift(corpus: Corpus, made: Sketches, members: Rows, threshold: float) -> tuple[Rows, Proven]:
    """Best first, those that are alike to none that stays: they stay. With what was proven.

    Only what stays is in the index, so that many that are alike cost no more than as many that are not; and most of what
    goes is told by a few of all that it shares a gram with.
    """
    common = rarity(corpus.documents, members)
    index, staying, proven = corpus.new_index(threshold), [], Proven.none()
    for batch in corpus.batches(members, TOGETHER):
        probed = firsts(corpus.documents(batch), batch, common, threshold)
        for most in (SOME, None):
            left, right = _worth(made, *index.pairs(probed, most), threshold)
            older = _until_alike(corpus, left, right, threshold)
            batch = np.setdiff1d(batch, older.right)
            probed, proven = probed.of(batch), proven.joined(older)
        among = _first_come(corpus, made, probed, threshold)
        batch, proven = np.setdiff1d(batch, among.right), proven.joined(among)
        index.add(probed.of(batch))
        staying.append(batch)
    return np.concatenate(staying), proven


def _worth(made: Sketches, left: Rows, right: Rows, threshold: float) -> tuple[Rows, Rows]:
    """The pairs; where they are very many, less those that the sketches rule out."""
    if len(left) <= DENSE * len(np.unique(right)):
        return left, right
    worth = made.promising(left, right, threshold)
    return left[worth], right[worth]


def _until_alike(corpus: Corpus, left: Rows, right: Rows, threshold: float) -> Proven:
    """Each of `right` compared with the first of its partners, then with the next 2, 4, … until it is alike to one."""
    order = np.lexsort((left, right))
    left, right = left[order], right[order]
    proven, tried = Proven.none(), 1
    while len(left):
        rank = np.arange(len(right)) - np.searchsorted(right, right)
        now = rank < tried
        found = _proven(corpus, left[now], right[now], threshold)
        proven, tried = proven.joined(found), 2 * tried
        left, right = left[~now], right[~now]
        still = ~np.isin(right, found.right)
        left, right = left[still], right[still]
    return proven


def _first_come(corpus: Corpus, made: Sketches, probed: Firsts, threshold: float) -> Proven:
    """Pairs of one that stays with one that goes among the documents of a batch.

    Whoever is in no pair with a better one is sure to stay: it is compared with all its partners, and those that are
    alike to it leave their other pairs unproven.
    """
    index, proven = Index(threshold), Proven.none()
    index.add(probed)
    left, right = index.pairs(probed)
    left, right = _worth(made, left[left < right], right[left < right], threshold)
    while len(left):
        sure = ~np.isin(left, right)
        found = _proven(corpus, left[sure], right[sure], threshold)
        proven = proven.joined(found)
        still = ~(sure | np.isin(left, found.right) | np.isin(right, found.right))
        left, right = left[still], right[still]
    return proven


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
