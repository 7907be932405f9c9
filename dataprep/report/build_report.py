"""The report of a build: totals over all rows, and a seeded sample of conversations to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
from markupsafe import Markup

from dataprep.common.charts import bar_chart
from dataprep.options import flag
from dataprep.report import duplicates
from dataprep.report.card import from_sample, origin, rebuild_command
from dataprep.report.collected import CollectedRows
from dataprep.report.page import page
from dataprep.report.public_recipe import without_folders
from dataprep.report.sample import LENGTHS, conversations_to_browse
from dataprep.report.texts import TextBudget
from dataprep.tables import DROPPED

REPORT_FILE = "report.html"

# Shown: examples of a rule, languages, unused fields, failing ids of an expectation.
_EXAMPLES, _LANGUAGES, _FIELDS, _IDS = 3, 12, 30, 50
_LENGTH_BOUNDS = [0, 250, 500, 1_000, 2_000, 4_000, 8_000, 16_000]  # code points


def build_report(
    manifest: Mapping[str, Any],
    collected: CollectedRows,
    fates: pl.DataFrame,
    pairs: pl.DataFrame | None,
    quality: Mapping[str, Any],
    show_personal_data: bool = False,
) -> str:
    """The report as HTML.

    Args:
        manifest: the content of manifest.json.
        collected: what was collected from the rows.
        fates: columns of `tables.FATES`.
        pairs: near-duplicates with the messages of both sides, as `store.shards` reads them; None where there are none.
        quality: the content of quality.json.
        show_personal_data: do not hide e-mail addresses, keys, card numbers and phone numbers.
    """
    budget = TextBudget(mask=not show_personal_data)
    numbers = collected.numbers
    view = {
        "manifest": manifest,
        "origin": budget.texts([origin(manifest)], 1_000)[0],
        "from_sample": from_sample(manifest),
        "notes": budget.texts(manifest["notes"][:50], 1_000),
        "trained": float(numbers["trained"].sum()) / max(int(numbers["chars"].sum()), 1),
        "median": int(numbers.select(pl.col("chars").median().fill_null(0)).item()),
        "charts": _charts(numbers),
        "languages": _most_frequent(manifest["languages"], _LANGUAGES, budget),
        "funnel": _funnel(manifest["funnel"]),
        "rules": _rules(fates, budget),
        "unused_fields": _most_frequent(manifest.get("unused_fields") or {}, _FIELDS, budget),
        "duplicates": duplicates.duplicate_counts(fates),
        "exact_groups": duplicates.exact_groups(fates, collected.survivors, budget),
        "near_groups": duplicates.near_groups(pairs, budget),
        "near": duplicates.near_duplicate_search(manifest.get("near_dup")),
        "quality": quality,
        "checks": _checks(quality["checks"], budget),
        "recipe": _recipe(without_folders(manifest["recipe"]), budget),
        "rebuild": budget.texts([rebuild_command(manifest["recipe"], manifest["name"])], 100_000)[0],
        "lengths": {
            name: f"{name}: up to {bound:,} characters" if bound else f"{name}: more" for name, bound in LENGTHS
        },
        "masked": not show_personal_data,
    }
    sample = conversations_to_browse(collected.sample, budget)  # last: it takes whatever the other texts leave
    view |= {"sample": sample, "sample_languages": sorted({conversation["lang"] for conversation in sample})}
    return page("report.html.jinja", view)


def _charts(numbers: pl.DataFrame) -> list[dict[str, Any]]:
    """Three histograms of the rows, each with the counts that it draws."""
    answers = numbers["answers"].clip(upper_bound=10).value_counts().sort("answers").rows()
    lengths = np.histogram(numbers["chars"].to_numpy(), [*_LENGTH_BOUNDS, np.inf])[0].tolist()
    share = (numbers["trained"] / numbers["chars"]).fill_nan(0).to_numpy()
    shares = np.histogram(share, np.linspace(0, 1, 11))[0].tolist()
    length_names = [f"{n / 1000:g}k" if n >= 1000 else str(n) for n in _LENGTH_BOUNDS[1:]] + ["more"]
    histograms: list[tuple[str, str, list[tuple[str, int]]]] = [
        ("Trained answers", "in a conversation", [("10+" if n == 10 else str(n), count) for n, count in answers]),
        ("Length", "characters of the rendered text, up to", list(zip(length_names, lengths, strict=True))),
        ("Trained share", "percent of the characters, up to", [(f"{10 * n + 10}", c) for n, c in enumerate(shares)]),
    ]
    return [
        {"title": title, "unit": unit, "rows": rows, "svg": Markup(bar_chart(rows))}  # bar_chart escapes its labels
        for title, unit, rows in histograms
    ]


def _most_frequent(counts: Mapping[str, int], limit: int, budget: TextBudget) -> list[tuple[str, int]]:
    """The `limit` most frequent names with their counts, and one entry for all others."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    names = budget.texts([name for name, _ in ordered[:limit]], 60)
    others = ordered[limit:]
    shown = list(zip(names, (count for _, count in ordered), strict=False))
    return shown + ([(f"{len(others)} others", sum(count for _, count in others))] if others else [])


def _funnel(stages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The stages with `share`: what part of all records is left after each."""
    total = max(stages[0]["in"], 1) if stages else 1
    return [{**stage, "share": stage["out"] / total} for stage in stages]


def _rules(fates: pl.DataFrame, budget: TextBudget) -> list[dict[str, Any]]:
    """The rules that dropped records, the most frequent first, each with its first records.

    Without `on_path`: such messages of a flat file are inside a conversation.
    """
    dropped = fates.filter((pl.col("fate") == DROPPED) & (pl.col("rule") != "on_path"))
    example = pl.struct("id", "source", "line", "detail", "survivor")
    grouped = dropped.sort("row").group_by("stage", "rule").agg(count=pl.len(), examples=example.head(_EXAMPLES))
    rules = grouped.sort("count", "rule", descending=[True, False]).to_dicts()
    examples = (record for rule in rules for record in rule["examples"])
    budget.clean_fields(examples, id=300, source=300, detail=700, survivor=300)
    return rules


def _checks(checks: Sequence[Mapping[str, Any]], budget: TextBudget) -> dict[str, list[dict[str, Any]]]:
    """The expectations that failed, that did not apply to any row, and that passed."""
    groups: dict[str, list[dict[str, Any]]] = {"failed": [], "not_applicable": [], "passed": []}
    for check in checks:
        applies = not check["rows"] or check["abstaining"] < check["rows"]
        ids = budget.texts(check["ids"][:_IDS], 200)
        group = ("passed" if check["passed"] else "failed") if applies else "not_applicable"
        groups[group].append({**check, "ids": ids})
    for group_checks in groups.values():
        budget.clean_fields(group_checks, says=1_000, name=200)
    return groups


def _recipe(recipe: Mapping[str, Any], budget: TextBudget) -> list[tuple[str, str]]:
    """The options that are set, as flags, with their values."""
    stated = [(flag(key), value) for key, value in recipe.items() if value not in (None, [], False)]
    values = [", ".join(map(str, value)) if isinstance(value, list) else str(value) for _, value in stated]
    return list(zip((name for name, _ in stated), budget.texts(values, 3_000), strict=True))
