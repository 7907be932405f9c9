"""Who stays, against brute force over all pairs that stay: templates, long heads, hubs, chains, families of any length."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.dedup.corpus import Corpus, best_first
from dataprep.dedup.jaccard import ngram_sets, set_similarities
from dataprep.dedup.minhash import BANDS
from dataprep.dedup.near import drop_near_duplicates
from dataprep.dedup.ngrams import document_ngrams
from dataprep.dedup.normal_form import RowIndices, documents
from dataprep.dedup.prefix_filter import PrefixIndex, frequency_levels, prefix_grams
from tests.support.talks import edited, said, sentence


def alike(frame: pl.DataFrame, threshold: float) -> tuple[RowIndices, RowIndices]:
    """Places of all pairs that are alike, by brute force."""
    said = documents(frame)
    left, right = np.triu_indices(len(frame), 1)
    found = set_similarities(ngram_sets(document_ngrams(said), len(frame)), left, right) >= threshold
    return left[found], right[found]


def family(seed: int, template: int, *members: tuple[int, int]) -> list[str]:
    """Texts that begin alike: of each (number, words of their own)."""
    rng = Random(seed)
    start = sentence(rng, template)
    return [f"{start} {sentence(rng, own)}" for number, own in members for _ in range(number)]


def mixed_lengths(rng: Random) -> list[str]:
    return family(rng.randrange(99), 100, *((3, own) for own in range(2, 60)))


def edits_of_edits(rng: Random) -> list[str]:
    texts = [sentence(rng, 80) for _ in range(3)]
    for _ in range(250):
        texts.append(edited(rng, rng.choice(texts), 0.03))
    return texts


def sliding(rng: Random) -> list[str]:
    """Each alike to its neighbours only: chains without end."""
    words = sentence(rng, 600).split(" ")
    return [" ".join(words[at : at + 90]) for at in range(0, 500, 2)]


HARD: dict[str, Callable[[Random], list[str]]] = {
    "one long head": lambda rng: family(1, 110, (150, 10), (1, 40)),
    "long heads": lambda rng: family(2, 110, (150, 10), (20, 40)),
    "more long heads than others": lambda rng: family(3, 110, (100, 10), (150, 40)),
    "near the threshold": lambda rng: family(4, 110, (250, 13)),
    "a hub below the best": lambda rng: [*family(5, 400, (1, 110), (1, 44), (200, 57)), *family(5, 400, (1, 5))],
    "mixed lengths": mixed_lengths,
    "edits of edits": edits_of_edits,
    "a chain": sliding,
}


@pytest.mark.parametrize("name", HARD)
@pytest.mark.parametrize("ranked", [False, True])
def test_no_two_that_stay_are_alike(name: str, ranked: bool) -> None:
    """What stays is what one pass over all pairs, best first, would keep: no more and no less."""
    rng = Random(7)
    texts = HARD[name](rng)
    frame = best_first(said(texts, rank=[rng.randrange(4) if ranked else None for _ in texts]))
    gone: set[int] = set()
    for a, b in sorted(zip(*(side.tolist() for side in alike(frame, 0.8)), strict=True)):
        if a not in gone:
            gone.add(b)
    kept, fates, _ = drop_near_duplicates(frame)
    assert kept["id"].to_list() == [id_ for at, id_ in enumerate(frame["id"]) if at not in gone]
    assert set(fates["survivor"]) <= set(kept["id"])


@pytest.mark.parametrize("own", [30, 50, 60, 150])
def test_few_pairs_are_proven(own: int) -> None:
    """On a long template, alike or not, hardly more than the stars: at most one pair a document and band."""
    texts = family(8, 400, (900, own), (225, 80))
    assert drop_near_duplicates(said(texts))[2].proven < (BANDS + 1) * len(texts)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.8, 0.95, 1.0]))
def test_the_index_misses_nothing(seed: int, threshold: float) -> None:
    rng = Random(seed)
    texts = family(seed, 30, (8, 3), (8, 12), (4, 40)) + [sentence(rng, rng.randrange(0, 12), 6) for _ in range(20)]
    texts += [edited(rng, text, 0.05) for text in texts]
    # some with characters that take a way of their own through the normal form, between the others
    texts = [text + rng.choice(["", "", " ﬁn", " ²", "\u0301"]) if text else "(*)" for text in texts]
    frame, index = said(texts), PrefixIndex(threshold)
    corpus, everybody = Corpus(frame, "thread", 1 << 30, ""), np.arange(len(texts))
    common = frequency_levels(corpus.documents, everybody[: rng.randrange(1, len(texts))])  # any order serves
    for batch in corpus.batches(everybody, 7):
        index.add(prefix_grams(corpus.documents(batch), batch, common, threshold))
    found = set(zip(*index.pairs(prefix_grams(corpus.documents(everybody), everybody, common, threshold)), strict=True))
    wanted = set(zip(*alike(frame, threshold), strict=True))
    assert wanted <= found and {(b, a) for a, b in wanted} <= found


def test_the_index_does_not_look_at_what_only_shares_a_template() -> None:
    texts = said(family(9, 400, (300, 110)))
    corpus, everybody, index = Corpus(texts, "thread", 1 << 30, ""), np.arange(300), PrefixIndex(0.7)
    mine = prefix_grams(corpus.documents(everybody), everybody, frequency_levels(corpus.documents, everybody), 0.7)
    assert mine.position.max() > 114  # words of the template are among the first grams
    index.add(mine)
    left, right = index.pairs(mine)
    assert (left == right).all()
