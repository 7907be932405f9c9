"""Choose which of similar documents survive, without chains: each dropped document is similar to its own survivor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.dedup.candidates import Groups, star_pairs, uncompared_survivors
from dataprep.dedup.corpus import Corpus
from dataprep.dedup.document_sketches import DocumentSketches
from dataprep.dedup.minhash import BANDS
from dataprep.dedup.normal_form import RowIndices
from dataprep.dedup.prefix_filter import Prefixes, PrefixIndex, frequency_levels, prefix_grams

BATCH_DOCUMENTS = 1 << 9  # documents compared with each other before the survivors among them enter the index
FIRST_BATCH = 8  # documents of the first batch, which doubles: most similar documents then meet a survivor in the index
CROWDED = 2  # pairs to verify per document from which prefix filtering is used instead
ESTIMATED = 16  # pairs per document whose sketches are compared before prefix filtering is used instead
FIRST_MATCHES = 8  # of the documents that share an n-gram, how many are looked at first
ESTIMATE_FROM = 4  # pairs per document from which sketches are consulted before verification


class SimilarPairs(NamedTuple):
    """Verified pairs of documents, `left` < `right`, with their similarity, out of `compared` pairs that were verified."""

    left: RowIndices
    right: RowIndices
    similarity: npt.NDArray[np.float64]
    compared: int

    def concatenated(self, more: SimilarPairs) -> SimilarPairs:
        """Return these pairs followed by `more`."""
        left, right, similarity = (np.concatenate([a, b]) for a, b in zip(self[:3], more[:3], strict=True))
        return SimilarPairs(left, right, similarity, self.compared + more.compared)

    @staticmethod
    def none() -> SimilarPairs:
        """Return no pairs."""
        return SimilarPairs(np.zeros(0, np.intp), np.zeros(0, np.intp), np.zeros(0), 0)


class Survivors(NamedTuple):
    """For each document its survivor (-1: it survives itself) and their similarity (NaN: it survives itself)."""

    survivor: RowIndices
    similarity: npt.NDArray[np.float64]


class Search(NamedTuple):
    """The survivors, the similar pairs that were verified, and the number of candidate pairs.

    `skipped` are candidate pairs (left, right) that were not verified, because the survivors were known without them.
    """

    survivors: Survivors
    similar: SimilarPairs
    candidates: int
    skipped: tuple[RowIndices, RowIndices]


def choose_survivors(corpus: Corpus, sketches: DocumentSketches | None, threshold: float) -> Search:
    """Choose the survivors: best first, a document is dropped only for a better one that survives and is similar to it.

    Every dropped document is similar to a better one that survives, so the result does not depend on what is compared
    first. No two survivors that share a bucket are similar. There are three ways to get there:

    * Usually there are few star pairs: they are verified, and then what they leave open (see `_verify_stars`).
    * If there are many for each document, as in texts that share a template, prefix filtering compares all documents that
      are in a pair: verifying the pairs would take longer, and their number grows faster than that of the documents.
    * Without sketches, prefix filtering compares all documents, and misses no pair.

    Args:
        corpus: the documents, best first.
        sketches: one for each document, or None for an exact search.
        threshold: minimum similarity of near-duplicates.
    """
    none = np.zeros(0, np.intp)
    if sketches is None:
        _, similar = _compare_with_better(corpus, None, np.arange(corpus.count), threshold)
        return Search(_drop_greedily(corpus.count, similar), similar, similar.compared, (none, none))
    left, right = star_pairs(map(sketches.band, range(BANDS)))
    in_pairs = np.union1d(left, right)  # most documents are alone in their buckets
    promising = sketches.may_be_similar(left, right, threshold)
    stars = left[promising], right[promising]
    if promising.sum() <= CROWDED * len(in_pairs):
        survivors, similar, more = _verify_stars(corpus, sketches, *stars, in_pairs, threshold)
        return Search(survivors, similar, len(left) + more, (none, none))
    _, similar = _compare_with_better(corpus, sketches, in_pairs, threshold)
    return Search(_drop_greedily(corpus.count, similar), similar, len(left) + similar.compared, stars)


def _verify_stars(
    corpus: Corpus,
    sketches: DocumentSketches,
    left: RowIndices,
    right: RowIndices,
    in_pairs: RowIndices,
    threshold: float,
) -> tuple[Survivors, SimilarPairs, int]:
    """Verify star pairs, and compare the survivors that they leave open; return also how many more candidates these are.

    Star pairs say nothing about two survivors that share a bucket with neither of them its head. Such documents are
    compared once more: pair by pair, or if they are too many, each with all better survivors among them by prefix
    filtering. Dropping a document can uncover others, which are compared likewise, until nothing changes.
    """
    similar, count, candidates = verify_pairs(corpus, left, right, threshold), corpus.count, 0
    survivors, compared = _drop_greedily(count, similar), np.zeros(count, bool)
    while True:
        survives = survivors.survivor < 0
        is_new = survives & ~compared
        groups = uncompared_survivors(sketches.band_keys(in_pairs), survives[in_pairs], is_new[in_pairs])
        if not len(groups.member):
            return survivors, similar, candidates
        compared, chosen = survives, in_pairs[np.unique(groups.member)]
        pairs = _promising_pairs(sketches, groups, in_pairs, is_new, threshold)
        if pairs is None:
            distinct, more = _compare_with_better(corpus, sketches, chosen, threshold)
            compared[chosen] = False
            compared[distinct] = True
            candidates += more.compared
        else:
            more = verify_pairs(corpus, *pairs, threshold)
            candidates += groups.count_pairs()
        similar = similar.concatenated(more)
        survivors = _drop_greedily(count, similar)


def _promising_pairs(
    sketches: DocumentSketches,
    groups: Groups,
    in_pairs: RowIndices,
    is_new: npt.NDArray[np.bool_],
    threshold: float,
) -> tuple[RowIndices, RowIndices] | None:
    """Return the pairs of documents `in_pairs` within groups, one of them new, that the sketches do not rule out.

    None: there are so many pairs for each document that prefix filtering is faster.
    """
    documents = len(np.unique(groups.member))
    if groups.count_pairs() > ESTIMATED * documents:
        return None
    left, right = (in_pairs[side] for side in groups.pairs())
    uncompared = is_new[left] | is_new[right]
    left, right = left[uncompared], right[uncompared]
    promising = sketches.may_be_similar(left, right, threshold)
    return (left[promising], right[promising]) if promising.sum() <= CROWDED * documents else None


def verify_pairs(corpus: Corpus, left: RowIndices, right: RowIndices, threshold: float) -> SimilarPairs:
    """Return those of the pairs whose exact similarity reaches the threshold."""
    similarity = corpus.similarities(left, right)
    reached = similarity >= threshold
    return SimilarPairs(left[reached], right[reached], similarity[reached], len(left))


def _drop_greedily(count: int, similar: SimilarPairs) -> Survivors:
    """Best first, let each document that survives drop all remaining ones that are similar to it."""
    similarity = np.full(count, np.nan)
    survivor = [-1] * count
    order = np.lexsort((similar.right, similar.left))
    # A loop, because each decision depends on those before; only verified pairs come here, 0.2 µs each.
    for pair, a, b in zip(order.tolist(), similar.left[order].tolist(), similar.right[order].tolist(), strict=True):
        if survivor[a] < 0 and survivor[b] < 0:
            survivor[b] = a
            similarity[b] = similar.similarity[pair]
    return Survivors(np.array(survivor, np.intp).reshape(count), similarity)


def _compare_with_better(
    corpus: Corpus, sketches: DocumentSketches | None, chosen: RowIndices, threshold: float
) -> tuple[RowIndices, SimilarPairs]:
    """Compare the chosen documents, best first, with the better ones that survive; return the survivors and similar pairs.

    Only survivors are in the index, so many similar documents cost no more than as many different ones. Most documents
    that are dropped are found among the first few that share an n-gram with them.
    """
    levels = frequency_levels(corpus.documents, chosen)
    index, distinct, similar = corpus.new_index(threshold), [], SimilarPairs.none()
    for batch in corpus.batches(chosen, BATCH_DOCUMENTS, FIRST_BATCH):
        probe = prefix_grams(corpus.documents(batch), batch, levels, threshold)
        left, right, incomplete = index.first_pairs(probe, FIRST_MATCHES)
        left, right = _worth_verifying(sketches, left, right, threshold)
        with_indexed = _verify_until_similar(corpus, left, right, threshold)
        incomplete = np.setdiff1d(incomplete, with_indexed.right)
        if len(incomplete):
            left, right = _worth_verifying(sketches, *index.pairs(probe.of(incomplete)), threshold)
            with_indexed = with_indexed.concatenated(_verify_until_similar(corpus, left, right, threshold))
        batch = np.setdiff1d(batch, with_indexed.right)
        probe, similar = probe.of(batch), similar.concatenated(with_indexed)
        within_batch = _compare_within(corpus, sketches, probe, threshold)
        batch, similar = np.setdiff1d(batch, within_batch.right), similar.concatenated(within_batch)
        index.add(probe.of(batch))
        distinct.append(batch)
    return np.concatenate([np.zeros(0, np.intp), *distinct]), similar


def _worth_verifying(
    sketches: DocumentSketches | None, left: RowIndices, right: RowIndices, threshold: float
) -> tuple[RowIndices, RowIndices]:
    """Return the pairs; if there are very many, without those that the sketches rule out."""
    if sketches is None or len(left) <= ESTIMATE_FROM * len(np.unique(right)):
        return left, right
    promising = sketches.may_be_similar(left, right, threshold)
    return left[promising], right[promising]


def _verify_until_similar(corpus: Corpus, left: RowIndices, right: RowIndices, threshold: float) -> SimilarPairs:
    """Verify each of `right` with the first of its partners, then with the next 2, 4, … until one is similar."""
    order = np.lexsort((left, right))
    left, right = left[order], right[order]
    similar, partners = SimilarPairs.none(), 1
    while len(left):
        rank = np.arange(len(right)) - np.searchsorted(right, right)
        now = rank < partners
        verified = verify_pairs(corpus, left[now], right[now], threshold)
        similar, partners = similar.concatenated(verified), 2 * partners
        left, right = left[~now], right[~now]
        undecided = ~np.isin(right, verified.right)
        left, right = left[undecided], right[undecided]
    return similar


def _compare_within(
    corpus: Corpus, sketches: DocumentSketches | None, probe: Prefixes, threshold: float
) -> SimilarPairs:
    """Return pairs of a survivor with a dropped document among the documents of a batch.

    A document in no pair with a better one is certain to survive. It is verified with all its partners, and those that are
    similar to it need no further verification.
    """
    index, similar = PrefixIndex(threshold), SimilarPairs.none()
    index.add(probe)
    left, right = index.pairs(probe)
    left, right = _worth_verifying(sketches, left[left < right], right[left < right], threshold)
    while len(left):
        survives = ~np.isin(left, right)
        verified = verify_pairs(corpus, left[survives], right[survives], threshold)
        similar = similar.concatenated(verified)
        undecided = ~(survives | np.isin(left, verified.right) | np.isin(right, verified.right))
        left, right = left[undecided], right[undecided]
    return similar
