"""Which documents can be alike at all, told exactly from the rarest grams of each: a join with filters, no sketches.

The grams of all documents are put in one order, rare ones first. Two documents with `a` and `b` different grams and a
Jaccard similarity of t or more share at least o = t (a + b) / (1 + t) of them, so that the first one they share is
among the first a - o + 1 of the one and the first b - o + 1 of the other. (Prefix and position filter: Xiao, Wang, Lin,
Yu, "Efficient Similarity Joins for Near Duplicate Detection", 2008.) As o is at least t times the larger number, and
2 t / (1 + t) times the smaller, only that many first grams of a document are looked up, and fewer are enough of the
smaller one. What this gains: of texts that share a template, but too little else to be alike, the first grams are their
own, and no pair of them is ever looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.buffers import blocks, offsets_of
from dataprep.dedup.ngrams import PROOF_WORDS, Hashes, grams, ngrams, words_of
from dataprep.dedup.normal_form import Part, Rows, each_form

Rarity = npt.NDArray[np.uint8]
Pairs = npt.NDArray[np.uint64]
Column = npt.NDArray[np.int32]

# A document's number, how common a gram is, and 48 bits of its hash are one number: so sorting is one sort of numbers.
# Equal grams stay equal, which is all that a filter needs.
NUMBER, LEVEL, GRAM = np.uint64(12), np.uint64(4), np.uint64(48)
MOST = 1 << 12  # documents whose first grams are taken in one go
SAMPLE, PART = 1 << 12, 1 << 9  # documents by which rare is told from common, and how many are looked at at a time
SLOT = np.uint64(44)  # the upper 20 bits of a gram's hash are what its occurrences are counted by
SIEVE, LOWER = 22, np.uint64((1 << 22) - 1)
HITS = 1 << 20  # pairs looked at in one go
TESTED = 1 << 12  # pairs whose first grams are compared in one go; their number and a gram's place fit 64 bits
ENTRY = 40  # bytes of a first gram in an index
SLACK = 1e-9  # of products of floating point: one gram more does no harm


def rarity(documents_at: Callable[[Rows], pl.Series], members: Rows) -> Rarity:
    """[2^20] How common grams are, by the upper bits of their hashes: the binary digits of their number in a sample.

    Any order serves the filters as long as it is the same for all documents; one that puts common grams last serves best.
    """
    drawn = members[:: -(-len(members) // SAMPLE) or 1]
    count = np.zeros(1 << 20, np.int64)
    for start in range(0, len(drawn), PART):
        slots = grams(documents_at(drawn[start : start + PART])).gram >> SLOT
        count += np.bincount(slots.astype(np.intp), minlength=len(count))
    return np.minimum(np.frexp(count)[1], 15).astype(np.uint8)


class Firsts(NamedTuple):
    """The first grams of some documents, as many as may hold the first one shared with a document that is alike."""

    key: (
        Hashes  # [grams] place in the order, times two; plus one for those not needed where the document is the smaller
    )
    document: Column  # [grams]
    place: Column  # [grams] in its document: how many of its grams come before
    size: Column  # [grams] different grams of its document

    def at(self, chosen: npt.NDArray[np.generic]) -> Firsts:
        """Only those at these places."""
        return Firsts(*(column[chosen] for column in self))

    def joined(self, more: Firsts) -> Firsts:
        """With others."""
        joined = [np.concatenate([a, b]) for a, b in zip(tuple(self), tuple(more), strict=True)]
        return Firsts(*joined)

    def of(self, documents: Rows) -> Firsts:
        """Only those of these documents."""
        return self.at(np.isin(self.document, documents))


def firsts(documents: pl.Series, names: Rows, common: Rarity, threshold: float) -> Firsts:
    """The first grams of at most `MOST` documents.

    Args:
        documents: texts that end with a line feed (`normal.documents`).
        names: what each is called in `Firsts.document`.
        common: of `rarity`.
        threshold: least similarity of what is alike.
    """
    parts = [Firsts(np.zeros(0, np.uint64), *(np.zeros(0, np.int32) for _ in range(3)))]

    def work(part: Part) -> None:
        found = ngrams(words_of(part.texts), PROOF_WORDS)
        level = common[(found.gram >> SLOT).astype(np.intp)].astype(np.uint64)
        entries = (found.document.astype(np.uint64) << LEVEL | level) << GRAM | found.gram >> np.uint64(64) - GRAM
        entries = _once(entries)
        document = (entries >> LEVEL + GRAM).astype(np.int32)
        sizes = np.bincount(document)
        place, size = np.arange(len(entries)) - offsets_of(sizes)[document], sizes[document]
        first = np.flatnonzero(place < size - np.ceil(threshold * size - SLACK) + 1)
        place, size = place[first], size[first]
        key = entries[first] << NUMBER >> NUMBER << np.uint64(1)
        key |= (place >= size - np.ceil(2 * threshold / (1 + threshold) * size - SLACK) + 1).astype(np.uint64)
        name = names[part.rows[document[first]]]
        parts.append(Firsts(key, *(column.astype(np.int32) for column in (name, place, size))))

    each_form(documents, work)
    found = Firsts(*(np.concatenate(columns) for columns in zip(*map(tuple, parts), strict=True)))
    # Each document is in one part, but parts come as threads do, and those with hard characters lie between the others.
    return found.at(np.argsort(found.document, kind="stable"))


class Run(NamedTuple):
    """Some documents of an index."""

    by_key: Firsts
    by_document: Firsts  # the same, in the order of the documents, and of the keys in each


class Index:
    """Documents by their first grams, in runs of which each is more than twice as long as the next one."""

    def __init__(self, threshold: float, most: int = 1 << 40, full: Exception | None = None) -> None:
        """`most`: entries that there is room for; `full`: what is raised when there are more."""
        self.most, self.full = most, full or MemoryError()
        self.share = threshold / (1 + threshold)
        self.runs: list[Run] = []
        self.sieve = np.zeros(1 << SIEVE, bool)  # which lower bits of a key occur: most that do not are told by them

    def add(self, more: Firsts) -> None:
        """Documents that come after those which are there; each entry is merged O(log n) times in all.

        Raises:
            what was given as `full`: there is no room for them.
        """
        if sum(len(run.by_key.key) for run in self.runs) + len(more.key) > self.most:
            raise self.full
        self.sieve[more.key & LOWER] = True
        run = Run(more.at(np.argsort(more.key, kind="stable")), more)
        while self.runs and len(self.runs[-1].by_key.key) <= 2 * len(run.by_key.key):
            before = self.runs.pop()
            by_key = before.by_key.joined(run.by_key)
            by_key = by_key.at(np.argsort(by_key.key, kind="stable"))  # two sorted runs: one merge
            run = Run(by_key, before.by_document.joined(run.by_document))
        self.runs.append(run)

    def pairs(self, probed: Firsts, most: int | None = None) -> tuple[Rows, Rows]:
        """Documents of the index, and of `probed`, that can be alike; each pair once, in order.

        Args:
            probed: as `firsts` gives them, or those of some of the documents.
            most: look only at so many of all documents that share a gram, spread evenly.
        """
        found = [np.zeros(0, np.uint64)]
        # All first grams are looked up among those needed of the smaller one, and those among the rest.
        few, sought = probed.key & np.uint64(1) == 0, []
        for key, some in ((probed.key & ~np.uint64(1), probed), (probed.key[few] | np.uint64(1), probed.at(few))):
            there = np.flatnonzero(self.sieve[key & LOWER])
            there = there[np.argsort(key[there])]
            sought.append(some.at(there)._replace(key=key[there]))
        for run in self.runs:
            pairs = _once(np.concatenate([self._hits(run.by_key, some, most) for some in sought]))
            found += [self._enough(run, probed, pairs[i : i + TESTED]) for i in range(0, len(pairs), TESTED)]
        return _sides(_once(np.concatenate(found)))

    def _hits(self, run: Firsts, probed: Firsts, most: int | None) -> Pairs:
        """Pairs that share a first gram so early that enough others can follow it in both."""
        start = np.searchsorted(run.key, probed.key)
        there = np.flatnonzero(np.append(run.key, np.uint64(0))[start] == probed.key)
        there = there[start[there] < len(run.key)]
        start, probed = start[there], probed.at(there)
        often = np.searchsorted(run.key, probed.key, "right") - start
        step = np.maximum(often // most, 1) if most else np.ones_like(often)
        looked = often // step
        ends, found = offsets_of(looked), [np.zeros(0, np.uint64)]
        for begin, stop in blocks(ends, HITS):
            of = np.repeat(np.arange(begin, stop), looked[begin:stop])
            at = (np.arange(ends[begin], ends[stop]) - ends[of]) * step[of] + start[of]
            shared = self._shared(run.size[at], probed.size[of])
            fits = (run.place[at] + shared <= run.size[at]) & (probed.place[of] + shared <= probed.size[of])
            one, other = run.document[at[fits]], probed.document[of[fits]]
            found.append(_once(one.astype(np.uint64) << np.uint64(32) | other.astype(np.uint64)))
        return _once(np.concatenate(found))

    def _enough(self, run: Run, probed: Firsts, pairs: Pairs) -> Pairs:
        """Those that can share enough, given how many first grams they do.

        Up to where the first grams of one of them end, all that they share is known; of what comes later, no more can be
        shared than either has left.
        """
        sides = []
        for firsts_of, documents in zip((run.by_document, probed), _sides(pairs), strict=True):
            start, stop = (np.searchsorted(firsts_of.document, documents, side) for side in ("left", "right"))
            pair = np.repeat(np.arange(len(pairs)), stop - start)
            at = np.arange(len(pair)) - offsets_of(stop - start)[pair] + start[pair]
            key, last = (firsts_of.key[places] >> np.uint64(1) for places in (at, stop - 1))
            sides.append((pair, key, last, firsts_of.size[start]))
        (pair, key, last, size), (other_pair, other_key, other_last, other_size) = sides
        known = np.minimum(last, other_last)
        left = size - np.bincount(pair[key <= known[pair]], minlength=len(pairs))
        other_left = other_size - np.bincount(other_pair[other_key <= known[other_pair]], minlength=len(pairs))
        marked = [p.astype(np.uint64) << LEVEL + GRAM | k for p, k in ((pair, key), (other_pair, other_key))]
        both = np.sort(np.concatenate(marked), kind="stable")
        common = (both[1:][both[1:] == both[:-1]] >> LEVEL + GRAM).astype(np.intp)
        shared = np.bincount(common, minlength=len(pairs)) + np.minimum(left, other_left)
        enough: Pairs = pairs[shared >= self._shared(size, other_size)]
        return enough

    def _shared(self, size: Column, other: Column) -> npt.NDArray[np.float64]:
        """How many grams documents of these sizes share at least, if they are alike."""
        least: npt.NDArray[np.float64] = np.ceil(self.share * (size + other) - SLACK)
        return least


def _sides(pairs: Pairs) -> tuple[Rows, Rows]:
    return (pairs >> np.uint64(32)).astype(np.intp), (pairs & np.uint64(0xFFFFFFFF)).astype(np.intp)


def _once(values: Pairs) -> Pairs:
    """Sorted, each once (`np.unique` hashes, which is slower where most are there many times)."""
    values = np.sort(values)
    once: Pairs = values[np.append(True, values[1:] != values[:-1])[: len(values)]]
    return once
