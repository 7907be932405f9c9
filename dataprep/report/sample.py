"""The conversations to browse: each rendered text in pieces, by what is trained and what the template wrote."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from typing import Any

from dataprep.report.texts import AROUND, Room

LENGTHS = (("short", 1_000), ("medium", 4_000), ("long", None))  # code points of a rendered text, up to
_TEXT = 14_000  # bytes of one: two hundred of these leave room for the rest of the page


def browsable(drawn: list[tuple[str, int, dict[str, Any]]], room: Room) -> list[dict[str, Any]]:
    """Of (split, row in it, row): what is told of each, and its `pieces`, as long as there is room."""
    told = [_told(*one) for one in drawn]
    pieces = [piece for one in told for piece in one["pieces"]]
    for piece, text in zip(pieces, room.clean([piece["text"] for piece in pieces], _TEXT), strict=True):
        piece["text"] = text
    room.fill(told, id=300, lang=60, title=300)
    shown = []
    for one in told:
        if room.left > 0:
            one["whole"] = _fit(one["pieces"], room) and one["all_read"]
            shown.append(one)
    return shown


def _told(split: str, row: int, record: Mapping[str, Any]) -> dict[str, Any]:
    text, spans = record["text"], record["spans"]
    pieces = list(_pieces(record))
    question = next((turn["content"] for turn in record["messages"] if turn["role"] == "user"), "")
    return {
        "id": record["id"],
        "split": split,
        "row": row,
        "lang": record["lang"] or "unknown",
        "length": next(name for name, bound in LENGTHS if bound is None or len(text) <= bound),
        "chars": len(text),
        "answers": len(spans),
        "trained": sum(span["end"] - span["start"] for span in spans) / max(len(text), 1),
        "title": " ".join(question[:2_000].split()),
        "pieces": pieces,
        "all_read": sum(len(piece["text"]) for piece in pieces) == len(text),
    }


def _pieces(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The text cut at spans and controls (whole pieces, so that an address in one is whole too), as far as it may be shown."""
    text, spans, controls = record["text"], record["spans"], record["controls"]
    edges = sorted({0, len(text), *(edge for part in (*spans, *controls) for edge in (part["start"], part["end"]))})
    starts = {control["start"] for control in controls}
    begins = [span["start"] for span in spans]
    for piece, (start, end) in enumerate(zip(edges, edges[1:], strict=False)):
        if start + piece * AROUND > _TEXT:
            break
        at = bisect_right(begins, start) - 1  # the span that began last
        trained = at >= 0 and start < spans[at]["end"]
        yield {"text": text[start:end], "trained": trained, "control": start in starts}


def _fit(pieces: list[dict[str, Any]], room: Room) -> bool:
    """Cut the pieces of one conversation to what may be shown; whether that is all of it."""
    left = min(_TEXT, room.left)
    for at, piece in enumerate(pieces):
        before, whole = room.left, piece["text"]
        piece["text"] = room.fit(whole, left)
        left -= before - room.left
        if piece["text"] != whole:
            del pieces[at + 1 :]
            return False
    return True
