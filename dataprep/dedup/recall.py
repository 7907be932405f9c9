"""The error budget: edited copies at known exact similarity, planted into the candidate stage of every build."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.jaccard import Similarities, jaccard
from dataprep.dedup.minhash import BANDS, ROWS, Sketches, sketches
from dataprep.dedup.normal_form import Rows

COPIES = 200
SEED = 20_230_718
LEAST_WORDS = 20  # of an original: in fewer, one edit changes too much to aim
LONGEST = 50_000  # bytes of an original: 200 copies of a long text would take long
AIMS = (0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.6)
EDGES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)  # of the similarity bands that recall is told for

DocumentsAt = Callable[[Rows], pl.Series]


@dataclass(frozen=True)
class Recall:
    """Of copies whose exact similarity lies in [low, high): how many were planted, and how many found."""

    low: float
    high: float
    planted: int
    found: int


@dataclass(frozen=True)
class Budget:
    """What the candidate stage finds (`recall`), and what it should by theory (`s_curve`)."""

    seed: int
    recall: tuple[Recall, ...]
    s_curve: tuple[tuple[float, float], ...]  # similarity of the sketched shingles, probability of a common band


class Plants(NamedTuple):
    """Edited copies: their documents, the originals' places, and their exact similarity."""

    copies: pl.Series
    originals: Rows
    similarity: Similarities


def plant(count: int, documents_at: DocumentsAt) -> Plants:
    """COPIES seeded copies of documents, with characters, words or a stretch of text changed.

    Args:
        count: documents there are.
        documents_at: the documents at these places.
    """
    rng = Random(SEED)
    drawn = np.array(sorted(rng.sample(range(count), min(count, 2 * COPIES))), np.intp)
    texts = documents_at(drawn)
    fit = (texts.str.len_bytes() <= LONGEST) & (texts.str.count_matches(r"\w+") >= LEAST_WORDS)
    long = np.flatnonzero(fit.to_numpy())[:COPIES]
    originals = np.resize(drawn[long], COPIES if len(long) else 0)
    # Edited one by one: there are 200.
    edited = [_edited(rng, text, i) for i, text in enumerate(texts.gather(np.resize(long, len(originals))))]
    copies = pl.Series("text", edited, dtype=pl.String)
    pairs = np.arange(len(copies))
    both = pl.concat([documents_at(originals).alias("text"), copies])
    return Plants(copies, originals, jaccard(both, pairs, pairs + len(copies)))


def _edited(rng: Random, text: str, i: int) -> str:
    """A copy changed in one of three ways, near a similarity aimed at.

    Of five words in a row all must stay: changing each word with probability r leaves (1 - r)^5 of the 5-grams, and
    that share is 2J / (1 + J). A stretch that is replaced as a whole breaks few grams more than it holds.
    """
    aim = AIMS[i // 3 % len(AIMS)]
    shared = 2 * aim / (1 + aim)
    pieces = re.split(r"(\w+)", text)  # words at odd places
    words = range(1, len(pieces), 2)
    if i % 3 == 2:
        length = round((1 - shared) * len(words))
        start = rng.randrange(len(words) - length + 1)
        chosen = list(words)[start : start + length]
    else:
        chosen = [at for at in words if rng.random() > shared**0.2]
    for at in chosen:
        pieces[at] = _misspelt(rng, pieces[at]) if i % 3 == 0 else pieces[rng.choice(words)] + "s"
    return "".join(pieces)


def _misspelt(rng: Random, word: str) -> str:
    """One character doubled, or left out of a longer word."""
    at = rng.randrange(len(word))
    return word[:at] + word[at + 1 :] if len(word) > 2 and rng.random() < 0.5 else word[: at + 1] + word[at:]


def budget(plants: Plants, made: Sketches, documents_at: DocumentsAt, threshold: float) -> Budget:
    """How many copies the candidate stage leads to a document that they are alike to.

    A copy counts as found when the head of one of its buckets is promising, and as similar to it as its original or
    as `threshold`: then the proof would see the pair.

    Args:
        made: of the documents that the originals are among.
    """
    copies, count = sketches(plants.copies), len(made.keys)
    copy, head = _heads(made.keys, copies.keys)
    promising = made.joined(copies).promising(head, count + copy, threshold)
    copy, head = copy[promising], head[promising]
    places, head = np.unique(head, return_inverse=True)
    both = pl.concat([plants.copies, documents_at(places).alias("text")])
    alike = jaccard(both, copy, head + len(plants.copies)) >= np.minimum(plants.similarity, threshold)[copy]
    found = np.zeros(len(plants.copies), bool)
    found[copy[alike]] = True
    curve = tuple((s / 20, round(1 - (1 - (s / 20) ** ROWS) ** BANDS, 6)) for s in range(2, 21))
    return Budget(SEED, tuple(_recall(plants.similarity, found)), curve)


def _recall(similarity: Similarities, found: npt.NDArray[np.bool_]) -> list[Recall]:
    bins = np.searchsorted(EDGES[1:-1], similarity, "right")
    inside = similarity >= EDGES[0]
    return [
        Recall(low, high, int((inside & (bins == i)).sum()), int((found & inside & (bins == i)).sum()))
        for i, (low, high) in enumerate(zip(EDGES, EDGES[1:], strict=False))
    ]


def _heads(keys: npt.NDArray[np.uint32], copies: npt.NDArray[np.uint32]) -> tuple[Rows, Rows]:
    """Each copy with the first document of each bucket that it falls into, every pair once."""
    pairs = np.zeros((0, 2), np.intp)
    for band in range(keys.shape[1]):
        wanted = np.unique(copies[:, band])
        near = np.flatnonzero(np.isin(keys[:, band], wanted))
        key, first = np.unique(keys[near, band], return_index=True)
        copy = np.flatnonzero(np.isin(copies[:, band], key))
        head = near[first[np.searchsorted(key, copies[copy, band])]]
        pairs = np.concatenate([pairs, np.stack([copy, head], axis=1)])
    pairs = np.unique(pairs, axis=0)
    return pairs[:, 0], pairs[:, 1]
