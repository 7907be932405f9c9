"""The report's charts of the rows: lengths, answers and trained share, each with the counts that it draws."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from dataprep.common.charts import AxisNames, bar_chart
from dataprep.report.page import percent

_CHARACTER_BOUNDS = [250, 500, 1_000, 2_000, 4_000, 8_000, 16_000]  # code points
_CONTEXT = 4_096  # tokens: the context of Llama 2


def charts(numbers: pl.DataFrame, tokens: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """Three histograms: length in tokens where they were counted and else in characters, trained answers, trained share.

    Args:
        numbers: as `CollectedRows.numbers`.
        tokens: quality.json's `token_lengths`.
    """
    answers = numbers["answers"].clip(upper_bound=10).value_counts().sort("answers").rows()
    share = (numbers["trained"] / numbers["chars"]).fill_nan(0).to_numpy()
    shares = np.histogram(share, np.linspace(0, 1, 11))[0].tolist()
    return [
        _lengths(numbers, tokens),
        _chart("Answers", "trained answers", [("10+" if n == 10 else str(n), count) for n, count in answers]),
        _chart(
            "Trained share",
            "% of the characters that are trained, up to",
            [(f"{10 * n + 10}", count) for n, count in enumerate(shares)],
        ),
    ]


def length_summary(numbers: pl.DataFrame, tokens: Mapping[str, Any] | None) -> str:
    """A sentence on how long the conversations are."""
    rows = f"{numbers.height:,}"
    if not tokens:
        longest = int(numbers.select(pl.col("chars").max().fill_null(0)).item())
        return (
            f"All {rows} conversations are counted; the longest has {longest:,} characters. "
            "With --tokenizer, a build counts tokens."
        )
    longer = sum(
        count for bound, count in zip([*tokens["bounds"], None], tokens["rows"], strict=True) if _is_longer(bound)
    )
    share = percent(longer / max(numbers.height, 1))
    return (
        f"All {rows} conversations are counted: {tokens['total']:,} tokens. Half have at most {tokens['median']:,}, 95 % "
        f"at most {tokens['p95']:,}, and the longest has {tokens['longest']:,}. {longer:,} ({share}) "
        f"{'is' if longer == 1 else 'are'} longer than {_CONTEXT:,} tokens, the context of Llama 2."
    )


def _is_longer(bound: int | None) -> bool:
    """Whether the bin up to `bound` holds conversations that are longer than the context."""
    return bound is None or bound > _CONTEXT


def _lengths(numbers: pl.DataFrame, tokens: Mapping[str, Any] | None) -> dict[str, Any]:
    if tokens:
        rows = list(zip(_bin_names(tokens["bounds"], 1024), tokens["rows"], strict=True))
        mark = (sum(not _is_longer(bound) for bound in tokens["bounds"]), f"{_CONTEXT:,}")
        return _chart("Length", "tokens of the rendered text, up to", rows, mark)
    edges = [0, *_CHARACTER_BOUNDS, np.inf]
    counts = np.histogram(numbers["chars"].to_numpy(), edges)[0].tolist()
    names = _bin_names(_CHARACTER_BOUNDS, 1000)
    return _chart("Length", "characters of the rendered text, up to", list(zip(names, counts, strict=True)))


def _bin_names(bounds: list[int], thousand: int) -> list[str]:
    return [f"{bound / thousand:g}k" if bound >= thousand else str(bound) for bound in bounds] + ["more"]


def _chart(title: str, unit: str, rows: list[tuple[str, int]], mark: tuple[int, str] | None = None) -> dict[str, Any]:
    most = max(rows, key=lambda row: row[1], default=("none", 0))
    label = f"{title}: conversations by {unit}; most, {most[1]:,}, have {most[0]}"
    svg = bar_chart(rows, names=AxisNames(unit, "conversations"), mark=mark, label=label)
    return {"title": title, "unit": unit, "rows": rows, "svg": Markup(svg)}  # bar_chart escapes its labels
