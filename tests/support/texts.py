"""Random texts, conversations made of them, and slow reference implementations for the tests of duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any

import numpy as np
import polars as pl

from dataprep.dedup.corpus import Corpus
from dataprep.dedup.leaks import LEAK_THRESHOLD, find_leaks
from dataprep.dedup.normal_form import RowIndices, content_bytes, normal_form
from tests.support.frames import conversation, conversations


def questions(texts: Sequence[str], **columns: Sequence[Any]) -> pl.DataFrame:
    """Return a conversation of one question for each text; the ids are c0, c1, …"""
    return conversations(
        *(conversation(text, **{name: values[i] for name, values in columns.items()}) for i, text in enumerate(texts))
    )


def sentence(rng: Random, words: int, vocabulary: int = 5_000) -> str:
    """Return random words, written w0, w1, …"""
    return " ".join(f"w{rng.randrange(vocabulary)}" for _ in range(words))


def edited(rng: Random, text: str, share: float) -> str:
    """Return `text` with about this share of its words replaced."""
    return " ".join(f"x{rng.randrange(10**6)}" if rng.random() < share else word for word in text.split(" "))


def corpus_of(frame: pl.DataFrame, max_memory: int = 1 << 30, alternative: str = "") -> tuple[Corpus, RowIndices]:
    """Return the corpus of a frame whose conversations are best first already, and the numbers of all its documents."""
    numbers = np.arange(len(frame))
    return Corpus(frame, numbers, content_bytes(frame), "thread", max_memory, alternative), numbers


def leaks_between(train: pl.DataFrame, test: pl.DataFrame, threshold: float = LEAK_THRESHOLD) -> pl.DataFrame:
    """Return all pairs of similar conversations across two frames: columns test, train, similarity."""
    both = pl.concat([test, train]).with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    return find_leaks(both, pl.int_range(len(both), eager=True) < len(test), threshold)


@cache
def ngram_set(text: str, count: int) -> frozenset[tuple[str, ...]]:
    """Return the n-grams of `count` words of a text as tuples of strings."""
    words = normal_form(text).split(" ") if normal_form(text) else []
    return frozenset(tuple(words[i : i + count]) for i in range(max(len(words) - count + 1, min(len(words), 1))))


def slow_jaccard(text_a: str, text_b: str, count: int = 5) -> float:
    """Return the Jaccard similarity of two texts by sets of tuples of strings."""
    a, b = ngram_set(text_a, count), ngram_set(text_b, count)
    return len(a & b) / max(len(a | b), 1)
