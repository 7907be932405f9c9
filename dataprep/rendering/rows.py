"""Renders conversations one at a time, for templates that inspect contents.

The text comes from plain Jinja. Spans and controls come from a second run on tainted strings, which must give the same
text.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

from dataprep.common.errors import TemplateError
from dataprep.rendering.layout import UNKNOWN_ORIGIN, Layout, Position
from dataprep.rendering.spans import AnnotatedLayout, Span, annotate
from dataprep.rendering.taint import render_tainted
from dataprep.rendering.template import Template, render, rendering_error, template_variables


@dataclass(frozen=True)
class RenderedRow:
    """One rendered conversation; spans and controls are half-open ranges in code points of `text`."""

    text: str
    spans: list[tuple[int, int]]
    controls: list[tuple[int, int]]


class RenderCache:
    """A bounded cache of the rows that `refusals` rendered, so that `batches` need not render them again.

    Each row is returned once. The key is a digest of the conversation, so that its text is not held twice.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free_bytes = max_bytes
        self._rows: dict[bytes, RenderedRow] = {}

    def put(self, messages: Sequence[Mapping[str, str]], row: RenderedRow) -> None:
        """Store `row` unless the cache is full."""
        size = sys.getsizeof(row.text) + _RANGE_BYTES * (len(row.spans) + len(row.controls))
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._rows[_digest(messages)] = row

    def pop(self, messages: Sequence[Mapping[str, str]]) -> RenderedRow | None:
        """Remove and return the row of that conversation, if it is stored."""
        return self._rows.pop(_digest(messages), None) if self._rows else None


_RANGE_BYTES = 128  # a tuple of two integers and its entry in a list


def _digest(messages: Sequence[Mapping[str, str]]) -> bytes:
    return hashlib.blake2b(repr(messages).encode(), digest_size=16).digest()


def render_row(template: Template, messages: Sequence[Mapping[str, str]]) -> RenderedRow:
    """Render one conversation and find its spans and controls.

    Raises:
        TemplateError: the template refuses the conversation, or what is trained or who wrote a special token in it
            cannot be determined.
    """
    text = render(template, messages)
    annotated, tainted_text = annotate_row(template, messages)
    if tainted_text != text:
        raise TemplateError(
            f"The template {template.name} uses an operation on a content that cannot be tracked, so the positions of "
            "its answers are unknown; write it with the usual string operations."
        )
    starts = [0, *accumulate(_length(piece) for piece in annotated.layout.pieces)]

    def in_code_points(spans: Sequence[Span]) -> list[tuple[int, int]]:
        return [(_offset(start, starts), _offset(end, starts)) for start, end in spans]

    _refuse_ambiguous_tokens(template, text, annotated, starts)
    return RenderedRow(text, in_code_points(annotated.spans), in_code_points(annotated.controls))


def annotate_row(template: Template, messages: Sequence[Mapping[str, str]]) -> tuple[AnnotatedLayout, str]:
    """The annotated layout of one conversation, and its text from the run on tainted strings.

    Raises:
        TemplateError: as `render_row`.
    """
    texts: list[str] = []

    def render_subset(indices: Sequence[int], add_generation_prompt: bool) -> Layout:
        subset = [messages[index] for index in indices]
        variables = template_variables(template.variables, add_generation_prompt)
        text, layout = render_tainted(template.source, subset, variables)
        texts.append(text)
        return layout

    try:
        annotated = annotate(template, [message["role"] for message in messages], render_subset)
    except TemplateError:
        raise
    except Exception as error:
        raise rendering_error(template, error) from None
    return annotated, texts[0]


def _length(piece: object) -> int:
    return len(piece) if isinstance(piece, str) else getattr(piece, "length", 0)


def _offset(position: Position, starts: Sequence[int]) -> int:
    return starts[position[0]] + position[1]


def _refuse_ambiguous_tokens(template: Template, text: str, annotated: AnnotatedLayout, starts: Sequence[int]) -> None:
    """Raise an error if a special token overlaps text of unknown origin."""
    unknown = [
        (starts[index], starts[index + 1])
        for index, piece in enumerate(annotated.layout.pieces)
        if not isinstance(piece, str) and piece.ordinal == UNKNOWN_ORIGIN
    ]
    for match in template.special_pattern.finditer(text) if unknown else ():
        if any(start < match.end() and match.start() < end for start, end in unknown):
            raise TemplateError(
                f"The template {template.name} mixes its own text with contents, so it is unknown which of them wrote "
                f"the {match[0]!r} at character {match.start()}."
            )
