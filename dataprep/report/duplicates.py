"""The report's section on duplicates: groups with their texts, and how near-duplicates were searched for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import polars as pl
from markupsafe import Markup

from dataprep.common.charts import AxisNames, Series, line_chart
from dataprep.report.page import percent
from dataprep.report.texts import TextBudget, message_text, speaker

_GROUPS, _MEMBERS = 8, 4  # shown: groups of a kind, members of a group
_TEXT_BYTES, _OPENING_BYTES = 2_000, 160  # of one text, and of its beginning in a heading
_COMPARED = 4_000  # code points of texts that are compared word by word
_CONTEXT = 12  # equal words that are shown before and after a difference
_COMPARED_PARTS = {"thread": "Whole conversations", "prompt": "The user's messages", "answer": "The answers"}


def duplicate_counts(fates: pl.DataFrame) -> dict[str, int]:
    """`groups` of exact or near duplicates, `removed` conversations, and the size of the `largest` group."""
    removed = fates.filter(pl.col("survivor").is_not_null() & (pl.col("kind") == "conversation"))
    groups = removed.group_by("survivor").len()
    count, largest = groups.select(removed=pl.col("len").sum(), largest=pl.col("len").max().fill_null(0) + 1).row(0)
    return {"groups": groups.height, "removed": count, "largest": largest}


def largest_exact_groups(fates: pl.DataFrame) -> pl.DataFrame:
    """The largest groups of exact duplicates: survivor, size (removed members), members (the first: id, source, line)."""
    removed = fates.filter(pl.col("rule") == "exact_duplicate")
    sizes = removed.group_by("survivor").agg(size=pl.len()).sort("size", "survivor", descending=[True, False])
    largest = sizes.head(_GROUPS)
    first = removed.join(largest, on="survivor", how="semi").sort("row").group_by("survivor")
    members = first.agg(members=pl.struct("id", "source", "line").head(_MEMBERS))
    return largest.join(members, on="survivor", how="left", maintain_order="left")


def exact_groups(
    fates: pl.DataFrame, survivors: Mapping[str, Sequence[Mapping[str, Any]]], budget: TextBudget
) -> list[dict[str, Any]]:
    """`largest_exact_groups` with the survivor's opening and text, which are empty where it was dropped later."""
    groups = largest_exact_groups(fates).to_dicts()
    for group in groups:
        messages = survivors.get(group["survivor"], ())
        group["text"], group["opening"] = _as_text(messages), _opening(messages)
        group["more"] = group["size"] - len(group["members"])
        budget.clean_fields(group["members"], id=300, source=300)
    budget.clean_fields(groups, survivor=300, opening=_OPENING_BYTES, text=_TEXT_BYTES)
    return groups


def near_groups(pairs: pl.DataFrame | None, budget: TextBudget) -> list[dict[str, Any]]:
    """Groups of near-duplicates, those with the lowest similarity first, because they are the ones to check.

    Keys: survivor, size, more (members not shown), similarity (the lowest), opening and text of the survivor, and members,
    each with id, similarity and `pieces` of its text, where `differs` marks the words that the survivor does not have.
    """
    if pairs is None or pairs.is_empty():
        return []
    lowest = pairs.group_by("survivor").agg(size=pl.len(), similarity=pl.col("similarity").min())
    groups = lowest.sort("similarity", "survivor").head(_GROUPS).to_dicts()
    for group in groups:
        members = (
            pairs.filter(pl.col("survivor") == group["survivor"]).sort("similarity", "id").head(_MEMBERS).to_dicts()
        )
        survivor = members[0]["survivor_messages"]
        texts = [_as_text(survivor), *(_as_text(member["messages"]) for member in members)]
        group["text"], *member_texts = budget.clean(texts, _COMPARED)
        group["members"] = [
            {
                "id": member["id"],
                "similarity": member["similarity"],
                "pieces": _cut(_pieces(group["text"], text), budget),
            }
            for member, text in zip(members, member_texts, strict=True)
        ]
        group["opening"], group["more"] = _opening(survivor), group["size"] - len(members)
        budget.clean_fields(group["members"], id=300)
    budget.clean_fields(groups, survivor=300, opening=_OPENING_BYTES, text=_TEXT_BYTES)
    return groups


def near_duplicate_search(summary: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How near-duplicates were searched for, with the measured recall; None where the search was off.

    `summary` is the manifest's `near_dup`.
    """
    if not summary:
        return None
    estimate = summary.get("error_budget") or {}
    recall = estimate.get("recall") or []
    bands = [
        {
            "name": f"{band['low']:g} to {band['high']:g}",
            "planted": band["planted"],
            "found": band["found"],
            "recall": percent(band["found"] / band["planted"] if band["planted"] else None),
            "below": band["high"] <= summary["threshold"],
        }
        for band in recall
    ]
    measured = [
        ((band["low"] + band["high"]) / 2, band["found"] / band["planted"]) for band in recall if band["planted"]
    ]
    theory = estimate.get("s_curve") or []
    series = [Series(theory), Series(measured, dots=True)]
    names = AxisNames("exact Jaccard similarity", "share of the pairs that become candidates")
    label = "Recall of the candidate search by similarity"
    chart = line_chart(series, (0, 1), (0, 1), 420, 240, names=names, label=label) if theory else None
    copied = {key: summary[key] for key in ("threshold", "algorithm", "candidates", "proven", "alike", "dropped")}
    compared = _COMPARED_PARTS.get(summary["on"], summary["on"])
    return copied | {"compared": compared, "bands": bands, "curve": Markup(chart) if chart else None}


def _as_text(messages: Sequence[Mapping[str, Any]] | None) -> str:
    return "\n\n".join(f"{speaker(turn)}: {message_text(turn)}" for turn in messages or ())


def _opening(messages: Sequence[Mapping[str, Any]] | None) -> str:
    return " ".join(messages[0]["content"][:1_000].split()) if messages else ""


def _pieces(survivor: str, text: str) -> Iterator[dict[str, Any]]:
    """`text` in pieces that the survivor has or does not have (`differs`); long equal parts are shortened."""
    left, right = (re.findall(r"\s*\S+\s*", side[:_COMPARED]) for side in (survivor, text))
    for kind, _, _, start, end in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        words = right[start:end]
        if kind == "equal" and len(words) > 3 * _CONTEXT:
            words = [*words[:_CONTEXT], "… ", *words[-_CONTEXT:]]
        if words:
            yield {"text": "".join(words), "differs": kind != "equal"}
        elif kind == "delete":
            yield {"text": "⌫", "differs": True}


def _cut(pieces: Iterator[dict[str, Any]], budget: TextBudget) -> list[dict[str, Any]]:
    """As many pieces as fit into the bytes of one text; the last may be cut."""
    shown, available = [], _TEXT_BYTES
    for piece in pieces:
        text = budget.take(piece["text"], available)
        shown.append(piece | {"text": text})
        available -= len(text.encode())
        if text != piece["text"]:
            break
    return shown
