"""Exact similarities equal those computed on sets of strings."""

from __future__ import annotations

from random import Random

import numpy as np
import polars as pl
import pytest

from dataprep.dedup.jaccard import jaccard
from tests.support.texts import sentence, slow_jaccard


def column(texts: list[str]) -> pl.Series:
    return pl.Series([text + "\n" for text in texts], dtype=pl.String)


def test_similarities_equal_those_of_sets_of_strings(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = Random(4)
    texts = [sentence(rng, rng.randrange(0, 40), 30) for _ in range(30)] + [
        "",
        "♜ ♞",
        "♜ ♞",
        "中文字符測試",
        "中文字符測量",
    ]
    left, right = (side.ravel() for side in np.meshgrid(np.arange(len(texts)), np.arange(len(texts))))
    expected = [slow_jaccard(texts[a], texts[b]) for a, b in zip(left.tolist(), right.tolist(), strict=True)]
    np.testing.assert_allclose(jaccard(column(texts), left, right), expected, atol=1e-12)
    chosen = np.random.default_rng(0).permutation(len(left))[:60]  # few pairs with the same left document
    np.testing.assert_allclose(
        jaccard(column(texts), left[chosen], right[chosen]), np.array(expected)[chosen], atol=1e-12
    )
    monkeypatch.setattr("dataprep.dedup.jaccard.PAIRS", 7)
    np.testing.assert_allclose(jaccard(column(texts), left, right), expected, atol=1e-12)
