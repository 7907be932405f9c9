"""The sum that must hold: `in = kept + dropped + not sampled`, from stage to stage and over the build."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from dataprep.conversations import DROPPED, FATES, KEPT, NOT_SAMPLED, conform, fated


@dataclass
class Ledger:
    """The fates handed out so far, and what went in and out of each stage."""

    fates: list[pl.DataFrame] = field(default_factory=list)
    funnel: list[dict[str, Any]] = field(default_factory=list)

    def close(self, stage: str, left: int, *fates: pl.DataFrame) -> None:
        """Enter a stage that left `left` records in the game and handed out `fates`; `in` is the sum."""
        lost = pl.concat([conform(frame, FATES) for frame in fates])
        counts = {fate: lost.filter(fate=fate).height for fate in (DROPPED, NOT_SAMPLED)}
        by_rule = lost.group_by("rule").len().sort("len", "rule", descending=[True, False])
        self.fates.append(lost)
        self.funnel.append(
            {"stage": stage, "in": left + lost.height, "out": left, **counts, "rules": dict(by_rule.rows())}
        )


def all_fates(ledger: Ledger, splits: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """One frame of all fates, `row` filled in for records that never became a conversation.

    Raises:
        AssertionError: the sum does not hold; that is a bug of ours.
    """
    kept = [fated(frame, "conversation", KEPT, KEPT, name) for name, frame in splits.items()]
    fates = pl.concat([*ledger.fates, *kept])
    _check_conservation(ledger, sum(frame.height for frame in kept), fates.height)
    numbered = pl.col("row").max().fill_null(-1) + pl.col("row").is_null().cum_sum().cast(pl.Int64)
    return fates.with_columns(row=pl.coalesce("row", numbered), repairs=pl.col("repairs").fill_null([]))


def _check_conservation(ledger: Ledger, kept: int, total: int) -> None:
    """`in = kept + dropped + not sampled`, over the build and from stage to stage."""
    for before, after in zip(ledger.funnel, ledger.funnel[1:], strict=False):
        if before["out"] != after["in"]:
            raise AssertionError(
                f"{before['stage']} gave {before['out']} records and {after['stage']} had {after['in']}"
            )
    lost = sum(stage[DROPPED] + stage[NOT_SAMPLED] for stage in ledger.funnel)
    if not (ledger.funnel[0]["in"] == kept + lost == total):
        raise AssertionError(
            f"{ledger.funnel[0]['in']} read, {kept} kept, {lost} dropped or not sampled, {total} fates"
        )


def facts_of(splits: dict[str, pl.DataFrame], fates: pl.DataFrame, ledger: Ledger, notes: list[str]) -> dict[str, Any]:
    """`rows, splits, fates, kinds, repairs, languages, funnel, notes` of a manifest."""
    by_fate = dict(fates.group_by("fate").len().rows())
    by_rule = (
        fates.filter(pl.col("fate") == DROPPED).group_by("rule").len().sort("len", "rule", descending=[True, False])
    )
    repairs = fates.filter(fate=KEPT)["repairs"].explode(empty_as_null=False).struct.field("rule")
    languages = pl.concat(frame["lang"] for frame in splits.values()).fill_null("unknown")
    return {
        "rows": sum(frame.height for frame in splits.values()),
        "splits": {name: {"rows": frame.height} for name, frame in splits.items()},
        "fates": {
            **{fate: by_fate.get(fate, 0) for fate in (KEPT, DROPPED, NOT_SAMPLED)},
            "rules": dict(by_rule.rows()),
        },
        "kinds": _counts(fates["kind"]),
        "repairs": _counts(repairs),
        "languages": _counts(languages),
        "funnel": ledger.funnel,
        "notes": notes,
    }


def _counts(values: pl.Series) -> dict[str, int]:
    """How often each value occurs, the most frequent first, ties by name."""
    name = values.name
    return dict(values.value_counts().sort("count", name, descending=[True, False]).rows())
