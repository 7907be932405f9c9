"""Probes a template with the simplest conversations: does it end its answers, can it be trained with, how is it rendered?"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from dataprep.common.errors import TemplateError
from dataprep.rendering.layout import ContentKind
from dataprep.rendering.plan import Planner, Refusal, RowByRow
from dataprep.rendering.rows import annotate_row, render_row
from dataprep.rendering.sandbox import asks_for_the_date
from dataprep.rendering.spans import find_end_token, first_special_token
from dataprep.rendering.symbols import Shape
from dataprep.rendering.taint import render_tainted
from dataprep.rendering.template import Template, render, rendering_error, template_variables
from dataprep.tables import ASSISTANT, SYSTEM, USER

_CONTENTS = {SYSTEM: "a system text", USER: "a question", ASSISTANT: "an answer"}
_ONE_TURN, _TWO_TURNS = (USER, ASSISTANT), (USER, ASSISTANT, USER, ASSISTANT)


def _conversation(roles: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{_CONTENTS[role]} {index}"} for index, role in enumerate(roles)]


def text_around_contents(template: Template, messages: Sequence[dict[str, str]]) -> list[str]:
    """The template's own text before, between and after the contents of one conversation.

    Raises:
        TemplateError: the template refuses the conversation.
    """
    variables = template_variables(template.variables, add_generation_prompt=False)
    try:
        _, layout = render_tainted(template.source, messages, variables)
    except Exception as error:
        raise rendering_error(template, error) from None
    return layout.constants()


def answer_ending(template: Template) -> str:
    """The text that the template writes after the answer of the simplest conversation.

    Raises:
        TemplateError: it refuses that conversation, or does not write the answer.
    """
    variables = template_variables(template.variables, add_generation_prompt=False)
    try:
        _, layout = render_tainted(template.source, _conversation(_ONE_TURN), variables)
    except Exception as error:
        raise rendering_error(template, error) from None
    answer = [slot for slot, (message, _, _) in enumerate(layout.slots) if message == 1]
    if not answer:
        raise TemplateError(
            f"The template {template.name} does not write the assistant's answer, so nothing could be trained."
        )
    return layout.constants()[answer[-1] + 1]


def with_end_token(template: Template) -> Template:
    """Fill in a missing end token: the first special token that the template writes after an answer."""
    if template.end_token:
        return template
    try:
        return replace(template, end_token=first_special_token(template, answer_ending(template)))
    except TemplateError:
        return template


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
        return "\n".join(lines)


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
        warnings=tuple(() if problems else warnings(template, planner)),
        special_tokens=template.special_tokens,
        forbidden=template.forbidden,
        end_token=template.end_token,
        rendering=None if problems else "row by row" if row_by_row else "by columns",
        reason=row_by_row[0] if row_by_row else None,
    )


def _common_shapes() -> list[Shape]:
    """Common shapes: with and without a system message, with normal, blank and empty contents."""
    role_sequences = [_ONE_TURN, _TWO_TURNS, (SYSTEM, *_ONE_TURN), (SYSTEM, *_TWO_TURNS), (*_ONE_TURN, USER)]
    kinds = (ContentKind.NORMAL, ContentKind.BLANK, ContentKind.EMPTY)
    return [tuple((role, kind) for role in roles) for roles in role_sequences for kind in kinds]


def warnings(template: Template, planner: Planner) -> list[str]:
    """Warnings about a usable template; each is a sentence without its full stop."""
    texts = []
    with_system = planner.strategy(tuple((role, ContentKind.NORMAL) for role in (SYSTEM, *_ONE_TURN)))
    if isinstance(with_system, Refusal):
        texts.append(f"conversations with a system message are dropped: {with_system.detail}")
    annotated, _ = annotate_row(template, _conversation(_ONE_TURN))
    headers = [header for header in annotated.headers if header.strip()]
    if headers:
        texts.append(
            f"{headers[0]!r} before each answer is trained, too, because the generation prompt ends before it "
            "(does the template use `add_generation_prompt`?)"
        )
    constants = "\0".join(piece for piece in annotated.layout.pieces if isinstance(piece, str))
    unlisted = sorted(set(re.findall(r"<\|[^|<>\s]+\|>", constants)) - set(template.forbidden_in_content))
    if unlisted:
        texts.append(f"contents may contain {' '.join(unlisted)}, because the header lists none of them")
    if asks_for_the_date(template.source):
        texts.append(
            "`strftime_now` is not available, because a build must not depend on the day it is made; where transformers "
            "writes the current date, the text differs"
        )
    return texts
