"""The distribution of token counts that the report draws."""

from __future__ import annotations

import polars as pl

from dataprep.quality.tokens import LENGTH_BOUNDS, token_lengths


def test_each_bin_includes_its_upper_bound_and_the_last_has_the_rest() -> None:
    lengths = token_lengths(pl.Series("tokens", [1, 128, 129, 4096, 4097, 100_000, None]))
    assert lengths is not None and lengths["bounds"] == list(LENGTH_BOUNDS)
    assert lengths["rows"] == [2, 1, 0, 0, 0, 1, 1, 1]
    assert (lengths["total"], lengths["median"], lengths["longest"]) == (108_451, 129, 100_000)


def test_without_a_tokenizer_there_is_no_distribution() -> None:
    assert token_lengths(pl.Series("tokens", [None, None], dtype=pl.Int64)) is None
