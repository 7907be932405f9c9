"""Row by row: conversations of a template that looks into their contents.

The text is plain Jinja's; spans and controls come from running the same template on traced strings, which must give
the same text.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from dataprep.common.errors import TemplateError
from dataprep.rendering.layout import Layout, Position
from dataprep.rendering.places import Places, Span, find_places
from dataprep.rendering.taint import run_traced
from dataprep.rendering.template import Template, context, refusal, render


@dataclass(frozen=True)
class Rendered:
    """One conversation; spans and controls in code points of `text`, half-open."""

    text: str
    spans: list[tuple[int, int]]
    controls: list[tuple[int, int]]


class Kept:
    """Rows that were rendered to find out whether they can be, for when they are wanted: as many as fit into `size` bytes.

    Each is given back once. They are known by a digest of the conversation, so that its words are not kept twice.
    """

    def __init__(self, size: int) -> None:
        self._left = size
        self._rows: dict[bytes, Rendered] = {}

    def keep(self, messages: Sequence[Mapping[str, str]], row: Rendered) -> None:
        """Remember `row`, where there is room."""
        size = sys.getsizeof(row.text) + _PLACE_BYTES * (len(row.spans) + len(row.controls))
        if size <= self._left:
            self._left -= size
            self._rows[_digest(messages)] = row

    def take(self, messages: Sequence[Mapping[str, str]]) -> Rendered | None:
        """The row of that conversation, where it is kept."""
        return self._rows.pop(_digest(messages), None) if self._rows else None


_PLACE_BYTES = 128  # a tuple of two numbers and its place in a list


def _digest(messages: Sequence[Mapping[str, str]]) -> bytes:
    return hashlib.blake2b(repr(messages).encode(), digest_size=16).digest()


def render_row(template: Template, messages: Sequence[Mapping[str, str]]) -> Rendered:
    """One conversation with its spans and controls.

    Raises:
        TemplateError: the template refuses it, or it cannot be told what is trained or who wrote a special token.
    """
    text = render(template, messages)
    places, traced = trace(template, messages)
    if traced != text:
        raise TemplateError(
            f"The template {template.name} does something with a content that cannot be followed, so that the places of "
            "its answers are unknown; write it with the usual operations on text."
        )
    starts = [0, *accumulate(_length(piece) for piece in places.layout.pieces)]

    def resolved(found: Sequence[Span]) -> list[tuple[int, int]]:
        return [(_at(start, starts), _at(end, starts)) for start, end in found]

    _refuse_unsure(template, text, places, starts)
    return Rendered(text, resolved(places.spans), resolved(places.controls))


def trace(template: Template, messages: Sequence[Mapping[str, str]]) -> tuple[Places, str]:
    """The places in one conversation, and its text as the traced run gives it.

    Raises:
        TemplateError: as `render_row`.
    """
    texts: list[str] = []

    def run(which: Sequence[int], ask: bool) -> Layout:
        part = [messages[at] for at in which]
        text, layout = run_traced(template.source, part, context(template.variables, ask))
        texts.append(text)
        return layout

    try:
        places = find_places(template, [message["role"] for message in messages], run)
    except TemplateError:
        raise
    except Exception as fault:
        raise refusal(template, fault) from None
    return places, texts[0]


def _length(piece: object) -> int:
    return len(piece) if isinstance(piece, str) else getattr(piece, "length", 0)


def _at(place: Position, starts: Sequence[int]) -> int:
    return starts[place[0]] + place[1]


def _refuse_unsure(template: Template, text: str, places: Places, starts: Sequence[int]) -> None:
    """No special token may touch text of which it is not known who wrote it."""
    unsure = [
        (starts[at], starts[at + 1])
        for at, piece in enumerate(places.layout.pieces)
        if not isinstance(piece, str) and piece.ordinal < 0
    ]
    for found in template.special_pattern.finditer(text) if unsure else ():
        if any(start < found.end() and found.start() < end for start, end in unsure):
            raise TemplateError(
                f"The template {template.name} mixes its own text with contents in a way that hides who wrote the "
                f"{found[0]!r} at character {found.start()}."
            )
