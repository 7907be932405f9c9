"""Plans: how all conversations of a shape are rendered, derived once per shape and proven before use.

The shape of a conversation is the sequence of its roles, each with the kind of its content (normal, blank or empty).
Each shape has one strategy: a `Plan` (the same pieces in the same order for every content), a `Refusal` (the template
raises an error, or the answers cannot be trained), or `RowByRow` (the template inspects contents).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import jinja2

from dataprep.common.errors import TemplateError
from dataprep.rendering.isolation import isolated
from dataprep.rendering.layout import LEFT, RIGHT, ContentKind, Layout, Slot
from dataprep.rendering.rows import Unwritten, render_row
from dataprep.rendering.spans import AnnotatedLayout, annotate
from dataprep.rendering.symbols import ContentInspected, Shape, render_symbolically
from dataprep.rendering.template import Conversation, Template, render, rendering_error
from dataprep.tables import SYSTEM


@dataclass(frozen=True)
class Plan:
    """The pieces, spans and controls of every conversation of a shape."""

    annotated: AnnotatedLayout
    unwritten: Unwritten  # messages that the template leaves out

    def text(self, contents: list[str]) -> str:
        """The text of one conversation, for proofs; `columns` assembles the texts of whole batches."""
        return "".join(
            strip_content(contents[piece.ordinal], piece.strip_sides) if isinstance(piece, Slot) else piece
            for piece in self.annotated.layout.pieces
        )


@dataclass(frozen=True)
class Refusal:
    """No conversation of the shape can be rendered; `detail` is a sentence."""

    detail: str


@dataclass(frozen=True)
class RowByRow:
    """Each conversation has to be rendered by itself; `reason` completes 'the template …'."""

    reason: str


RenderStrategy = Plan | Refusal | RowByRow


def strip_content(content: str, sides: int) -> str:
    """Strip white space, as `str.strip` defines it, on the given sides."""
    content = content.lstrip() if sides & LEFT else content
    return content.rstrip() if sides & RIGHT else content


class Planner:
    """Derives the strategy of each shape of a template, once."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._strategies: dict[Shape, RenderStrategy] = {}

    def strategy(self, shape: Shape) -> RenderStrategy:
        """How conversations of `shape` are rendered."""
        if shape not in self._strategies:
            self._strategies[shape] = derive_strategy(self.template, shape)
        return self._strategies[shape]


@isolated
def derive_strategy(template: Template, shape: Shape) -> RenderStrategy:
    """Derive the strategy of a shape; a process derives those of a template from the same symbolic layouts."""
    key = (template.name, template.sha256)
    if key not in _derivations:
        if len(_derivations) == MAX_DERIVATIONS:
            _derivations.pop(next(iter(_derivations)))
        _derivations[key] = _Derivation(template)
    return _derivations[key].derive(shape)


class _Derivation:
    """Derives the strategies of one template's shapes."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self._layouts: dict[tuple[Shape, bool], Layout] = {}  # of parts of shapes, most of which shapes share

    def derive(self, shape: Shape) -> RenderStrategy:
        problem = shape_problem(self.template, shape)
        if problem:
            return Refusal(problem)
        strategy: Plan | Refusal
        try:
            annotated = annotate(
                self.template,
                [message.turn for message in shape],
                lambda indices, prompt: self._layout(tuple(shape[index] for index in indices), prompt),
            )
            strategy = Plan(annotated, _unwritten(shape, annotated.layout))
        except ContentInspected as inspection:
            return RowByRow(str(inspection))
        except TemplateError as error:
            strategy = Refusal(str(error))
        except jinja2.TemplateError as error:
            strategy = Refusal(str(rendering_error(self.template, error)))
        except Exception as error:  # the template passed a symbol to an operation that only takes strings
            return RowByRow(f"uses an operation on a content that is only defined for text ({error})")
        proven = (
            _plan_holds(self.template, shape, strategy)
            if isinstance(strategy, Plan)
            else _refusal_holds(self.template, shape, strategy)
        )
        return strategy if proven else RowByRow("renders unusual contents differently from its plan")

    def _layout(self, shape: Shape, add_generation_prompt: bool) -> Layout:
        key = (tuple(message._replace(trained=True) for message in shape), add_generation_prompt)
        if key not in self._layouts:
            self._layouts[key] = render_symbolically(self.template, shape, add_generation_prompt)
        return self._layouts[key]


MAX_DERIVATIONS = 16
_derivations: dict[tuple[str, str], _Derivation] = {}  # by name and digest of the template


def _plan_holds(template: Template, shape: Shape, plan: Plan) -> bool:
    """Whether plain Jinja gives the plan's text for the most awkward contents of the shape."""
    try:
        return all(
            render(template, Conversation.of(_messages(shape, contents)).messages) == plan.text(contents)
            for contents in trial_contents(template, shape)
        )
    except TemplateError:
        return False


def _refusal_holds(template: Template, shape: Shape, refusal: Refusal) -> bool:
    """Whether row-by-row rendering refuses such conversations, too, and with the same message."""
    for contents in islice(trial_contents(template, shape), 3):
        try:
            render_row(template, _messages(shape, contents))
            return False
        except TemplateError as error:
            if str(error) != refusal.detail:
                return False
    return True


def _unwritten(shape: Shape, layout: Layout) -> Unwritten:
    """The messages whose text the template leaves out; a plan always writes a content whole or not at all."""
    written = {slot.ordinal for slot in layout.slots}
    missing = [
        message.role == SYSTEM
        for index, message in enumerate(shape)
        if message.kind is ContentKind.NORMAL and index not in written
    ]
    return Unwritten(system=sum(missing), messages=len(missing) - sum(missing))


def _messages(shape: Shape, contents: list[str]) -> list[dict[str, Any]]:
    return [
        {"role": message.role, "content": content, "trained": message.trained}
        for message, content in zip(shape, contents, strict=True)
    ]


def shape_problem(template: Template, shape: Shape) -> str | None:
    """The problem that makes a shape unusable with any template."""
    if not shape:
        return "The conversation has no messages."
    for number, message in enumerate(shape, start=1):
        if message.kind is ContentKind.MISSING:
            return f"Message {number} has no role or no content."
        if template.special_pattern.search(message.role):
            return f"The role {message.role!r} of message {number} contains a special token of the template {template.name}."
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


_MAX_TRIAL_MESSAGES = 64  # in all trials of a shape together; a longer shape is tried once


def trial_contents(template: Template, shape: Shape) -> Iterator[list[str]]:
    """Awkward contents with which a strategy for the shape is tested.

    In shapes of up to five messages each message gets each content. In longer ones each role does, because roles
    alternate and the number of contents is odd.
    """
    own = "".join(template.forbidden_in_content)
    normal = (*_NORMAL, f" {own} ", f"{own}x{own}")
    for trial in range(min(len(normal), max(1, _MAX_TRIAL_MESSAGES // max(1, len(shape))))):
        yield [_trial_content(message.kind, trial + position, normal) for position, message in enumerate(shape)]


def _trial_content(kind: ContentKind, number: int, normal: tuple[str, ...]) -> str:
    if kind is ContentKind.EMPTY:
        return ""
    return _BLANK[number // 2 % len(_BLANK)] if kind is ContentKind.BLANK else normal[number % len(normal)]
