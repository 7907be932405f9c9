"""What a build's report shows: aggregates over all rows, and a seeded sample of conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from dataprep.recipe import flag
from dataprep.report import charts, duplicates
from dataprep.report.card import from_sample, origin, rebuild_command
from dataprep.report.page import page
from dataprep.report.sample import LENGTHS, browsable
from dataprep.report.shown import Shown
from dataprep.report.texts import Room
from dataprep.tables import DROPPED

REPORT_FILE = "report.html"

_EXAMPLES, _LANGUAGES, _IDS = 3, 12, 50
_LENGTHS = [0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000]


def build_report(
    manifest: Mapping[str, Any],
    shown: Shown,
    fates: pl.DataFrame,
    pairs: pl.DataFrame | None,
    quality: Mapping[str, Any],
    show_personal_data: bool = False,
) -> str:
    """The report as HTML.

    Args:
        manifest: the build's facts.
        shown: what is needed of the rows.
        fates: columns of `conversations.FATES`.
        pairs: near-duplicates with both texts, columns of `build.duplicate_pairs`; None where there are none.
        quality: what quality.json holds.
        show_personal_data: leave e-mail addresses, keys, card and phone numbers in the texts.
    """
    room = Room(mask=not show_personal_data)
    numbers = shown.numbers
    view = {
        "manifest": manifest,
        "origin": room.texts([origin(manifest)], 1_000)[0],
        "from_sample": from_sample(manifest),
        "notes": room.texts(manifest["notes"][:50], 1_000),
        "trained": float(numbers["trained"].sum()) / max(int(numbers["chars"].sum()), 1),
        "median": int(numbers.select(pl.col("chars").median().fill_null(0)).item()),
        "charts": _charts(numbers),
        "languages": _languages(manifest["languages"], room),
        "funnel": _funnel(manifest["funnel"]),
        "rules": _rules(fates, room),
        "duplicates": duplicates.counted(fates),
        "exact_groups": duplicates.exact_groups(fates, shown.standing, room),
        "near_groups": duplicates.near_groups(pairs, room),
        "near": duplicates.looked_for(manifest.get("near_dup")),
        "quality": quality,
        "checks": _checks(quality["checks"], room),
        "recipe": _recipe(manifest["recipe"], room),
        "rebuild": room.texts([rebuild_command(manifest["recipe"], manifest["name"])], 100_000)[0],
        "lengths": _length_choices(),
        "masked": not show_personal_data,
    }
    sample = browsable(shown.sample, room)  # it takes the room that the others leave
    view |= {"sample": sample, "sample_languages": sorted({one["lang"] for one in sample})}
    return page("report.html.jinja", view)


def _charts(numbers: pl.DataFrame) -> list[dict[str, Any]]:
    """Charts, each with the numbers that it draws."""
    answers = numbers["answers"].clip(upper_bound=10).value_counts().sort("answers").rows()
    lengths = np.histogram(numbers["chars"].to_numpy(), [*_LENGTHS, np.inf])[0].tolist()
    share = (numbers["trained"] / numbers["chars"]).fill_nan(0).to_numpy()
    shares = np.histogram(share, np.linspace(0, 1, 11))[0].tolist()
    names = [f"{n / 1000:g}k" if n >= 1000 else str(n) for n in _LENGTHS[1:]] + ["more"]
    drawn: list[tuple[str, str, list[tuple[str, int]]]] = [
        ("Answers in a conversation", "answers", [("10+" if n == 10 else str(n), count) for n, count in answers]),
        ("Length", "characters of the rendered text, up to", list(zip(names, lengths, strict=True))),
        ("Trained share", "percent of the characters, up to", [(f"{10 * n + 10}", c) for n, c in enumerate(shares)]),
    ]
    return [{"title": title, "unit": unit, "rows": rows, "svg": charts.columns(rows)} for title, unit, rows in drawn]


def _languages(counts: Mapping[str, int], room: Room) -> list[tuple[str, int]]:
    """The most frequent ones and how many conversations are in each, then the others together."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    names = room.texts([name for name, _ in ordered[:_LANGUAGES]], 60)
    rest = ordered[_LANGUAGES:]
    told = list(zip(names, (count for _, count in ordered), strict=False))
    return told + ([(f"{len(rest)} others", sum(count for _, count in rest))] if rest else [])


def _funnel(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stages with `share`, that of all records that leave them."""
    total = max(stages[0]["in"], 1) if stages else 1
    return [{**stage, "share": stage["out"] / total} for stage in stages]


def _rules(fates: pl.DataFrame, room: Room) -> list[dict[str, Any]]:
    """Rules that dropped something, the most frequent first, each with its first records; not the parts of conversations."""
    dropped = fates.filter((pl.col("fate") == DROPPED) & (pl.col("rule") != "on_path"))
    first = (
        dropped.sort("row")
        .group_by("stage", "rule")
        .agg(
            count=pl.len(),
            examples=pl.struct("id", "source", "line", "detail", "survivor").head(_EXAMPLES),
        )
    )
    rows = first.sort("count", "rule", descending=[True, False]).to_dicts()
    room.fill((example for row in rows for example in row["examples"]), id=300, source=300, detail=700, survivor=300)
    return rows


def _checks(checks: Sequence[Mapping[str, Any]], room: Room) -> dict[str, list[dict[str, Any]]]:
    """The expectations that do not hold, those that nothing could be judged by, and those that hold."""
    told: dict[str, list[dict[str, Any]]] = {"failed": [], "silent": [], "held": []}
    for check in checks:
        silent = bool(check["rows"]) and check["abstaining"] == check["rows"]
        ids = room.texts(check["ids"][:_IDS], 200)
        told["silent" if silent else "held" if check["passed"] else "failed"].append({**check, "ids": ids})
    for group in told.values():
        room.fill(group, says=1_000, name=200)
    return told


def _recipe(recipe: Mapping[str, Any], room: Room) -> list[tuple[str, str]]:
    """Options that are set, as flags, with their values."""
    stated = [(flag(key), value) for key, value in recipe.items() if value not in (None, [], False)]
    values = [", ".join(map(str, value)) if isinstance(value, list) else str(value) for _, value in stated]
    return list(zip((name for name, _ in stated), room.texts(values, 3_000), strict=True))


def _length_choices() -> dict[str, str]:
    """The names of lengths, and what they mean."""
    return {name: f"{name}: up to {bound:,} characters" if bound else f"{name}: more" for name, bound in LENGTHS}
