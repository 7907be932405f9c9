"""What an audit's report shows: the kinds of faults, and rows to look at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dataprep.report.page import page
from dataprep.report.texts import Room

_ROWS = 600  # shown, as many of each kind
_TURNS, _TEXT = 30, 4_000  # of a row, turns and bytes of each


def audit_report(summary: Mapping[str, Any], rows: Iterable[Mapping[str, Any]]) -> str:
    """The report as HTML, with e-mail addresses, keys, card and phone numbers hidden.

    Args:
        summary: as `--json` prints it: file, rows, faulty, kinds, every_row.
        rows: the faulty ones: name (which one it is), faults (kind, detail, sure), messages (role, content).
    """
    room = Room(mask=True)
    file, name = room.texts([summary["file"], summary["file"].rsplit("/", 1)[-1]], 1_000)
    rows = list(rows)
    most = _ROWS // max(len(summary["kinds"]), 1)
    shown = [_row(row) for row in _chosen(rows, most)]
    room.fill(shown, name=300)
    room.fill((fault for one in shown for fault in one["faults"]), detail=500)
    _fill_turns(shown, room)
    view = {
        "file": file,
        "name": name,
        "summary": summary,
        "notes": room.texts(summary["every_row"][:50], 2_000),
        "kinds": sorted(summary["kinds"].items(), key=lambda kind: -kind[1]),
        "certain": sum(any(fault["sure"] == "certain" for fault in row["faults"]) for row in rows),
        "shown": shown,
        "most": most,
    }
    return page("audit.html.jinja", view)


def _chosen(rows: Sequence[Mapping[str, Any]], most: int) -> Iterator[Mapping[str, Any]]:
    """The first `most` rows of each kind, so that a rare one is not lost behind a frequent one."""
    seen: Counter[str] = Counter()
    for row in rows:
        kinds = {fault["kind"] for fault in row["faults"]}
        if any(seen[kind] < most for kind in kinds):
            yield row
        seen.update(kinds)


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    faults, messages = row["faults"], row["messages"]
    return {
        "name": row["name"][:1].upper() + row["name"][1:],
        "faults": [dict(fault) for fault in faults[:_TURNS]],
        "kinds": sorted({fault["kind"] for fault in faults}),
        "sure": sorted({fault["sure"] for fault in faults}),
        "turns": [dict(turn) for turn in messages[:_TURNS]],
        "messages": len(messages),
    }


def _fill_turns(shown: Sequence[dict[str, Any]], room: Room) -> None:
    """Clean and cut the turns of all rows; rows for which there is no room any more are left without."""
    left = room.left
    for one in shown:
        one["turns"] = one["turns"] if left > 0 else []
        left -= sum(min(len(turn["content"]), _TEXT) for turn in one["turns"])  # at least
    turns = [turn for one in shown for turn in one["turns"]]
    for name, most in (("role", 100), ("content", _TEXT)):
        for turn, text in zip(turns, room.clean([turn[name] for turn in turns], most), strict=True):
            turn[name] = text
    for one in shown:
        one["turns"] = one["turns"] if room.left > 0 else []
        for turn in one["turns"]:
            whole = turn["content"]
            turn["role"], turn["content"] = room.fit(turn["role"], 100), room.fit(whole, _TEXT)
            turn["cut"] = turn["content"] != whole
