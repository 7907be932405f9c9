"""Conversations and slow oracles for the tests of duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from random import Random
from typing import Any

import polars as pl

from dataprep.dedup.normal_form import normal_form
from tests.support.frames import conversation, conversations


def said(texts: Sequence[str], **columns: Sequence[Any]) -> pl.DataFrame:
    """A conversation of one question for each text; ids are c0, c1, …"""
    return conversations(
        *(conversation(text, **{name: values[i] for name, values in columns.items()}) for i, text in enumerate(texts))
    )


def sentence(rng: Random, words: int, vocabulary: int = 5_000) -> str:
    """Words at random, written w0, w1, …"""
    return " ".join(f"w{rng.randrange(vocabulary)}" for _ in range(words))


def edited(rng: Random, text: str, share: float) -> str:
    """`text` with about this share of its words replaced."""
    return " ".join(f"x{rng.randrange(10**6)}" if rng.random() < share else word for word in text.split(" "))


@cache
def gram_set(text: str, words: int) -> frozenset[tuple[str, ...]]:
    """Sets of tuples of strings."""
    said = normal_form(text).split(" ") if normal_form(text) else []
    return frozenset(tuple(said[i : i + words]) for i in range(max(len(said) - words + 1, min(len(said), 1))))


def slow_jaccard(one: str, other: str, words: int = 5) -> float:
    """By sets of tuples of strings."""
    a, b = gram_set(one, words), gram_set(other, words)
    return len(a & b) / max(len(a | b), 1)
