"""What a build's report tells of duplicates: groups with their texts, and how near-duplicates were looked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

import polars as pl

from dataprep.report import charts
from dataprep.report.page import percent
from dataprep.report.texts import Room

_GROUPS, _MEMBERS = 8, 4  # shown: groups of a kind, members of a group
_TEXT, _OPENING = 2_000, 160  # bytes of one text, and of its beginning in a heading
_READ = 4_000  # code points of texts that are compared word by word
_AROUND = 12  # words before and after a difference
_COMPARED = {"thread": "Whole conversations", "prompt": "The user's messages", "answer": "The answers"}
_EXACT = "exact_duplicate"


def counted(fates: pl.DataFrame) -> dict[str, int]:
    """How many conversations stand for others, how many these are, and the largest group."""
    groups = _replaced(fates).group_by("survivor").len()
    members, largest = groups.select(members=pl.col("len").sum(), largest=pl.col("len").max().fill_null(0) + 1).row(0)
    return {"count": groups.height, "members": members, "largest": largest}


def _replaced(fates: pl.DataFrame) -> pl.DataFrame:
    return fates.filter(pl.col("survivor").is_not_null() & (pl.col("kind") == "conversation"))


def repeated(fates: pl.DataFrame) -> pl.DataFrame:
    """survivor, size, members (id, source, line): the largest groups of conversations that are word for word the same."""
    same = fates.filter(pl.col("rule") == _EXACT)
    largest = same.group_by("survivor").agg(size=pl.len()).sort("size", "survivor", descending=[True, False])
    largest = largest.head(_GROUPS)
    members = same.join(largest, on="survivor", how="semi").sort("row").group_by("survivor")
    told = members.agg(members=pl.struct("id", "source", "line").head(_MEMBERS))
    return largest.join(told, on="survivor", how="left", maintain_order="left")


def exact_groups(
    fates: pl.DataFrame, standing: Mapping[str, Sequence[Mapping[str, str]]], room: Room
) -> list[dict[str, Any]]:
    """`repeated`, each with the text that stays where it is `standing` in the build."""
    groups = repeated(fates).to_dicts()
    for group in groups:
        messages = standing.get(group["survivor"], ())
        group["text"], group["opening"] = _said(messages), _opening(messages)
        group["more"] = group["size"] - len(group["members"])
        room.fill(group["members"], id=300, source=300)
    room.fill(groups, survivor=300, opening=_OPENING, text=_TEXT)
    return groups


def near_groups(pairs: pl.DataFrame | None, room: Room) -> list[dict[str, Any]]:
    """Groups of near-duplicates, the least alike first: these are the ones to look at.

    survivor, size, more (members not shown), similarity (the least), opening and text of what stays; members: id,
    similarity, and `pieces` of what each says, where `differs` marks the words that the survivor has not.
    """
    if pairs is None or pairs.is_empty():
        return []
    least = pairs.group_by("survivor").agg(size=pl.len(), similarity=pl.col("similarity").min())
    groups = least.sort("similarity", "survivor").head(_GROUPS).to_dicts()
    for group in groups:
        found = pairs.filter(pl.col("survivor") == group["survivor"]).sort("similarity", "id").head(_MEMBERS).to_dicts()
        stays, *others = room.clean(
            [_said(found[0]["survivor_messages"]), *(_said(one["messages"]) for one in found)], _READ
        )
        group["members"] = [
            {"id": one["id"], "similarity": one["similarity"], "pieces": _fitting(_pieces(stays, text), room)}
            for one, text in zip(found, others, strict=True)
        ]
        group["text"], group["opening"] = stays, _opening(found[0]["survivor_messages"])
        group["more"] = group["size"] - len(found)
        room.fill(group["members"], id=300)
    room.fill(groups, survivor=300, opening=_OPENING, text=_TEXT)
    return groups


def _said(messages: Sequence[Mapping[str, str]] | None) -> str:
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in messages or ())


def _opening(messages: Sequence[Mapping[str, str]] | None) -> str:
    return " ".join(messages[0]["content"][:1_000].split()) if messages else ""


def _pieces(stays: str, text: str) -> Iterator[dict[str, Any]]:
    """`text` in pieces that the survivor has or has not (`differs`); of what both have, only what is around a difference."""
    left, right = (re.findall(r"\s*\S+\s*", side[:_READ]) for side in (stays, text))
    for kind, _, _, start, end in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        words = right[start:end]
        if kind == "equal" and len(words) > 3 * _AROUND:
            words = [*words[:_AROUND], "… ", *words[-_AROUND:]]
        if words:
            yield {"text": "".join(words), "differs": kind != "equal"}
        elif kind == "delete":
            yield {"text": "⌫", "differs": True}


def _fitting(pieces: Iterator[dict[str, Any]], room: Room) -> list[dict[str, Any]]:
    fitted, left = [], _TEXT
    for piece in pieces:
        text = room.fit(piece["text"], left)
        fitted.append(piece | {"text": text})
        left -= len(text.encode())
        if text != piece["text"]:
            break
    return fitted


def looked_for(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """How near-duplicates were looked for, with the error budget that was measured; None where they were not."""
    if not found:
        return None
    budget = found.get("error_budget") or {}
    recall = budget.get("recall") or []
    bands = [
        {
            "name": f"{band['low']:g} to {band['high']:g}",
            "planted": band["planted"],
            "found": band["found"],
            "recall": percent(band["found"] / band["planted"] if band["planted"] else None),
            "below": band["high"] <= found["threshold"],
        }
        for band in recall
    ]
    measured = [
        ((band["low"] + band["high"]) / 2, band["found"] / band["planted"]) for band in recall if band["planted"]
    ]
    told = {key: found[key] for key in ("threshold", "algorithm", "candidates", "proven", "alike", "dropped")}
    compared = _COMPARED.get(found["on"], found["on"])
    return told | {"compared": compared, "bands": bands, "curve": charts.curve(budget.get("s_curve") or [], measured)}
