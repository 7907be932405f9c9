"""Counts over fates: the funnel of a build and the figures that its manifest gives.

`store verify` computes them again from the files of a build and compares.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import polars as pl

from dataprep.tables import DROPPED, KEPT, NOT_SAMPLED

STAGES = ("read", "threads", "rules", "dedup", "render", "select")  # the stages that assign fates, in order


def funnel_of(fates: pl.DataFrame) -> list[dict[str, Any]]:
    """One entry for each of `STAGES`: `stage, in, out, dropped, not_sampled, rules`.

    Args:
        fates: FATES of a whole build, the kept conversations among them.
    """
    funnel, remaining = [], fates.height
    for stage in STAGES:
        assigned = fates.filter(stage=stage)
        counts = {fate: assigned.filter(fate=fate).height for fate in (DROPPED, NOT_SAMPLED)}
        out = remaining - assigned.height
        funnel.append({"stage": stage, "in": remaining, "out": out, **counts, "rules": counts_by(assigned["rule"])})
        remaining = out
    return funnel


def fate_counts(fates: pl.DataFrame) -> dict[str, Any]:
    """`fates, kinds, repairs` of a manifest."""
    by_fate = counts_by(fates["fate"])
    repairs = fates.filter(fate=KEPT)["repairs"].explode(empty_as_null=False).struct.field("rule")
    return {
        "fates": {
            **{fate: by_fate.get(fate, 0) for fate in (KEPT, DROPPED, NOT_SAMPLED)},
            "rules": counts_by(fates.filter(fate=DROPPED)["rule"]),
        },
        "kinds": counts_by(fates["kind"]),
        "repairs": counts_by(repairs),
    }


def language_counts(splits: Iterable[pl.Series]) -> dict[str, int]:
    """`languages` of a manifest, from the column `lang` of each split."""
    return counts_by(pl.concat(splits).fill_null("unknown"))


def counts_by(values: pl.Series) -> dict[str, int]:
    """The number of times each value occurs, the most frequent first, ties by name."""
    name = values.name
    return dict(values.value_counts().sort("count", name, descending=[True, False]).rows())
