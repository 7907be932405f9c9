"""Find all pairs of documents that can reach a Jaccard threshold, exactly, by prefix filtering instead of sketches.

The n-grams of all documents are put into one order, rare ones first. Two documents with `a` and `b` distinct n-grams and a
Jaccard similarity of t or more share at least o = t (a + b) / (1 + t) of them. So the first one that they share is among
the first a - o + 1 of the one and the first b - o + 1 of the other. (Prefix and position filter: Xiao, Wang, Lin, Yu,
"Efficient Similarity Joins for Near Duplicate Detection", 2008.) As o is at least t times the larger number, and at least
2 t / (1 + t) times the smaller, only these prefixes are looked up, and the shorter prefix suffices for the smaller
document. The gain: texts that share a template, but too little else to be similar, have prefixes of their own, and such
pairs are never looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.buffers import PackedPairs, offsets_from_sizes, packed, ranges_of_size, sorted_unique, unpacked
from dataprep.dedup.ngrams import JACCARD_WORDS, Hashes, document_ngrams, ngrams_of, words_of
from dataprep.dedup.normal_form import NormalisedBlock, RowIndices, for_each_normalised_block

ALGORITHM = f"prefix filtering of word {JACCARD_WORDS}-grams, which finds every pair"

FrequencyLevels = npt.NDArray[np.uint8]
Column = npt.NDArray[np.int32]

# A document's number (12 bits), an n-gram's frequency level (4) and 48 bits of its hash are packed into one number, so that
# sorting is one sort of numbers. Equal n-grams stay equal, which is all that a filter needs.
NUMBER_BITS, LEVEL_BITS, NGRAM_BITS = np.uint64(12), np.uint64(4), np.uint64(48)
MAX_DOCUMENTS = 1 << 12  # documents whose prefixes are computed at a time: as many as NUMBER_BITS can number
SAMPLE, SAMPLE_PART = 1 << 12, 1 << 9  # documents that frequencies are estimated from, and how many at a time
SLACK_BITS = np.uint64(11)
SLACK_STEPS, MAX_SLACK = 64, 2047  # levels of slack for each doubling, and the largest level
SLOT_SHIFT = np.uint64(44)  # leaves the upper 20 bits of a hash, by which occurrences are counted
MIN_SLOTS, MIN_SLOTS_EACH = 1 << 16, 4  # of the bitmap of an index, in all and for each entry
PAIRS_PER_STEP = 1 << 20  # pairs looked at at a time
TESTED_PER_STEP = 1 << 9  # pairs whose prefixes are compared at a time, in the caches; the number of a pair has 12 bits
ENTRY_BYTES = 56  # memory of one entry of an index
EPSILON = 1e-9  # tolerance for rounding; it can only admit one n-gram more


def frequency_levels(documents_at: Callable[[RowIndices], pl.Series], rows: RowIndices) -> FrequencyLevels:
    """[2^20] Estimate how common n-grams are, by the upper bits of their hashes: the bit length of their count in a sample.

    Any order is valid for the filters as long as it is the same for all documents; rare n-grams first is the fastest.
    """
    sample = rows[:: -(-len(rows) // SAMPLE) or 1]
    count = np.zeros(1 << 20, np.int64)
    for start in range(0, len(sample), SAMPLE_PART):
        slots = document_ngrams(documents_at(sample[start : start + SAMPLE_PART])).hash >> SLOT_SHIFT
        count += np.bincount(slots.astype(np.intp), minlength=len(count))
    return np.minimum(np.frexp(count)[1], 15).astype(np.uint8)


class PrefixGrams(NamedTuple):
    """N-grams in the prefixes of some documents: the first ones of each in the order from rare to common."""

    # [ngrams] 53 bits: (rank in the order << 1) | outside the shorter prefix that suffices for the smaller document; and
    # SLACK_BITS that decrease with the slack (see `_slack_levels`), so that of one n-gram those with the most come first
    key: Hashes
    document: Column  # [ngrams]
    position: Column  # [ngrams] number of n-grams of the document that come before
    size: Column  # [ngrams] number of distinct n-grams of the document

    def take(self, chosen: npt.NDArray[np.generic]) -> PrefixGrams:
        """Return only the entries at these indices, or of this mask."""
        return PrefixGrams(*(column[chosen] for column in self))

    def concatenated(self, more: PrefixGrams) -> PrefixGrams:
        """Return these entries followed by `more`."""
        columns = [np.concatenate([a, b]) for a, b in zip(tuple(self), tuple(more), strict=True)]
        return PrefixGrams(*columns)

    def merged(self, more: PrefixGrams) -> PrefixGrams:
        """Return the entries of both, sorted by key; both are sorted, and of equal keys these come first."""
        at = np.searchsorted(self.key, more.key, "right") + np.arange(len(more.key))
        is_own = np.ones(len(self.key) + len(more.key), bool)
        is_own[at] = False

        def merge(own: npt.NDArray[Any], other: npt.NDArray[Any]) -> npt.NDArray[Any]:
            merged = np.empty(len(is_own), own.dtype)
            merged[is_own], merged[at] = own, other
            return merged

        return PrefixGrams(
            merge(self.key, more.key),
            merge(self.document, more.document),
            merge(self.position, more.position),
            merge(self.size, more.size),
        )


class Prefixes(NamedTuple):
    """The prefixes of some documents, in two orders."""

    by_key: PrefixGrams
    by_document: PrefixGrams  # sorted by document, then by key

    def of(self, documents: RowIndices) -> Prefixes:
        """Return only the prefixes of these documents."""
        return Prefixes(*(entries.take(np.isin(entries.document, documents)) for entries in self))

    def followed_by(self, more: Prefixes) -> Prefixes:
        """Return the prefixes of both; the documents of `more` have larger numbers."""
        return Prefixes(self.by_key.merged(more.by_key), self.by_document.concatenated(more.by_document))


def prefix_grams(documents: pl.Series, numbers: RowIndices, levels: FrequencyLevels, threshold: float) -> Prefixes:
    """Return the prefixes of at most `MAX_DOCUMENTS` documents.

    Args:
        documents: texts that end with a line feed (see `normal_form.documents`).
        numbers: what each is called in `PrefixGrams.document`.
        levels: from `frequency_levels`.
        threshold: minimum similarity of near-duplicates.
    """
    parts = [PrefixGrams(np.zeros(0, np.uint64), *(np.zeros(0, np.int32) for _ in range(3)))]

    def process(block: NormalisedBlock) -> None:
        ngrams = ngrams_of(words_of(block.texts), JACCARD_WORDS)
        level = levels[(ngrams.hash >> SLOT_SHIFT).astype(np.intp)].astype(np.uint64)
        rank = level << NGRAM_BITS | ngrams.hash >> np.uint64(64) - NGRAM_BITS
        entries = sorted_unique(ngrams.document.astype(np.uint64) << LEVEL_BITS + NGRAM_BITS | rank)
        document = (entries >> LEVEL_BITS + NGRAM_BITS).astype(np.int32)
        sizes = np.bincount(document)
        position, size = np.arange(len(entries)) - offsets_from_sizes(sizes)[document], sizes[document]
        in_prefix = np.flatnonzero(position < size - np.ceil(threshold * size - EPSILON) + 1)
        position, size = position[in_prefix], size[in_prefix]
        shorter = size - np.ceil(2 * threshold / (1 + threshold) * size - EPSILON) + 1
        key = entries[in_prefix] << NUMBER_BITS >> NUMBER_BITS << np.uint64(1) | (position >= shorter).astype(np.uint64)
        key = key << SLACK_BITS | _slack_codes(size - position - threshold / (1 + threshold) * size)
        number = numbers[block.rows[document[in_prefix]]]
        parts.append(PrefixGrams(key, *(column.astype(np.int32) for column in (number, position, size))))

    for_each_normalised_block(documents, process)
    prefixes = PrefixGrams(*(np.concatenate(columns) for columns in zip(*map(tuple, parts), strict=True)))
    # Each document is in one block, but blocks arrive in the order of threads, and folded documents come after the others.
    by_document = prefixes.take(np.argsort(prefixes.document, kind="stable"))
    return Prefixes(by_document.take(np.argsort(by_document.key, kind="stable")), by_document)


def _slack_codes(slack: npt.NDArray[np.floating]) -> Hashes:
    """Return a number of SLACK_BITS for each slack, which is smaller or equal where the slack is larger.

    The *slack* of an n-gram is the number of n-grams that its document has from it on, minus t a / (1 + t) if it has `a` in
    all. A document with `b` can share enough of them only if t b / (1 + t) is at most the slack.
    """
    level = np.floor(SLACK_STEPS * np.log2(np.maximum(slack, 0) + 1))
    codes: Hashes = (MAX_SLACK - np.minimum(level, MAX_SLACK)).astype(np.uint64)
    return codes


class PrefixIndex:
    """An inverted index of document prefixes, kept in sorted runs of which each is more than twice as long as the next."""

    def __init__(self, threshold: float, max_entries: int = 1 << 40, full: Exception | None = None) -> None:
        """Create an empty index; adding more than `max_entries` entries raises `full`."""
        self.max_entries, self.full = max_entries, full or MemoryError()
        self.share = threshold / (1 + threshold)
        self.runs: list[Prefixes] = []
        self.bitmap = np.zeros(MIN_SLOTS, bool)  # which lower bits of a key occur: rejects most absent keys

    def add(self, more: Prefixes) -> None:
        """Add documents whose numbers are above all added before; each entry is merged O(log n) times in all.

        Raises:
            the exception given as `full`: there are too many entries.
        """
        entries = sum(len(run.by_key.key) for run in self.runs) + len(more.by_key.key)
        if entries > self.max_entries:
            raise self.full
        if not len(more.by_key.key):
            return
        self.runs.append(more)
        if entries * MIN_SLOTS_EACH > len(self.bitmap):
            self.bitmap = np.zeros(1 << (2 * MIN_SLOTS_EACH * entries).bit_length(), bool)
            self._mark(self.runs)
        else:
            self._mark([more])
        while len(self.runs) > 1 and len(self.runs[-2].by_key.key) <= 2 * len(self.runs[-1].by_key.key):
            last = self.runs.pop()
            self.runs[-1] = self.runs[-1].followed_by(last)

    def _mark(self, runs: Sequence[Prefixes]) -> None:
        """Enter the keys of these runs into the bitmap."""
        for run in runs:
            self.bitmap[self._slots(run.by_key.key >> SLACK_BITS)] = True

    def _slots(self, keys: Hashes) -> RowIndices:
        """Return where the bitmap says whether these keys (without slack) can be present."""
        return (keys & np.uint64(len(self.bitmap) - 1)).astype(np.intp)

    def pairs(self, probe: Prefixes) -> tuple[RowIndices, RowIndices]:
        """Return (documents of the index, documents of `probe`) that can be similar; each pair once, in order.

        Args:
            probe: as returned by `prefix_grams`, or those of some of its documents.
        """
        return unpacked(self._look_up(probe, None)[0])

    def first_pairs(self, probe: Prefixes, max_matches: int) -> tuple[RowIndices, RowIndices, RowIndices]:
        """Return some of `pairs`, and the documents of `probe` that can have more than these.

        Args:
            probe: as for `pairs`.
            max_matches: look only at about this many of the documents that share an n-gram, spread evenly.
        """
        pairs, incomplete = self._look_up(probe, max_matches)
        return *unpacked(pairs), incomplete

    def _look_up(self, probe: Prefixes, max_matches: int | None) -> tuple[PackedPairs, RowIndices]:
        """Return the pairs (see `pairs`), and the documents of `probe` that can have more (see `first_pairs`)."""
        matching, incomplete = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
        # The whole prefix of `probe` is looked up among the shorter prefixes of the index, and vice versa.
        entries = probe.by_key._replace(key=probe.by_key.key >> SLACK_BITS)
        in_shorter, lookups = entries.take(entries.key & np.uint64(1) == 0), list[PrefixGrams]()
        for key, grams in ((entries.key & ~np.uint64(1), entries), (in_shorter.key | np.uint64(1), in_shorter)):
            present = np.flatnonzero(self.bitmap[self._slots(key)])
            lookups.append(grams.take(present)._replace(key=key[present]))
        for run in self.runs:
            found = [self._matches(run.by_key, keys, max_matches) for keys in lookups]
            incomplete += [more for _, more in found]
            pairs = sorted_unique(np.concatenate([pairs for pairs, _ in found]))
            steps = range(0, len(pairs), TESTED_PER_STEP)
            matching += [
                self._share_enough(run.by_document, probe.by_document, pairs[i : i + TESTED_PER_STEP]) for i in steps
            ]
        return sorted_unique(np.concatenate(matching)), np.unique(np.concatenate(incomplete)).astype(np.intp)

    def _matches(self, run: PrefixGrams, probe: PrefixGrams, max_matches: int | None) -> tuple[PackedPairs, Column]:
        """Return pairs that share a prefix n-gram so early that enough others can follow it in both (position filter).

        The keys of `probe` are without slack. Also return the documents of `probe` for whose n-grams only some of the
        matches were looked at.
        """
        probe = probe.take(probe.key <= run.key[-1] >> SLACK_BITS)
        start = np.searchsorted(run.key, probe.key << SLACK_BITS)
        present = np.flatnonzero(run.key[start] >> SLACK_BITS == probe.key)
        start, probe = start[present], probe.take(present)
        last = probe.key << SLACK_BITS | _slack_codes(self.share * probe.size - EPSILON)
        matches = np.searchsorted(run.key, last, "right") - start
        step = np.maximum(matches // max_matches, 1) if max_matches else np.ones_like(matches)
        visited = matches // step
        ends, candidates = offsets_from_sizes(visited), [np.zeros(0, np.uint64)]
        for begin, stop in ranges_of_size(ends, PAIRS_PER_STEP):
            lookup = np.repeat(np.arange(begin, stop), visited[begin:stop])
            at = (np.arange(ends[begin], ends[stop]) - ends[lookup]) * step[lookup] + start[lookup]
            needed = self._needed_overlap(run.size[at], probe.size[lookup])
            fits = (run.position[at] + needed <= run.size[at]) & (probe.position[lookup] + needed <= probe.size[lookup])
            indexed, probed = run.document[at[fits]], probe.document[lookup[fits]]
            candidates.append(sorted_unique(packed(indexed, probed)))
        return sorted_unique(np.concatenate(candidates)), probe.document[step > 1]

    def _share_enough(self, run: PrefixGrams, probe: PrefixGrams, pairs: PackedPairs) -> PackedPairs:
        """Return the pairs that can share enough n-grams, given how many prefix n-grams they share.

        Up to where the prefix of one of them ends, all that they share is known. Of the rest, they cannot share more than
        either has left.
        """
        sides = []
        for entries, documents in zip((run, probe), unpacked(pairs), strict=True):
            start, stop = (np.searchsorted(entries.document, documents, side) for side in ("left", "right"))
            pair = np.repeat(np.arange(len(pairs)), stop - start)
            at = np.arange(len(pair)) - offsets_from_sizes(stop - start)[pair] + start[pair]
            rank, last_rank = (entries.key[chosen] >> SLACK_BITS + np.uint64(1) for chosen in (at, stop - 1))
            sides.append((pair, rank, last_rank, entries.size[start]))
        (pair_a, rank_a, last_a, size_a), (pair_b, rank_b, last_b, size_b) = sides
        known = np.minimum(last_a, last_b)
        rest_a = size_a - np.bincount(pair_a[rank_a <= known[pair_a]], minlength=len(pairs))
        rest_b = size_b - np.bincount(pair_b[rank_b <= known[pair_b]], minlength=len(pairs))
        keys = [
            pair.astype(np.uint64) << LEVEL_BITS + NGRAM_BITS | rank
            for pair, rank in ((pair_a, rank_a), (pair_b, rank_b))
        ]
        both = np.sort(np.concatenate(keys), kind="stable")
        common = (both[1:][both[1:] == both[:-1]] >> LEVEL_BITS + NGRAM_BITS).astype(np.intp)
        shared = np.bincount(common, minlength=len(pairs)) + np.minimum(rest_a, rest_b)
        enough: PackedPairs = pairs[shared >= self._needed_overlap(size_a, size_b)]
        return enough

    def _needed_overlap(self, size_a: Column, size_b: Column) -> npt.NDArray[np.float64]:
        """Return the minimum number of n-grams that documents of these sizes share if they are similar."""
        needed: npt.NDArray[np.float64] = np.ceil(self.share * (size_a + size_b) - EPSILON)
        return needed
