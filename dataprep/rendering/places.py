"""Where in a rendered conversation the answers and the template's own tokens are.

A span is what is trained: from where the generation prompt ends (so with the space that Llama 2 must emit after
`[/INST]`) to the end of the end token. Where it begins is found by running the template again, on messages before the
answer with `add_generation_prompt`, and comparing what was written before the answer; or it is where the template's
own `{% generation %}` block begins.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from dataprep.common.errors import TemplateError
from dataprep.rendering.layout import Layout, Mark, Position
from dataprep.rendering.template import Template
from dataprep.tables import ASSISTANT, SYSTEM

Span = tuple[Position, Position]
Run = Callable[[Sequence[int], bool], Layout]  # the messages of those places, with or without the generation prompt

# What leads into an answer: the message whose content stands last before it (None: there is none), and what the
# template wrote since then.
Lead = tuple[int | None, str]

NEAR = 3  # messages: enough for a question after an answer, whatever the template makes of their order


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
        TemplateError: an answer is not written, does not follow its generation prompt, has no end token, or no
            `{% generation %}` block of its own in a template that has such blocks.
    """
    layout = run(range(len(roles)), False)
    answers = _answers(template, layout, roles)
    if template.has_generation_tags:
        return Places(layout, _blocks(template, layout, answers), _controls(template, layout), ())
    leads = {place: _lead(layout, slots[0]) for place, slots in answers.items()}
    prompts = _prompts(leads, roles, run)
    spans, headers = [], []
    for place, slots in answers.items():
        asked, written = prompts[place][1], leads[place][1]
        if not _fits(prompts[place], leads[place]):
            raise TemplateError(
                f"The template {template.name} does not lead into an answer as it asks for one: its generation prompt "
                f"ends with {asked[-60:]!r}, and before message {place + 1} stands {written[-60:]!r}; add "
                "{% generation %} tags."
            )
        last = next((slot for slot in slots if slot + 1 not in slots), slots[-1])
        end = layout.slots[last][2]
        ending = end_in(template, layout.constant(end, layout.after(last)))
        spans.append((_on(layout.before(slots[0]), len(asked)), _on(end, ending)))
        headers.append(written[len(asked) :])
    return Places(layout, tuple(spans), _controls(template, layout), tuple(headers))


def _answers(template: Template, layout: Layout, roles: Sequence[str]) -> dict[int, list[int]]:
    """For each answer, by its place among the messages, the indices of its slots."""
    own: dict[int, list[int]] = {place: [] for place, role in enumerate(roles) if role == ASSISTANT}
    for at, (owner, _, _) in enumerate(layout.slots):
        if owner in own:
            own[owner].append(at)
    for place, slots in own.items():
        if not slots:
            raise TemplateError(f"The template {template.name} does not write the answer of message {place + 1}.")
    return own


def _lead(layout: Layout, slot: int) -> Lead:
    """What leads into the slot of that index; into the end, where it is the number of slots."""
    until = layout.slots[slot][1] if slot < len(layout.slots) else layout.end
    return layout.slots[slot - 1][0] if slot else None, layout.constant(layout.before(slot), until)


def _fits(prompt: Lead, lead: Lead) -> bool:
    """Whether an answer with that lead follows that generation prompt."""
    return prompt[0] == lead[0] and lead[1].startswith(prompt[1])


def _prompts(leads: Mapping[int, Lead], roles: Sequence[str], run: Run) -> dict[int, Lead]:
    """What the template writes last when it is asked for each of the answers.

    To run it on all that stands before each would take time by the square of the turns. What templates ask with is a
    matter of the messages near by, so they are run on those. For answers that the same words lead into, that must be
    one and the same prompt, and the prompt of the last of them on all that stands before it, too: else every answer's
    is found on all that stands before.
    """
    alike: dict[str, list[int]] = {}
    for place, (_, words) in leads.items():
        alike.setdefault(words, []).append(place)
    prompts: dict[int, Lead] = {}
    for places in alike.values():
        last = _asked(run, range(places[-1]))
        tried = {place: _tried(run, _near(roles, place)) for place in places[:-1]} | {places[-1]: last}
        same = {
            place: prompt
            for place, prompt in tried.items()
            if prompt and prompt[1] == last[1] and _fits(prompt, leads[place])
        }
        prompts |= same if len(same) == len(places) else {place: _asked(run, range(place)) for place in places}
    return prompts


def _near(roles: Sequence[str], place: int) -> list[int]:
    """The system text and the last messages before `place`, beginning with the role that the conversation begins with."""
    head = int(roles[0] == SYSTEM)
    first = next((at for at in range(max(head, place - NEAR), place) if roles[at] == roles[head]), head)
    return [*range(min(head, place)), *range(first, place)]


def _asked(run: Run, which: Sequence[int]) -> Lead:
    """What the template asks with after those messages."""
    layout = run(which, True)
    owner, words = _lead(layout, len(layout.slots))
    return which[owner] if owner is not None and owner >= 0 else owner, words


def _tried(run: Run, which: Sequence[int]) -> Lead | None:
    """The same; None where the template does not take those messages for a conversation."""
    try:
        return _asked(run, which)
    except Exception:  # whatever Jinja raises: it is raised again where it is not only a matter of what was left out
        return None


def _blocks(template: Template, layout: Layout, answers: Mapping[int, Sequence[int]]) -> tuple[Span, ...]:
    """The `{% generation %}` blocks of a layout, each to the end of the end token after its answer.

    Raises:
        TemplateError: blocks inside of each other or cut apart, other than one around each answer, or without end token.
    """
    starts = [place for mark, place in layout.marks if mark is Mark.START]
    ends = [place for mark, place in layout.marks if mark is Mark.END]
    paired = all(mark is (Mark.END if at % 2 else Mark.START) for at, (mark, _) in enumerate(layout.marks))
    if not paired or len(starts) != len(ends):
        raise TemplateError(
            f"The template {template.name} puts {{% generation %}} blocks inside or apart from each other."
        )
    if len(starts) != len(answers):
        raise TemplateError(
            f"The template {template.name} writes {len(starts)} {{% generation %}} blocks for {len(answers)} answers: "
            "put one around each answer and its end token."
        )
    spans = []
    for start, end, (place, slots) in zip(starts, ends, answers.items(), strict=True):
        inside = [slot for slot in slots if start <= layout.slots[slot][1] and layout.slots[slot][2] <= end]
        if not inside:
            raise TemplateError(
                f"The template {template.name} writes the answer of message {place + 1} outside of its "
                "{% generation %} block: put one around each answer and its end token."
            )
        answered = layout.slots[inside[-1]][2]
        ending = layout.constant(answered, min(end, layout.after(inside[-1])))
        spans.append((start, _on(answered, end_in(template, ending))))
    return tuple(spans)


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
    inside = " inside of its {% generation %} block" if template.has_generation_tags else ""
    raise TemplateError(
        f"The template {template.name} does not write {wanted} after an answer{inside} but {ending[:60]!r} (special "
        f"tokens: {known}), so that a model trained on it would never learn to stop."
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
