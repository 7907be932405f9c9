"""Where in a rendered conversation the answers and the template's own tokens are.

A span is what is trained: from where the generation prompt ends (so with the space that Llama 2 must emit after
`[/INST]`) to the end of the end token. It is found by running the template twice, once on the messages before the
answer with `add_generation_prompt`, and comparing what was written before the answer. `{% generation %}` tags, where
a template has them, are taken as they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from dataprep.conversations import ASSISTANT
from dataprep.errors import TemplateError
from dataprep.rendering.layout import Layout, Mark, Position
from dataprep.rendering.template import Template

Span = tuple[Position, Position]
Run = Callable[[int, bool], Layout]  # the first n messages, with or without the generation prompt


@dataclass(frozen=True)
class Places:
    """A layout with what is trained in it (`spans`) and the special tokens that the template wrote (`controls`)."""

    layout: Layout
    spans: tuple[Span, ...]
    controls: tuple[Span, ...]
    headers: tuple[str, ...]  # what the template writes between the start of a span and its answer


def find_places(template: Template, roles: Sequence[str], run: Run) -> Places:
    """The layout of a whole conversation and the places in it.

    Raises:
        TemplateError: an answer is not written, does not follow its generation prompt, or has no end token.
    """
    layout = run(len(roles), False)
    if template.has_generation_tags:
        return Places(layout, generation_spans(template, layout, roles), _controls(template, layout), ())
    answers = [place for place, role in enumerate(roles) if role == ASSISTANT]
    found = [_answer(template, layout, run(place, True), place) for place in answers]
    spans, headers = tuple(span for span, _ in found), tuple(header for _, header in found)
    return Places(layout, spans, _controls(template, layout), headers)


def generation_spans(template: Template, layout: Layout, roles: Sequence[str]) -> tuple[Span, ...]:
    """The `{% generation %}` blocks of a layout.

    Raises:
        TemplateError: there are answers and no block, or blocks that were cut apart.
    """
    starts = [place for mark, place in layout.marks if mark is Mark.START]
    ends = [place for mark, place in layout.marks if mark is Mark.END]
    paired = all(mark is (Mark.END if at % 2 else Mark.START) for at, (mark, _) in enumerate(layout.marks))
    if not paired or len(starts) != len(ends):
        raise TemplateError(
            f"The template {template.name} puts {{% generation %}} blocks inside or apart from each other."
        )
    if ASSISTANT in roles and not starts:
        raise TemplateError(f"The template {template.name} writes answers outside of its {{% generation %}} blocks.")
    return tuple(zip(starts, ends, strict=True))


def _answer(template: Template, layout: Layout, prompt: Layout, ordinal: int) -> tuple[Span, str]:
    """The span of one answer, and what stands in it before the answer itself."""
    own = [at for at, (owner, _, _) in enumerate(layout.slots) if owner == ordinal]
    if not own:
        raise TemplateError(f"The template {template.name} does not write the answer of message {ordinal + 1}.")
    first, last = own[0], own[0]
    while last + 1 in own:
        last += 1
    start = layout.before(first)
    written = layout.constant(start, layout.slots[first][1])
    asked = prompt.constant(prompt.before(len(prompt.slots)), prompt.end)
    same_slot = [owner for owner, _, _ in layout.slots[:first]][-1:] == [owner for owner, _, _ in prompt.slots][-1:]
    if not same_slot or not written.startswith(asked):
        raise TemplateError(
            f"The template {template.name} does not lead into an answer as it asks for one: its generation prompt ends "
            f"with {asked[-60:]!r}, and before message {ordinal + 1} stands {written[-60:]!r}; add {{% generation %}} tags."
        )
    end = layout.slots[last][2]
    ending = layout.constant(end, layout.after(last))
    length = end_in(template, ending)
    return (_on(start, len(asked)), _on(end, length)), written[len(asked) :]


def first_token(template: Template, text: str) -> str | None:
    """The first special token in `text`."""
    found = template.special_pattern.search(text)
    return found[0] if found else None


def end_in(template: Template, ending: str) -> int:
    """Where the end token ends in what the template writes after an answer.

    Raises:
        TemplateError: it is not there.
    """
    token = template.end_token or first_token(template, ending)
    if token and token in ending:
        return ending.index(token) + len(token)
    wanted = f"the end token {token!r}" if token else "a special token"
    known = ", ".join(template.special_tokens) or "none is known: state them in its header"
    raise TemplateError(
        f"The template {template.name} does not write {wanted} after an answer but {ending[:60]!r} (special tokens: "
        f"{known}), so that a model trained on it would never learn to stop."
    )


def _on(place: Position, length: int) -> Position:
    return place[0], place[1] + length


def _controls(template: Template, layout: Layout) -> tuple[Span, ...]:
    return tuple(
        ((at, found.start()), (at, found.end()))
        for at, piece in enumerate(layout.pieces)
        if isinstance(piece, str)
        for found in template.special_pattern.finditer(piece)
    )
