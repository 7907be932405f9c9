"""Survivors equal those of brute force on hard corpora: templates, long heads, hubs, chains, families of any length."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from random import Random

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.dedup.corpus import best_first
from dataprep.dedup.jaccard import ngram_sets, set_similarities
from dataprep.dedup.minhash import BANDS
from dataprep.dedup.near import drop_near_duplicates
from dataprep.dedup.normal_form import RowIndices, content_bytes, documents
from dataprep.dedup.prefix_filter import PrefixIndex, frequency_levels, prefix_grams
from tests.support.texts import corpus_of, edited, questions, sentence


def similar_pairs(frame: pl.DataFrame, threshold: float) -> tuple[RowIndices, RowIndices]:
    """Return the rows of all pairs at the threshold or above, by brute force."""
    texts = documents(frame)
    left, right = np.triu_indices(len(frame), 1)
    reached = set_similarities(ngram_sets(texts), left, right) >= threshold
    return left[reached], right[reached]


@cache
def hard_texts(name: str) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Return the texts of `HARD[name]` and the similarity of each with each, by brute force."""
    texts = HARD[name](Random(7))
    left, right = np.triu_indices(len(texts), 1)
    similarity = np.zeros((len(texts), len(texts)))
    similarity[left, right] = set_similarities(ngram_sets(documents(questions(texts))), left, right)
    return texts, similarity + similarity.T


def family(seed: int, template: int, *members: tuple[int, int]) -> list[str]:
    """Return texts that share a template; each member is (number of texts, words of their own)."""
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
    """Return texts each of which is similar to its neighbours only: a long chain."""
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
@pytest.mark.parametrize(
    ("threshold", "ranked"), [(0.3, True), (0.5, True), (0.7, True), (0.8, False), (0.8, True), (0.9, True)]
)
def test_survivors_equal_one_greedy_pass_over_all_pairs(name: str, threshold: float, ranked: bool) -> None:
    texts, similarity = hard_texts(name)
    rng = Random(8)
    unordered = questions(texts, rank=[rng.randrange(4) if ranked else None for _ in texts])
    order = best_first(unordered, content_bytes(unordered))
    frame, reached = unordered[order], np.triu(similarity[order][:, order] >= threshold, 1)
    dropped: set[int] = set()
    for a, b in np.argwhere(reached).tolist():
        if a not in dropped:
            dropped.add(b)
    kept, fates, *_ = drop_near_duplicates(frame, threshold)
    assert kept["id"].to_list() == [id_ for at, id_ in enumerate(frame["id"]) if at not in dropped]
    assert set(fates["survivor"]) <= set(kept["id"])


@pytest.mark.parametrize("own", [30, 50, 60, 150])
def test_few_pairs_are_verified_on_a_long_template(own: int) -> None:
    """At most one pair for each document and band, whether the texts are similar or not."""
    texts = family(8, 400, (900, own), (225, 80))
    assert drop_near_duplicates(questions(texts)).report.proven < (BANDS + 1) * len(texts)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.8, 0.95, 1.0]))
def test_the_prefix_index_misses_no_similar_pair(seed: int, threshold: float) -> None:
    rng = Random(seed)
    texts = family(seed, 30, (8, 3), (8, 12), (4, 40)) + [sentence(rng, rng.randrange(0, 12), 6) for _ in range(20)]
    texts += [edited(rng, text, 0.05) for text in texts]
    # some texts have characters that need folding, and so are normalised separately
    texts = [text + rng.choice(["", "", " ﬁn", " ²", "\u0301"]) if text else "(*)" for text in texts]
    frame, index = questions(texts), PrefixIndex(threshold)
    corpus, all_rows = corpus_of(frame)
    levels = frequency_levels(corpus.documents, all_rows[: rng.randrange(1, len(texts))])  # any order serves
    for batch in corpus.batches(all_rows, 7):
        index.add(prefix_grams(corpus.documents(batch), batch, levels, threshold))
    candidates = set(
        zip(*index.pairs(prefix_grams(corpus.documents(all_rows), all_rows, levels, threshold)), strict=True)
    )
    expected = set(zip(*similar_pairs(frame, threshold), strict=True))
    assert expected <= candidates and {(b, a) for a, b in expected} <= candidates


def test_the_prefix_index_returns_no_pairs_that_share_only_a_template() -> None:
    texts = questions(family(9, 400, (300, 110)))
    (corpus, all_rows), index = corpus_of(texts), PrefixIndex(0.7)
    prefixes = prefix_grams(corpus.documents(all_rows), all_rows, frequency_levels(corpus.documents, all_rows), 0.7)
    assert prefixes.by_key.position.max() > 114  # the prefixes include words of the template
    index.add(prefixes)
    left, right = index.pairs(prefixes)
    assert (left == right).all()
