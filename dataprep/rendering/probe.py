"""What a template does with the plainest conversations: does it end its answers, can it be trained on, and how fast."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from dataprep.common.errors import TemplateError
from dataprep.rendering.layout import Kind
from dataprep.rendering.places import end_in, first_token
from dataprep.rendering.plan import Planner, Refusal, RowByRow
from dataprep.rendering.rows import render_row, trace
from dataprep.rendering.sandbox import asks_for_the_date
from dataprep.rendering.symbols import Shape
from dataprep.rendering.taint import run_traced
from dataprep.rendering.template import Template, context, refusal, render
from dataprep.tables import ASSISTANT, SYSTEM, USER

_WORDS = {SYSTEM: "a system text", USER: "a question", ASSISTANT: "an answer"}
_PLAIN = ((USER, ASSISTANT), (USER, ASSISTANT, USER, ASSISTANT))


def _conversation(roles: Sequence[str]) -> list[dict[str, str]]:
    return [{"role": role, "content": f"{_WORDS[role]} {place}"} for place, role in enumerate(roles)]


def ending(template: Template) -> str:
    """What the template writes after the answer of a plain conversation.

    Raises:
        TemplateError: it refuses such a conversation, or writes no answer.
    """
    try:
        _, layout = run_traced(template.source, _conversation(_PLAIN[0]), context(template.variables, False))
    except Exception as fault:
        raise refusal(template, fault) from None
    answers = [at for at, (owner, _, _) in enumerate(layout.slots) if owner == 1]
    if not answers:
        raise TemplateError(
            f"The template {template.name} does not write the assistant's answer: nothing could be trained."
        )
    return layout.constant(layout.slots[answers[-1]][2], layout.after(answers[-1]))


def with_end_token(template: Template) -> Template:
    """`template` with its end token, where it states none: the first special token that it writes after an answer."""
    if template.end_token:
        return template
    try:
        return replace(template, end_token=first_token(template, ending(template)))
    except TemplateError:
        return template


def require_sound(template: Template) -> None:
    """Raises:
    TemplateError: an answer could not be trained on, or a model trained on it would never learn to stop.
    """
    end_in(template, ending(template))
    one_turn, two_turns = map(_conversation, _PLAIN)
    render_row(template, one_turn)
    if not _refused(template, two_turns):  # a template for single questions is sound
        render_row(template, two_turns)


def _refused(template: Template, messages: list[dict[str, str]]) -> bool:
    try:
        render(template, messages)
    except TemplateError:
        return True
    return False


@dataclass(frozen=True)
class Check:
    """What is to be known of a template before it is used."""

    name: str
    sound: bool
    problems: tuple[str, ...]  # each makes it unusable
    warnings: tuple[str, ...]
    special_tokens: tuple[str, ...]
    forbidden: tuple[str, ...]
    end_token: str | None
    way: str | None  # `by columns` or `row by row`; None: neither
    why: str | None  # what makes it row by row

    def facts(self) -> dict[str, Any]:
        """The same for JSON."""
        return asdict(self)

    def told(self) -> str:
        """The same for a person, some lines."""
        lines = [f"{self.name}: {'sound' if self.sound else 'not usable'}"]
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  special tokens: {' '.join(self.special_tokens) or 'none'}"]
        lines += [f"  content must not hold, besides: {' '.join(self.forbidden)}"] if self.forbidden else []
        lines += [f"  an answer ends with: {self.end_token or 'nothing'}"]
        lines += [f"  rendered: {self.way}{f' (it {self.why})' if self.why else ''}"] if self.way else []
        return "\n".join(lines)


def check_template(template: Template) -> Check:
    """Is `template` sound, and is it rendered by columns or row by row?"""
    problems: list[str] = []
    try:
        require_sound(template)
    except TemplateError as fault:
        problems.append(str(fault))
    planner = Planner(template)
    # One that cannot be used has no way: a runaway template would run to its bound for every shape.
    ways = [] if problems else [planner.way(shape) for shape in _shapes()]
    by_row = [way.why for way in ways if isinstance(way, RowByRow)]
    return Check(
        name=template.name,
        sound=not problems,
        problems=tuple(problems),
        warnings=tuple(() if problems else warnings(template, planner)),
        special_tokens=template.special_tokens,
        forbidden=template.forbidden,
        end_token=template.end_token,
        way=None if problems else "row by row" if by_row else "by columns",
        why=by_row[0] if by_row else None,
    )


def _shapes() -> list[Shape]:
    """Conversations as they come: with and without a system text, blank and empty contents."""
    plain = [*_PLAIN, (SYSTEM, *_PLAIN[0]), (SYSTEM, *_PLAIN[1]), (*_PLAIN[0], USER)]
    return [tuple((role, kind) for role in roles) for roles in plain for kind in (Kind.NORMAL, Kind.BLANK, Kind.EMPTY)]


def warnings(template: Template, planner: Planner) -> list[str]:
    """What a person should know of a sound template; each a sentence without its end."""
    told = []
    with_system = planner.way(tuple((role, Kind.NORMAL) for role in (SYSTEM, *_PLAIN[0])))
    if isinstance(with_system, Refusal):
        told.append(f"conversations with a system text are dropped: {with_system.detail}")
    plain, _ = trace(template, _conversation(_PLAIN[0]))
    headers = [header for header in plain.headers if header.strip()]
    if headers:
        told.append(
            f"{headers[0]!r} before each answer is trained with it: the generation prompt ends earlier "
            "(does the template use `add_generation_prompt`?)"
        )
    written = "\0".join(piece for piece in plain.layout.pieces if isinstance(piece, str))
    unknown = sorted(set(re.findall(r"<\|[^|<>\s]+\|>", written)) - set(template.forbidden_in_content))
    if unknown:
        told.append(f"{' '.join(unknown)} may be typed in a content: neither special tokens nor forbidden")
    if asks_for_the_date(template.source):
        told.append(
            "`strftime_now` is not there, so that a build comes out the same every day: where transformers writes the "
            "day's date, the text differs"
        )
    return told
