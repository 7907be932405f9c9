"""The conversations that a report shows in full: each rendered text, cut where training or a control token begins or ends."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import itemgetter
from typing import Any

from dataprep.common.text import plural
from dataprep.report.texts import MARKUP_BYTES, TextBudget

LENGTHS = (
    ("short", 1_000),
    ("medium", 4_000),
    ("long", None),
)  # class and its limit in code points of the rendered text
_TEXT_BYTES = 14_000  # of one conversation: 200 of them leave space for the rest of the page


def conversations_to_browse(
    drawn: list[tuple[str, int, dict[str, Any]]], budget: TextBudget, text_bytes: int = _TEXT_BYTES
) -> list[dict[str, Any]]:
    """The view of each drawn row, given as (split, number in the split, row), until the budget is used up.

    At most `text_bytes` of each are shown.

    A view has id, split, row, lang, length (name of its class), chars, answers, trained (share of the characters), title,
    remarks (on untrained answers, tool calls, reasoning and tools), turns (trained, and pieces with text and control) and
    whole (whether the pieces are the whole text).
    """
    views = [_view(*row) for row in drawn]
    pieces = [piece for view in views for piece in view["pieces"]]
    for piece, text in zip(pieces, budget.clean([piece["text"] for piece in pieces], _TEXT_BYTES), strict=True):
        piece["text"] = text
    budget.clean_fields(views, id=300, lang=60, title=300)
    shown = []
    for view in views:
        if budget.left > 0:
            view["whole"] = _cut(view["pieces"], budget, text_bytes) and view["all_read"]
            view["turns"] = _turns(view["pieces"])
            shown.append(view)
    return shown


def _view(split: str, row: int, record: Mapping[str, Any]) -> dict[str, Any]:
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
        "remarks": _remarks(record),
        "pieces": pieces,
        "all_read": sum(len(piece["text"]) for piece in pieces) == len(text),
    }


def _remarks(record: Mapping[str, Any]) -> list[str]:
    """Short remarks on what a plain conversation does not have."""
    messages = record["messages"]
    untrained = sum(turn.get("trained") is False for turn in messages)
    calls = sum(_json_length(turn.get("tool_calls")) for turn in messages)
    reasoning = sum(bool(turn.get("reasoning_content")) for turn in messages)
    tools = _json_length(record.get("tools"))
    return [
        *([f"{plural(untrained, 'answer')} as context only"] if untrained else []),
        *([plural(calls, "tool call")] if calls else []),
        *([f"{plural(reasoning, 'answer')} with reasoning"] if reasoning else []),
        *([plural(tools, "tool") + " available"] if tools else []),
    ]


def _json_length(text: str | None) -> int:
    """The number of elements of a JSON list; 0 if there is none."""
    try:
        value = json.loads(text) if text else []
    except ValueError:
        return 0
    return len(value) if isinstance(value, list) else 0


def _pieces(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Pieces of the text between the edges of spans and controls, as many as can be shown.

    No piece is cut here, so that an address or a key in it is recognised whole.
    """
    text, spans, controls = record["text"], record["spans"], record["controls"]
    edges = sorted({0, len(text), *(edge for part in (*spans, *controls) for edge in (part["start"], part["end"]))})
    control_starts = {control["start"] for control in controls}
    span_starts = [span["start"] for span in spans]
    for piece, (start, end) in enumerate(zip(edges, edges[1:], strict=False)):
        if start + piece * MARKUP_BYTES > _TEXT_BYTES:
            break
        latest = bisect_right(span_starts, start) - 1  # the last span that begins at or before the piece
        trained = latest >= 0 and start < spans[latest]["end"]
        yield {"text": text[start:end], "trained": trained, "control": start in control_starts}


def _turns(pieces: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring pieces that are trained, or that are not, as one turn each."""
    return [{"trained": trained, "pieces": list(turn)} for trained, turn in groupby(pieces, itemgetter("trained"))]


def _cut(pieces: list[dict[str, Any]], budget: TextBudget, text_bytes: int) -> bool:
    """Cut the pieces of one conversation to the available bytes, in place; return whether nothing was cut."""
    available = min(text_bytes, budget.left)
    for at, piece in enumerate(pieces):
        before, text = budget.left, piece["text"]
        piece["text"] = budget.take(text, available)
        available -= before - budget.left
        if piece["text"] != text:
            del pieces[at + 1 :]
            return False
    return True
