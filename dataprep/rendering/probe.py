"""Probes a template with the simplest conversations: does it end its answers, can it be trained with, how is it rendered?"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import takewhile
from typing import Any

from dataprep.common.errors import TemplateError
from dataprep.rendering.isolation import isolated
from dataprep.rendering.layout import TOOLS_ORIGIN, ContentKind, Field, Layout, PlacedSlot
from dataprep.rendering.plan import Planner, Refusal, RowByRow
from dataprep.rendering.rows import (
    REASONING_NOT_IN_TEMPLATE,
    TOOLS_NOT_IN_TEMPLATE,
    Messages,
    UnsupportedField,
    annotate_row,
    render_row,
)
from dataprep.rendering.sandbox import undeclared_variables
from dataprep.rendering.spans import find_end_token, special_tokens_in
from dataprep.rendering.symbols import MessageShape, Shape
from dataprep.rendering.taint import render_tainted
from dataprep.rendering.template import Conversation, Template, render, rendering_error
from dataprep.tables import ASSISTANT, SYSTEM, USER

_CONTENTS = {SYSTEM: "a system text", USER: "a question", ASSISTANT: "an answer"}
_ONE_TURN, _TWO_TURNS = (USER, ASSISTANT), (USER, ASSISTANT, USER, ASSISTANT)


def _conversation(roles: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{_CONTENTS[role]} {index}"} for index, role in enumerate(roles)]


@isolated
def text_around_contents(template: Template, messages: Sequence[Mapping[str, Any]]) -> list[str]:
    """The template's own text before, between and after the contents of one conversation.

    Raises:
        TemplateError: the template refuses the conversation.
    """
    return _layout(template, Conversation(messages)).constants()


def _layout(template: Template, conversation: Conversation) -> Layout:
    try:
        return render_tainted(template, conversation, add_generation_prompt=False)[1]
    except Exception as error:
        raise rendering_error(template, error) from None


@isolated
def answer_ending(template: Template, roles: Sequence[str] = _ONE_TURN) -> str:
    """The text that the template writes after the first answer of a simple conversation.

    Raises:
        TemplateError: it refuses that conversation, or does not write the answer.
    """
    layout = _layout(template, Conversation(_conversation(roles)))
    answer = [index for index, slot in enumerate(layout.slots) if slot.ordinal == 1]
    if not answer:
        raise TemplateError(
            f"The template {template.name} does not write the assistant's answer, so nothing could be trained."
        )
    return layout.constants()[answer[-1] + 1]


@isolated
def completed(template: Template) -> Template:
    """Fill in what the loaded file does not state: the form in which contents are passed, and the end token."""
    if not _writes_answer(template):
        in_parts = replace(template, content_parts=True)
        template = in_parts if _writes_answer(in_parts) else template
    if template.end_token:
        return template
    end_token, inner_end_token = _end_tokens(template)
    return replace(template, end_token=end_token, inner_end_token=inner_end_token)


def _writes_answer(template: Template) -> bool:
    try:
        answer_ending(template)
    except TemplateError:
        return False
    return True


def _end_tokens(template: Template) -> tuple[str | None, str | None]:
    """The token that ends an answer, and the one that ends an answer before another message if that differs.

    A template may close an answer with several special tokens; the last of them counts. Those that it writes only at
    the end of a conversation, or that open the next message, do not belong to them.
    """
    try:
        closing = special_tokens_in(template, answer_ending(template))
    except TemplateError:
        return None, None
    try:
        before_question = special_tokens_in(template, answer_ending(template, _TWO_TURNS))
    except TemplateError:  # the template takes single questions only
        before_question = closing
    common = [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], zip(closing, before_question, strict=False))]
    if common or not closing or not before_question:
        return next(reversed(common), None), None
    return closing[-1], before_question[0]


@dataclass(frozen=True)
class Capabilities:
    """Which optional parts of a conversation a template writes."""

    tools: bool
    tool_calls: bool
    reasoning: bool

    @property
    def written(self) -> tuple[str, ...]:
        """The names of the parts that the template writes."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name))

    def require(self, template: Template, messages: Messages, tools: str | None) -> None:
        """Raises:
        UnsupportedField: the conversation has a part that the template never writes.
        """
        if tools is not None and not self.tools:
            raise UnsupportedField(
                TOOLS_NOT_IN_TEMPLATE,
                f"The template {template.name} does not write the tools that the conversation offers to the model.",
            )
        for number, message in enumerate(messages, start=1):
            if message.get("tool_calls") is not None and not self.tool_calls:
                raise UnsupportedField(
                    TOOLS_NOT_IN_TEMPLATE,
                    f"The template {template.name} does not write tool calls, which message {number} has.",
                )
            if message.get("reasoning_content") is not None and not self.reasoning:
                raise UnsupportedField(
                    REASONING_NOT_IN_TEMPLATE,
                    f"The template {template.name} does not write reasoning, which message {number} has.",
                )


_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Look something up.",
        "parameters": {"type": "object", "properties": {"term": {"type": "string", "description": "What to find."}}},
    },
}
_CALL = {"type": "function", "id": "call12345", "function": {"name": "look_up", "arguments": {"term": "a term"}}}


@isolated
def capabilities(template: Template) -> Capabilities:
    """Find out which optional parts of a conversation a template writes."""
    call: list[dict[str, Any]] = [
        {"role": USER, "content": "a question"},
        {"role": ASSISTANT, "content": "", "tool_calls": [_CALL]},
        {"role": "tool", "content": "a result", "name": "look_up", "tool_call_id": "call12345"},
        {"role": ASSISTANT, "content": "an answer"},
    ]
    reasoning: list[dict[str, Any]] = [
        {"role": USER, "content": "a question"},
        {"role": ASSISTANT, "content": "an answer", "reasoning_content": "a thought"},
    ]
    return Capabilities(
        tools=any(slot.ordinal == TOOLS_ORIGIN for slot in _slots(template, Conversation(call[:1], [_TOOL]))),
        tool_calls=any(slot.field is Field.TOOL_CALLS for slot in _slots(template, Conversation(call, [_TOOL]))),
        reasoning=any(slot.field is Field.REASONING for slot in _slots(template, Conversation(reasoning))),
    )


def _slots(template: Template, conversation: Conversation) -> tuple[PlacedSlot, ...]:
    try:
        return _layout(template, conversation).slots
    except TemplateError:
        return ()


@isolated
def require_trainable(template: Template) -> None:
    """Raises:
    TemplateError: an answer could not be trained, or a model trained with the template would never learn to stop.
    """
    find_end_token(template, answer_ending(template))
    one_turn, two_turns = _conversation(_ONE_TURN), _conversation(_TWO_TURNS)
    render_row(template, one_turn)
    if not _refuses(template, two_turns):  # templates for single questions are allowed
        render_row(template, two_turns)


def _refuses(template: Template, messages: list[dict[str, str]]) -> bool:
    try:
        render(template, messages)
    except TemplateError:
        return True
    return False


@dataclass(frozen=True)
class TemplateCheck:
    """What `dataprep templates check` reports."""

    name: str
    problems: tuple[str, ...]  # each makes the template unusable
    warnings: tuple[str, ...]
    special_tokens: tuple[str, ...]
    forbidden: tuple[str, ...]
    end_token: str | None
    rendering: str | None  # `by columns` or `row by row`; None for an unusable template
    reason: str | None  # why it is rendered row by row; completes 'it …'
    writes: tuple[str, ...] = ()  # of tools, tool_calls and reasoning: those that the template writes

    @property
    def usable(self) -> bool:
        return not self.problems

    def as_record(self) -> dict[str, Any]:
        """The check as JSON."""
        return {
            "name": self.name,
            "sound": self.usable,
            "problems": self.problems,
            "warnings": self.warnings,
            "special_tokens": self.special_tokens,
            "forbidden": self.forbidden,
            "end_token": self.end_token,
            "way": self.rendering,
            "why": self.reason,
            "writes": self.writes,
        }

    def describe(self) -> str:
        """The check as a few lines of text."""
        lines = [f"{self.name}: {'usable' if self.usable else 'not usable'}"]
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  special tokens: {' '.join(self.special_tokens) or 'none'}"]
        lines += [f"  also forbidden in contents: {' '.join(self.forbidden)}"] if self.forbidden else []
        lines += [f"  end of an answer: {self.end_token or 'no special token'}"]
        reason = f" (it {self.reason})" if self.reason else ""
        lines += [f"  rendered: {self.rendering}{reason}"] if self.rendering else []
        lines += [f"  also writes: {', '.join(self.writes).replace('_', ' ')}"] if self.writes else []
        return "\n".join(lines)


@isolated
def check_template(template: Template) -> TemplateCheck:
    """Check whether a template can be used, and whether it is rendered by columns or row by row."""
    problems: list[str] = []
    try:
        require_trainable(template)
    except TemplateError as error:
        problems.append(str(error))
    planner = Planner(template)
    # Strategies of an unusable template are not derived: an endless template would run to its limit for each shape.
    strategies = [] if problems else [planner.strategy(shape) for shape in _common_shapes()]
    row_by_row = [strategy.reason for strategy in strategies if isinstance(strategy, RowByRow)]
    return TemplateCheck(
        name=template.name,
        problems=tuple(problems),
        warnings=tuple(() if problems else warnings(template)),
        special_tokens=template.special_tokens,
        forbidden=template.forbidden,
        end_token=template.end_token,
        rendering=None if problems else "row by row" if row_by_row else "by columns",
        reason=row_by_row[0] if row_by_row else None,
        writes=() if problems else capabilities(template).written,
    )


def _common_shapes() -> list[Shape]:
    """Common shapes: with and without a system message, with normal, blank and empty contents."""
    role_sequences = [_ONE_TURN, _TWO_TURNS, (SYSTEM, *_ONE_TURN), (SYSTEM, *_TWO_TURNS), (*_ONE_TURN, USER)]
    kinds = (ContentKind.NORMAL, ContentKind.BLANK, ContentKind.EMPTY)
    return [tuple(MessageShape(role, kind) for role in roles) for roles in role_sequences for kind in kinds]


_EMPTY_REASONING = re.compile(r"\s*(<(\w*think\w*)>\s*)?(</\w*think\w*>)?\s*")  # trained as the model has to emit it


@isolated
def warnings(template: Template) -> list[str]:
    """Warnings about a usable template; each is a sentence without its full stop."""
    texts = []
    with_system = Planner(template).strategy(
        tuple(MessageShape(role, ContentKind.NORMAL) for role in (SYSTEM, *_ONE_TURN))
    )
    if isinstance(with_system, Refusal):
        texts.append(f"conversations with a system message are dropped: {with_system.detail}")
    annotated, _ = annotate_row(template, Conversation(_conversation(_ONE_TURN)))
    headers = [header for header in annotated.headers if not _EMPTY_REASONING.fullmatch(header)]
    if headers:
        texts.append(
            f"{headers[0]!r} before each answer is trained, too, because the generation prompt ends before it "
            "(does the template use `add_generation_prompt`?)"
        )
    constants = "\0".join(piece for piece in annotated.layout.pieces if isinstance(piece, str))
    if template.guessed_tokens:
        texts.append(
            f"its special tokens were guessed from their spelling: {' '.join(template.special_tokens)}; state them in a "
            "header, or put the tokenizer's configuration beside the template"
        )
        texts += [
            f"{name} is not known and is written as nothing"
            for name in sorted(undeclared_variables(template.source) & {"bos_token", "eos_token"})
        ]
    unlisted = sorted(set(re.findall(r"<\|[^|<>\s]+\|>", constants)) - set(template.forbidden_in_content))
    if unlisted:
        texts.append(f"contents may contain {' '.join(unlisted)}, because the header lists none of them")
    if "strftime_now" in undeclared_variables(template.source) and not template.date:
        texts.append(
            "it writes the current date in transformers; give a date with --template-date YYYY-MM-DD to write it in a "
            "build, too"
        )
    return texts
