"""The report of a build: totals over all rows, and a seeded sample of conversations to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl

from dataprep.common.conversation_funnel import conversation_funnel
from dataprep.common.text import plural
from dataprep.options import flag
from dataprep.report import duplicates
from dataprep.report.card import from_sample, origin, rebuild_command
from dataprep.report.collected import CollectedRows
from dataprep.report.lengths import charts, length_summary
from dataprep.report.page import page, percent
from dataprep.report.public_recipe import without_folders
from dataprep.report.reasons import reasons
from dataprep.report.sample import LENGTHS, conversations_to_browse
from dataprep.report.texts import TextBudget

REPORT_FILE = "report.html"

_LANGUAGES, _FIELDS, _IDS = 12, 30, 50  # shown: languages, unused fields, failing ids of an expectation


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
    numbers, tokens = collected.numbers, quality.get("token_lengths")
    funnel = conversation_funnel(manifest)
    view = {
        "manifest": manifest,
        "origin": budget.texts([origin(manifest)], 1_000)[0],
        "from_sample": from_sample(manifest),
        "note_lines": budget.texts(manifest["notes"][:50], 1_000),
        "key_figures": _key_figures(manifest, numbers, tokens),
        "charts": charts(numbers, tokens),
        "length_summary": length_summary(numbers, tokens),
        "languages": _most_frequent(manifest["languages"], _LANGUAGES, budget),
        "funnel": funnel,
        "before": reasons([rule for rule in funnel.before if rule.rule != "on_path"], fates, budget),
        "removed": reasons(funnel.lost, fates, budget, funnel.conversations),
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
    view["sections"] = _sections(view)
    return page("report.html.jinja", f"{manifest['name']} · {manifest['version']}", view)


def _key_figures(
    manifest: Mapping[str, Any], numbers: pl.DataFrame, tokens: Mapping[str, Any] | None
) -> list[tuple[str, str]]:
    """Value and name of the figures at the top of the page."""
    trained, chars = int(numbers["trained"].sum()), int(numbers["chars"].sum())
    median = int(numbers.select(pl.col("chars").median().fill_null(0)).item())
    splits = [(f"{split['rows']:,}", f"conversations in {name}") for name, split in manifest["splits"].items()]
    length = (f"{tokens['median']:,}", "tokens, median") if tokens else (f"{median:,}", "characters, median")
    count = len(manifest["languages"].keys() - {"unknown"})
    languages = [(f"{count:,}", "language" if count == 1 else "languages")] if count else []
    return [
        *splits,
        (f"{int(numbers['answers'].sum()):,}", "trained answers"),
        (percent(trained / max(chars, 1)), "of the text is trained"),
        length,
        *languages,
    ]


def _sections(view: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Id, title and count of each section, for the table of contents."""
    left_out = sum(reason["count"] for reason in view["removed"])
    failed = view["checks"]["failed"]
    severe = any(check["severity"] == "critical" for check in failed)
    return [
        ("browse", "Conversations", f"{len(view['sample']):,}"),
        ("gate", "Quality", plural(len(failed), "failure" if severe else "warning") if failed else ""),
        ("duplicates", "Duplicates", f"{view['duplicates']['removed']:,}"),
        ("lengths", "Lengths", ""),
        ("funnel", "Left out", f"{left_out:,}"),
        ("recipe", "Recipe", ""),
    ]


def _most_frequent(counts: Mapping[str, int], limit: int, budget: TextBudget) -> list[tuple[str, int]]:
    """The `limit` most frequent names with their counts, and one entry for all others."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    names = budget.texts([name for name, _ in ordered[:limit]], 60)
    others = ordered[limit:]
    shown = list(zip(names, (count for _, count in ordered), strict=False))
    return shown + ([(f"{len(others)} others", sum(count for _, count in others))] if others else [])


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
