"""Finds what is trained in a rendered conversation, and which special tokens the template itself wrote.

A span covers what is trained of one answer: from the end of the generation prompt (so it includes the space that
Llama 2 has to emit after `[/INST]`) to the end of the end token. Its start is found by running the template on the
messages before the answer with `add_generation_prompt=True` and comparing the prompt with the text before the answer.
If the template has `{% generation %}` blocks, they define the starts instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dataprep.common.errors import TemplateError
from dataprep.rendering.layout import Layout, Mark, Position
from dataprep.rendering.template import Template
from dataprep.tables import ASSISTANT, SYSTEM

Span = tuple[Position, Position]
# Renders the messages with these indices, with or without the generation prompt, to a layout.
RenderSubset = Callable[[Sequence[int], bool], Layout]

CONTEXT_MESSAGES = 3  # enough to include a question after an answer, for any order of roles that a template accepts


class LeadIn(NamedTuple):
    """The text that leads into an answer."""

    after_message: int | None  # the message whose content comes last before it; None: no content comes before it
    text: str  # what the template wrote since that content


@dataclass(frozen=True)
class AnnotatedLayout:
    """A layout with its spans (what is trained) and its controls (special tokens that the template wrote)."""

    layout: Layout
    spans: tuple[Span, ...]
    controls: tuple[Span, ...]
    headers: tuple[str, ...]  # the template's text between the start of each span and its answer


def annotate(template: Template, roles: Sequence[str], render_subset: RenderSubset) -> AnnotatedLayout:
    """Render a whole conversation to a layout and find its spans and controls.

    Raises:
        TemplateError: an answer is not written, does not follow its generation prompt, has no end token, or has no
            `{% generation %}` block of its own in a template that uses such blocks.
    """
    layout = render_subset(range(len(roles)), False)
    answers = _answer_slots(template, layout, roles)
    if template.has_generation_tags:
        return AnnotatedLayout(
            layout, _generation_spans(template, layout, answers), _control_spans(template, layout), ()
        )
    lead_ins = {message: _lead_in(layout, slots[0]) for message, slots in answers.items()}
    prompts = _generation_prompts(lead_ins, roles, render_subset)
    spans, headers = [], []
    for message, slots in answers.items():
        prompt, written = prompts[message].text, lead_ins[message].text
        if not _continues(prompts[message], lead_ins[message]):
            raise TemplateError(
                f"The template {template.name} does not write its generation prompt before an answer: the prompt ends "
                f"with {prompt[-60:]!r}, but {written[-60:]!r} comes before message {message + 1}; add "
                "{% generation %} tags."
            )
        last = next((slot for slot in slots if slot + 1 not in slots), slots[-1])
        end = layout.slots[last][2]
        end_token_end = find_end_token(template, layout.constant(end, layout.end_of_constant_after(last)))
        spans.append((_shift(layout.start_of_constant_before(slots[0]), len(prompt)), _shift(end, end_token_end)))
        headers.append(written[len(prompt) :])
    return AnnotatedLayout(layout, tuple(spans), _control_spans(template, layout), tuple(headers))


def _answer_slots(template: Template, layout: Layout, roles: Sequence[str]) -> dict[int, list[int]]:
    """For each answer, by its index among the messages, the indices of its slots."""
    answers: dict[int, list[int]] = {message: [] for message, role in enumerate(roles) if role == ASSISTANT}
    for slot, (message, _, _) in enumerate(layout.slots):
        if message in answers:
            answers[message].append(slot)
    for message, slots in answers.items():
        if not slots:
            raise TemplateError(f"The template {template.name} does not write the answer of message {message + 1}.")
    return answers


def _lead_in(layout: Layout, slot: int) -> LeadIn:
    """The text that leads into a slot; into the end of the conversation if `slot` is the number of slots."""
    until = layout.slots[slot][1] if slot < len(layout.slots) else layout.end
    after_message = layout.slots[slot - 1][0] if slot else None
    return LeadIn(after_message, layout.constant(layout.start_of_constant_before(slot), until))


def _continues(prompt: LeadIn, lead_in: LeadIn) -> bool:
    """Whether the text before an answer starts with that generation prompt."""
    return prompt.after_message == lead_in.after_message and lead_in.text.startswith(prompt.text)


def _generation_prompts(
    lead_ins: Mapping[int, LeadIn], roles: Sequence[str], render_subset: RenderSubset
) -> dict[int, LeadIn]:
    """The generation prompt for each answer.

    Rendering everything before each answer would take quadratic time. A prompt nearly always depends on the messages
    just before it, so the template is run on those. The shortcut is accepted only if all answers with the same lead-in
    get the same prompt, and the last of them gets it from the complete history, too. Otherwise, each prompt is rendered
    from the complete history.
    """
    answers_of: dict[str, list[int]] = {}
    for message, lead_in in lead_ins.items():
        answers_of.setdefault(lead_in.text, []).append(message)
    prompts: dict[int, LeadIn] = {}
    for messages in answers_of.values():
        last = _prompt_after(range(messages[-1]), render_subset)
        candidates = {message: _try_prompt_after(_context(roles, message), render_subset) for message in messages[:-1]}
        candidates[messages[-1]] = last
        accepted = {
            message: prompt
            for message, prompt in candidates.items()
            if prompt and prompt.text == last.text and _continues(prompt, lead_ins[message])
        }
        if len(accepted) < len(messages):
            accepted = {message: _prompt_after(range(message), render_subset) for message in messages}
        prompts |= accepted
    return prompts


def _context(roles: Sequence[str], message: int) -> list[int]:
    """The system message and the last messages before `message`, from one with the role that opens the conversation."""
    start = int(roles[0] == SYSTEM)
    recent = range(max(start, message - CONTEXT_MESSAGES), message)
    first = next((index for index in recent if roles[index] == roles[start]), start)
    return [*range(min(start, message)), *range(first, message)]


def _prompt_after(messages: Sequence[int], render_subset: RenderSubset) -> LeadIn:
    """The generation prompt that the template writes after those messages."""
    layout = render_subset(messages, True)
    position, text = _lead_in(layout, len(layout.slots))
    return LeadIn(messages[position] if position is not None and position >= 0 else position, text)


def _try_prompt_after(messages: Sequence[int], render_subset: RenderSubset) -> LeadIn | None:
    """The same; None if the template does not accept those messages as a conversation."""
    try:
        return _prompt_after(messages, render_subset)
    except Exception:  # Jinja raises anything; a real error is raised again when the complete history is rendered
        return None


def _generation_spans(template: Template, layout: Layout, answers: Mapping[int, Sequence[int]]) -> tuple[Span, ...]:
    """The `{% generation %}` blocks of a layout, each cut at the end of the end token after its answer.

    Raises:
        TemplateError: blocks are nested or not closed, do not enclose exactly one answer each, or lack the end token.
    """
    starts = [position for mark, position in layout.marks if mark is Mark.START]
    ends = [position for mark, position in layout.marks if mark is Mark.END]
    alternating = all(mark is (Mark.END if index % 2 else Mark.START) for index, (mark, _) in enumerate(layout.marks))
    if not alternating or len(starts) != len(ends):
        raise TemplateError(f"The template {template.name} nests {{% generation %}} blocks or leaves one open.")
    if len(starts) != len(answers):
        raise TemplateError(
            f"The template {template.name} writes {len(starts)} {{% generation %}} blocks for {len(answers)} answers: "
            "put one around each answer and its end token."
        )
    spans = []
    for start, end, (message, slots) in zip(starts, ends, answers.items(), strict=True):
        inside = [slot for slot in slots if start <= layout.slots[slot][1] and layout.slots[slot][2] <= end]
        if not inside:
            raise TemplateError(
                f"The template {template.name} writes the answer of message {message + 1} outside its "
                "{% generation %} block: put one around each answer and its end token."
            )
        answer_end = layout.slots[inside[-1]][2]
        ending = layout.constant(answer_end, min(end, layout.end_of_constant_after(inside[-1])))
        spans.append((start, _shift(answer_end, find_end_token(template, ending))))
    return tuple(spans)


def first_special_token(template: Template, text: str) -> str | None:
    """The first special token in `text`."""
    match = template.special_pattern.search(text)
    return match[0] if match else None


def find_end_token(template: Template, ending: str) -> int:
    """Where the end token ends in `ending`, the template's text after an answer.

    Raises:
        TemplateError: the end token is not in it.
    """
    token = template.end_token or first_special_token(template, ending)
    if token and token in ending:
        return ending.index(token) + len(token)
    expected = f"the end token {token!r}" if token else "a special token"
    known = ", ".join(template.special_tokens) or "none is known: state them in the template's header"
    where = " inside its {% generation %} block" if template.has_generation_tags else ""
    raise TemplateError(
        f"The template {template.name} does not write {expected} after an answer{where} but {ending[:60]!r} (special "
        f"tokens: {known}), so a model trained with it would never learn to stop."
    )


def _shift(position: Position, length: int) -> Position:
    return position[0], position[1] + length


def _control_spans(template: Template, layout: Layout) -> tuple[Span, ...]:
    return tuple(
        ((index, match.start()), (index, match.end()))
        for index, piece in enumerate(layout.pieces)
        if isinstance(piece, str)
        for match in template.special_pattern.finditer(piece)
    )
