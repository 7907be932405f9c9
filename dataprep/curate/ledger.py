"""The sums that must hold: every record read is somewhere, and `in = kept + dropped + not sampled` in each stage.

What does not add up is a bug of ours: an AssertionError, and no build.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from dataprep.tables import DROPPED, FATES, KEPT, NOT_SAMPLED, conform, fated

STAGES = ("read", "threads", "rules", "dedup", "render", "select")  # that give fates, in this order


@dataclass
class Ledger:
    """The fates handed out so far, and what went in and out of each stage."""

    fates: list[pl.DataFrame] = field(default_factory=list)
    funnel: list[dict[str, Any]] = field(default_factory=list)

    def close(self, stage: str, came: int, left: int, *fates: pl.DataFrame) -> None:
        """Enter a stage to which `came` records came, that left `left` in the game and handed out `fates`.

        Raises:
            AssertionError: the sum does not hold, or the stage before left another number.
        """
        lost = pl.concat([conform(frame, FATES) for frame in fates])
        entry = _entry(stage, came, lost)
        if entry["out"] != left or self.funnel and self.funnel[-1]["out"] != came:
            raise AssertionError(f"{stage}: {came} records came, {lost.height} have a fate, and {left} went on")
        self.fates.append(lost)
        self.funnel.append(entry)


def _entry(stage: str, came: int, lost: pl.DataFrame) -> dict[str, Any]:
    """`stage, in, out, dropped, not_sampled, rules` of a stage that gave the records in `lost` their fates."""
    counts = {fate: lost.filter(fate=fate).height for fate in (DROPPED, NOT_SAMPLED)}
    return {"stage": stage, "in": came, "out": came - lost.height, **counts, "rules": _counts(lost["rule"])}


def funnel_of(fates: pl.DataFrame) -> list[dict[str, Any]]:
    """The entries of all stages, from the fates of a whole build."""
    funnel, left = [], fates.height
    for stage in STAGES:
        funnel.append(_entry(stage, left, fates.filter(stage=stage)))
        left = funnel[-1]["out"]
    return funnel


def check_lines(files: Sequence[tuple[str, int]], read: Sequence[pl.DataFrame], fates: pl.DataFrame) -> None:
    """Every record of the sources is part of what was read, or has a fate.

    Args:
        files: name of each file, and how many records it has, counted before anybody looked into them.
        read: frames of conversations and messages, with `file` and `line`.
        fates: those of reading.

    Raises:
        AssertionError: names the file that lost some.
    """
    named = pl.DataFrame({"source": [name for name, _ in files]}).with_row_index("file")
    placed = [*read, fates.join(named, on="source")]
    lines = pl.concat(frame.select(pl.col("file").cast(pl.Int32), "line") for frame in placed).unique()
    found = dict(lines.group_by("file").len().rows())
    for place, (name, records) in enumerate(files):
        if found.get(place, 0) != records:
            raise AssertionError(f"{name} has {records} records, and {found.get(place, 0)} of them were accounted for")


def check_messages(messages: pl.DataFrame, conversations: pl.DataFrame, fates: pl.DataFrame) -> None:
    """Every message is on a path or has a fate, its own or that of the tree in whose line it stands; and every line has one.

    Args:
        messages: what the threads were chosen from.
        conversations: the threads; `message_ids` are those of their paths.
        fates: of what is on no path.

    Raises:
        AssertionError: some are neither.
    """
    taken = conversations["message_ids"].explode(empty_as_null=False)
    on_path = messages.unique("message_id", keep="first").filter(pl.col("message_id").is_in(taken.implode()))
    aside = fates.filter((pl.col("kind") == "message") & (pl.col("rule") != "on_path"))
    place = ["source", "line"]
    trees = fates.filter(kind="tree").select(place)
    there, told = (
        frame.select(place).join(trees, on=place, how="anti").height
        for frame in (messages, pl.concat([on_path.select(place), aside.select(place)]))
    )
    if there != told:
        raise AssertionError(f"threads: {there} messages came, and {told} are on a path or have a fate")
    lines = pl.concat([conversations.select(place), fates.select(place)])
    silent = messages.select(place).unique().join(lines, on=place, how="anti")
    if silent.height:
        raise AssertionError(f"threads: {silent.height} lines have no fate, such as {silent.row(0)}")


def all_fates(ledger: Ledger, splits: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """One frame of all fates, `row` filled in for records that never became a conversation.

    Raises:
        AssertionError: the sum does not hold.
    """
    kept = [fated(frame, "conversation", KEPT, KEPT, name) for name, frame in splits.items()]
    rows, left = sum(frame.height for frame in kept), ledger.funnel[-1]["out"]
    if rows != left:
        raise AssertionError(f"{left} records were left for the splits, which have {rows}")
    fates = pl.concat([*ledger.fates, *kept])
    numbered = pl.col("row").max().fill_null(-1) + pl.col("row").is_null().cum_sum().cast(pl.Int64)
    return fates.with_columns(row=pl.coalesce("row", numbered), repairs=pl.col("repairs").fill_null([]))


def facts_of(splits: dict[str, pl.DataFrame], fates: pl.DataFrame, ledger: Ledger, notes: list[str]) -> dict[str, Any]:
    """`rows, splits, fates, kinds, repairs, languages, funnel, notes` of a manifest."""
    return {
        "rows": sum(frame.height for frame in splits.values()),
        "splits": {name: {"rows": frame.height} for name, frame in splits.items()},
        **counts_of(fates),
        "languages": languages_of(frame["lang"] for frame in splits.values()),
        "funnel": ledger.funnel,
        "notes": notes,
    }


def counts_of(fates: pl.DataFrame) -> dict[str, Any]:
    """`fates, kinds, repairs` of a manifest."""
    by_fate = _counts(fates["fate"])
    repairs = fates.filter(fate=KEPT)["repairs"].explode(empty_as_null=False).struct.field("rule")
    return {
        "fates": {
            **{fate: by_fate.get(fate, 0) for fate in (KEPT, DROPPED, NOT_SAMPLED)},
            "rules": _counts(fates.filter(fate=DROPPED)["rule"]),
        },
        "kinds": _counts(fates["kind"]),
        "repairs": _counts(repairs),
    }


def languages_of(splits: Iterable[pl.Series]) -> dict[str, int]:
    """`languages` of a manifest, from the column `lang` of each split."""
    return _counts(pl.concat(splits).fill_null("unknown"))


def _counts(values: pl.Series) -> dict[str, int]:
    """How often each value occurs, the most frequent first, ties by name."""
    name = values.name
    return dict(values.value_counts().sort("count", name, descending=[True, False]).rows())
