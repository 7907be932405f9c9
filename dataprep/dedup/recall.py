"""Estimate the recall of candidate generation by planting edited copies of known exact similarity into every build."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.document_sketches import DocumentSketches
from dataprep.dedup.jaccard import Similarities, jaccard
from dataprep.dedup.minhash import BANDS, ROWS, sketch
from dataprep.dedup.normal_form import RowIndices
from dataprep.dedup.prefix_filter import PrefixIndex, frequency_levels, prefix_grams

COPIES = 200
SEED = 20_230_718
HALF_KEY = np.uint32(16)  # leaves the upper half of a band's key
MIN_WORDS = 20  # of an original: in a shorter one, a single edit changes too much to aim at a similarity
MAX_BYTES = 50_000  # of an original: 200 copies of a long text would take long
TARGETS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6)  # similarities aimed at
BIN_EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the similarity ranges that recall is reported for

DocumentsAt = Callable[[RowIndices], pl.Series]


@dataclass(frozen=True)
class Recall:
    """How many copies with an exact similarity in [low, high) were planted, and how many were found."""

    low: float
    high: float
    planted: int
    found: int


@dataclass(frozen=True)
class RecallEstimate:
    """The measured recall of candidate generation, and the recall expected in theory (`s_curve`)."""

    seed: int
    recall: tuple[Recall, ...]
    s_curve: tuple[tuple[float, float], ...]  # similarity (of the sketched shingles), probability of being a candidate


class PlantedCopies(NamedTuple):
    """Edited copies: their documents, the rows of the originals, and their exact similarity to them."""

    copies: pl.Series
    originals: RowIndices
    similarity: Similarities


def estimate_recall(
    count: int, sketches: DocumentSketches | None, documents_at: DocumentsAt, threshold: float
) -> RecallEstimate:
    """Plant copies of some of `count` documents, and measure how many the candidate generation finds.

    A copy counts as detected if one of its candidates is as similar to it as its original, or as `threshold`: verification
    would then see the pair.

    Args:
        count: number of documents.
        sketches: one for each document, or None for the exact search.
        documents_at: returns the documents at these rows.
        threshold: minimum similarity of near-duplicates.
    """
    planted = plant_copies(count, documents_at)
    if sketches is None:
        copy, candidate = _candidates_by_prefix(planted, documents_at, threshold)
    else:
        copy, candidate = _candidates_by_sketch(planted, sketches, threshold)
    rows, candidate = np.unique(candidate, return_inverse=True)
    both = pl.concat([planted.copies, documents_at(rows).alias("text")])
    required = np.minimum(planted.similarity, threshold)[copy]
    detected = np.zeros(len(planted.copies), bool)
    detected[copy[jaccard(both, copy, candidate + len(planted.copies)) >= required]] = True
    similarities = [s / 20 for s in range(2, 21)]
    if sketches is None:
        curve = [(s, float(s >= threshold)) for s in similarities]
    else:
        curve = [(s, round(1 - (1 - s**ROWS) ** BANDS, 6)) for s in similarities]
    return RecallEstimate(SEED, tuple(_recall_by_range(planted.similarity, detected)), tuple(curve))


def plant_copies(count: int, documents_at: DocumentsAt) -> PlantedCopies:
    """Return COPIES seeded copies of documents, with characters, words or a stretch of text changed.

    Args:
        count: number of documents.
        documents_at: returns the documents at these rows.
    """
    rng = Random(SEED)
    drawn = np.array(sorted(rng.sample(range(count), min(count, 2 * COPIES))), np.intp)
    texts = documents_at(drawn)
    suitable = (texts.str.len_bytes() <= MAX_BYTES) & (texts.str.count_matches(r"\w+") >= MIN_WORDS)
    chosen = np.flatnonzero(suitable.to_numpy())[:COPIES]
    originals = np.resize(drawn[chosen], COPIES if len(chosen) else 0)
    # Edited one by one: there are 200.
    edited = [_edit(rng, text, i) for i, text in enumerate(texts.gather(np.resize(chosen, len(originals))))]
    copies = pl.Series("text", edited, dtype=pl.String)
    pairs = np.arange(len(copies))
    both = pl.concat([documents_at(originals).alias("text"), copies])
    return PlantedCopies(copies, originals, jaccard(both, pairs, pairs + len(copies)))


def _edit(rng: Random, text: str, i: int) -> str:
    """Return a copy that is edited in one of three ways, with a similarity near a target.

    A 5-gram is kept if all its five words are: editing each word with probability r keeps (1 - r)^5 of the 5-grams, and
    that share is 2J / (1 + J). Replacing a whole stretch breaks only a few more n-grams than the stretch has words.
    """
    target = TARGETS[i // 3 % len(TARGETS)]
    shared = 2 * target / (1 + target)
    pieces = re.split(r"(\w+)", text)  # words at odd indices
    words = range(1, len(pieces), 2)
    if i % 3 == 2:
        length = round((1 - shared) * len(words))
        start = rng.randrange(len(words) - length + 1)
        chosen = list(words)[start : start + length]
    else:
        chosen = [at for at in words if rng.random() > shared**0.2]
    for at in chosen:
        pieces[at] = _misspell(rng, pieces[at]) if i % 3 == 0 else pieces[rng.choice(words)] + "s"
    return "".join(pieces)


def _misspell(rng: Random, word: str) -> str:
    """Double one character, or omit one of a longer word."""
    at = rng.randrange(len(word))
    return word[:at] + word[at + 1 :] if len(word) > 2 and rng.random() < 0.5 else word[: at + 1] + word[at:]


def _candidates_by_sketch(
    planted: PlantedCopies, sketches: DocumentSketches, threshold: float
) -> tuple[RowIndices, RowIndices]:
    """Return (copy, head of one of its buckets) if their estimated similarity is not far below the threshold."""
    copies = DocumentSketches.in_order(sketch(planted.copies))
    copy, head = _bucket_heads(sketches, copies)
    promising = sketches.may_be_similar(head, copy, threshold, copies)
    return copy[promising], head[promising]


def _candidates_by_prefix(
    planted: PlantedCopies, documents_at: DocumentsAt, threshold: float
) -> tuple[RowIndices, RowIndices]:
    """Return (copy, original that it can be similar to) by prefix filtering."""
    originals, index = np.unique(planted.originals), PrefixIndex(threshold)
    levels = frequency_levels(documents_at, originals)
    index.add(prefix_grams(documents_at(originals), originals, levels, threshold))
    original, copy = index.pairs(prefix_grams(planted.copies, np.arange(len(planted.copies)), levels, threshold))
    return copy, original


def _recall_by_range(similarity: Similarities, found: npt.NDArray[np.bool_]) -> list[Recall]:
    bins = np.searchsorted(BIN_EDGES[1:-1], similarity, "right")
    in_range = similarity >= BIN_EDGES[0]
    return [
        Recall(low, high, int((in_range & (bins == i)).sum()), int((found & in_range & (bins == i)).sum()))
        for i, (low, high) in enumerate(zip(BIN_EDGES, BIN_EDGES[1:], strict=False))
    ]


def _bucket_heads(documents: DocumentSketches, copies: DocumentSketches) -> tuple[RowIndices, RowIndices]:
    """Return each copy with the head of each bucket that it falls into, every pair once."""
    pairs = np.zeros((0, 2), np.intp)
    for band in range(BANDS):
        keys, copy_keys = documents.band(band), copies.band(band)
        is_near = np.zeros(1 << 16, bool)
        is_near[copy_keys >> HALF_KEY] = True  # rejects most keys much faster than `isin` looks them up
        near = np.flatnonzero(is_near[keys >> HALF_KEY])
        members = near[np.isin(keys[near], copy_keys)]
        key, first = np.unique(keys[members], return_index=True)
        copy = np.flatnonzero(np.isin(copy_keys, key))
        head = members[first[np.searchsorted(key, copy_keys[copy])]]
        pairs = np.concatenate([pairs, np.stack([copy, head], axis=1)])
    pairs = np.unique(pairs, axis=0)
    return pairs[:, 0], pairs[:, 1]
