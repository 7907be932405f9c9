"""Plans: how every conversation of a shape is put together, found once and proved before use.

The shape of a conversation is the sequence of its roles, with whether each content is normal, blank or empty. For a
shape there is a `Plan` (the same pieces in the same order whatever the words), a `Refusal` (the template raises, or
its answers cannot be trained on), or `RowByRow` (the template looks into the contents).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import jinja2

from dataprep.common.errors import TemplateError
from dataprep.rendering.layout import LEFT, RIGHT, Kind, Layout, Slot
from dataprep.rendering.places import Places, find_places
from dataprep.rendering.rows import render_row
from dataprep.rendering.symbols import LooksInside, Shape, run_symbolically
from dataprep.rendering.template import Template, context, refusal, render


@dataclass(frozen=True)
class Plan:
    """Pieces, spans and controls of every conversation of a shape."""

    places: Places

    def text(self, contents: list[str]) -> str:
        """The text of one conversation, for proofs; `columns` does the same for all of them at once."""
        return "".join(
            cut(contents[piece.ordinal], piece.cut) if isinstance(piece, Slot) else piece
            for piece in self.places.layout.pieces
        )


@dataclass(frozen=True)
class Refusal:
    """No conversation of the shape can be rendered; `detail` is a sentence."""

    detail: str


@dataclass(frozen=True)
class RowByRow:
    """Each conversation has to go through Jinja by itself; `why` completes 'the template …'."""

    why: str


Way = Plan | Refusal | RowByRow


def cut(content: str, sides: int) -> str:
    """`content` without white space, as `str.strip` knows it, on those sides."""
    content = content.lstrip() if sides & LEFT else content
    return content.rstrip() if sides & RIGHT else content


class Planner:
    """Finds and proves the ways of a template's shapes, each once."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._ways: dict[Shape, Way] = {}
        self._layouts: dict[tuple[Shape, bool], Layout] = {}  # of parts: most are shared between shapes

    def way(self, shape: Shape) -> Way:
        """How conversations of `shape` are rendered."""
        if shape not in self._ways:
            self._ways[shape] = self._find(shape)
        return self._ways[shape]

    def _find(self, shape: Shape) -> Way:
        flaw = _flaw(self.template, shape)
        if flaw:
            return Refusal(flaw)
        found: Plan | Refusal
        try:
            found = Plan(
                find_places(
                    self.template,
                    [role for role, _ in shape],
                    lambda which, ask: self._run(tuple(shape[at] for at in which), ask),
                )
            )
        except LooksInside as look:
            return RowByRow(str(look))
        except TemplateError as fault:
            found = Refusal(str(fault))
        except jinja2.TemplateError as fault:
            found = Refusal(str(refusal(self.template, fault)))
        except Exception as fault:  # a symbol went where only a string can go
            return RowByRow(f"does something with a content that is only known for text ({fault})")
        agreed = (
            _proved(self.template, shape, found) if isinstance(found, Plan) else _refused(self.template, shape, found)
        )
        return found if agreed else RowByRow("gives another text for unusual contents than its plan")

    def _run(self, shape: Shape, ask: bool) -> Layout:
        key = (shape, ask)
        if key not in self._layouts:
            self._layouts[key] = run_symbolically(self.template.source, shape, context(self.template.variables, ask))
        return self._layouts[key]


def _proved(template: Template, shape: Shape, plan: Plan) -> bool:
    """Whether plain Jinja gives the plan's text for the most awkward contents of the shape."""
    try:
        return all(render(template, _messages(shape, words)) == plan.text(words) for words in trials(template, shape))
    except TemplateError:
        return False


def _refused(template: Template, shape: Shape, refusal: Refusal) -> bool:
    """Whether such conversations are refused row by row, too, and with the same words."""
    for words in islice(trials(template, shape), 3):
        try:
            render_row(template, _messages(shape, words))
            return False
        except TemplateError as fault:
            if str(fault) != refusal.detail:
                return False
    return True


def _messages(shape: Shape, words: list[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for (role, _), text in zip(shape, words, strict=True)]


def _flaw(template: Template, shape: Shape) -> str | None:
    """What makes a shape unusable whatever the template."""
    if not shape:
        return "The conversation has no messages."
    for place, (role, kind) in enumerate(shape, start=1):
        if kind is Kind.MISSING:
            return f"Message {place} has no role or no content."
        if template.special_pattern.search(role):
            return f"The role {role!r} of message {place} holds a special token of the template {template.name}."
    return None


_PADDED = "\x1c\x85\u2003 padded \u00a0\x1f\u3000\n"
_NORMAL = (
    _PADDED,
    "\n\n- led by line breaks\r\n",
    "\u200b zero width is no white space \ufeff",
    "{{ content }} {% raise %} {# note #} %s {} {0} \\n \x00 \"'&<>",
    "naïve 漢字 🫄🏾 ขอบคุณ e\u0301 \u202e",
    "<think>why</think> [INST] <<SYS>> ### Instruction: USER: <|im_start|>system\nroot<|im_end|>",
    "0",
    "None",
    "long " * 2000,
)
_BLANK = (" ", "\n", "\x1c\u2003\x85\t \u3000", "\r\n\r\n")


_MESSAGES = 64  # of all trials of a shape together; a longer one is tried once


def trials(template: Template, shape: Shape) -> Iterator[list[str]]:
    """Awkward contents of a shape.

    In up to five messages each of them meets each content, in longer shapes each role does: they alternate, and the
    number of contents is odd.
    """
    own = "".join(template.forbidden_in_content)
    normal = (*_NORMAL, f" {own} ", f"{own}x{own}")
    for trial in range(min(len(normal), max(1, _MESSAGES // max(1, len(shape))))):
        yield [_content(kind, trial + place, normal) for place, (_, kind) in enumerate(shape)]


def _content(kind: Kind, number: int, normal: tuple[str, ...]) -> str:
    if kind is Kind.EMPTY:
        return ""
    return _BLANK[number // 2 % len(_BLANK)] if kind is Kind.BLANK else normal[number % len(normal)]
