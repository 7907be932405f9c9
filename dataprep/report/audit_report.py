"""The report of an audit: how often each kind of fault occurs, and faulty rows to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dataprep.report.page import page
from dataprep.report.texts import TextBudget, message_text, speaker

_ROWS = 600  # shown in all, divided equally among the kinds of faults
_TURNS, _TEXT_BYTES = 30, 4_000  # shown of one row: turns, and bytes of each


def audit_report(
    summary: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], words: Mapping[str, str] | None = None
) -> str:
    """The report as HTML, with e-mail addresses, keys, card numbers and phone numbers hidden.

    Args:
        summary: as `--json` prints it: file, rows, faulty, kinds, every_row.
        rows: the faulty rows: name (such as `row 3`), faults (kind, detail, sure), messages (fields of `tables.MESSAGE_FIELDS`).
        words: each kind of fault in plain words.
    """
    budget = TextBudget(mask=True)
    file, name = budget.texts([summary["file"], summary["file"].rsplit("/", 1)[-1]], 1_000)
    rows = sorted(rows, key=lambda row: not _is_certain(row))
    rows_per_kind = _ROWS // max(len(summary["kinds"]), 1)
    shown = [_view(row) for row in _first_of_each_kind(rows, rows_per_kind)]
    budget.clean_fields(shown, name=300)
    budget.clean_fields((fault for row in shown for fault in row["faults"]), detail=500)
    _clean_turns(shown, budget)
    view = {
        "file": file,
        "name": name,
        "summary": summary,
        "note_lines": budget.texts(summary["every_row"][:50], 2_000),
        "kinds": _kinds(summary["kinds"], rows, words or {}),
        "certain": sum(map(_is_certain, rows)),
        "shown": shown,
        "rows_per_kind": rows_per_kind,
    }
    return page("audit.html.jinja", f"Audit of {name}", view)


def _is_certain(row: Mapping[str, Any]) -> bool:
    return any(fault["sure"] == "certain" for fault in row["faults"])


def _kinds(
    counts: Mapping[str, int], rows: Sequence[Mapping[str, Any]], words: Mapping[str, str]
) -> list[dict[str, Any]]:
    """The kinds of faults with their rows, the certain ones first, then by frequency."""
    certain = {fault["kind"] for row in rows for fault in row["faults"] if fault["sure"] == "certain"}
    kinds = [
        {
            "name": kind,
            "words": words.get(kind, kind.replace("_", " ")),
            "rows": count,
            "sure": "certain" if kind in certain else "likely",
        }
        for kind, count in counts.items()
    ]
    return sorted(kinds, key=lambda kind: (kind["sure"] != "certain", -int(kind["rows"])))


def _first_of_each_kind(rows: Sequence[Mapping[str, Any]], limit: int) -> Iterator[Mapping[str, Any]]:
    """The first `limit` rows of each kind of fault, so that frequent kinds do not hide rare ones."""
    seen: Counter[str] = Counter()
    for row in rows:
        kinds = {fault["kind"] for fault in row["faults"]}
        if any(seen[kind] < limit for kind in kinds):
            yield row
        seen.update(kinds)


def _view(row: Mapping[str, Any]) -> dict[str, Any]:
    faults, messages = row["faults"], row["messages"]
    return {
        "name": row["name"][:1].upper() + row["name"][1:],
        "faults": [dict(fault) for fault in sorted(faults, key=lambda fault: fault["sure"] != "certain")[:_TURNS]],
        "kinds": sorted({fault["kind"] for fault in faults}),
        "sure": sorted({fault["sure"] for fault in faults}),
        "turns": [{"role": speaker(turn), "content": message_text(turn)} for turn in messages[:_TURNS]],
        "messages": len(messages),
    }


def _clean_turns(rows: Sequence[dict[str, Any]], budget: TextBudget) -> None:
    """Clean and cut the turns of all rows, in place; rows beyond the budget are shown without their turns."""
    left = budget.left
    for row in rows:
        row["turns"] = row["turns"] if left > 0 else []
        left -= sum(min(len(turn["content"]), _TEXT_BYTES) for turn in row["turns"])  # a lower bound of their bytes
    turns = [turn for row in rows for turn in row["turns"]]
    for name, limit in (("role", 100), ("content", _TEXT_BYTES)):
        for turn, text in zip(turns, budget.clean([turn[name] for turn in turns], limit), strict=True):
            turn[name] = text
    for row in rows:
        row["turns"] = row["turns"] if budget.left > 0 else []
        for turn in row["turns"]:
            text = turn["content"]
            turn["role"], turn["content"] = budget.take(turn["role"], 100), budget.take(text, _TEXT_BYTES)
            turn["cut"] = turn["content"] != text
