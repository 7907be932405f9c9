"""Finds what is trained in a rendered conversation, and which special tokens the template itself wrote.

A span covers what is trained of one answer: from the end of the generation prompt (so it includes the space that
Llama 2 has to emit after `[/INST]`) to the end of the end token. Its start is found by running the template on the
messages before the answer with `add_generation_prompt=True` and comparing the prompt with the text before the answer.

If the template has `{% generation %}` blocks, they are the spans, exactly as in the mask that transformers returns. A
template that writes tool results inside an answer then has one span for each part of that answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dataprep.common.errors import TemplateError
from dataprep.rendering.layout import Field, Layout, Mark, Position
from dataprep.rendering.template import Template
from dataprep.tables import ASSISTANT, SYSTEM

Span = tuple[Position, Position]
# Renders the messages with these indices, with or without the generation prompt, to a layout.
RenderSubset = Callable[[Sequence[int], bool], Layout]

CONTEXT_MESSAGES = 3  # enough to include a question after an answer, for any order of roles that a template accepts


class Turn(NamedTuple):
    """The role of a message, and whether the message is trained if it is an answer."""

    role: str
    trained: bool = True

    @property
    def is_trained_answer(self) -> bool:
        return self.role == ASSISTANT and self.trained


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


def annotate(template: Template, turns: Sequence[Turn], render_subset: RenderSubset) -> AnnotatedLayout:
    """Render a whole conversation to a layout and find its spans and controls.

    Raises:
        TemplateError: an answer is not written, does not follow its generation prompt, has no end token, or is outside
            the `{% generation %}` blocks of a template that uses them.
    """
    layout = render_subset(range(len(turns)), False)
    answers = _answer_slots(template, layout, turns)
    controls = _control_spans(template, layout)
    if template.has_generation_tags:
        return AnnotatedLayout(layout, _generation_spans(template, layout, turns, answers), controls, ())
    lead_ins = {message: _lead_in(layout, slots[0]) for message, slots in answers.items()}
    prompts = _generation_prompts(lead_ins, turns, render_subset)
    spans, headers = [], []
    for message, slots in answers.items():
        prompt, written = prompts[message].text, lead_ins[message].text
        prompt_length = _shared_length(prompts[message], lead_ins[message])
        if prompt_length is None:
            raise TemplateError(
                f"The template {template.name} does not write its generation prompt before an answer: the prompt ends "
                f"with {prompt[-60:]!r}, but {written[-60:]!r} comes before message {message + 1}; add "
                "{% generation %} tags."
            )
        last = next((slot for slot in slots if slot + 1 not in slots), slots[-1])
        end = _end_of_text(layout, [slot for slot in slots if slot <= last])
        ending = layout.constant(end, layout.end_of_constant_after(last))
        start = _shift(layout.start_of_constant_before(slots[0]), prompt_length)
        spans.append((start, _shift(end, find_end_token(template, ending, _is_call(layout, slots)))))
        headers.append(written[prompt_length:])
    return AnnotatedLayout(layout, tuple(spans), controls, tuple(headers))


def _answer_slots(template: Template, layout: Layout, turns: Sequence[Turn]) -> dict[int, list[int]]:
    """For each trained answer, by its index among the messages, the indices of its slots."""
    answers: dict[int, list[int]] = {message: [] for message, turn in enumerate(turns) if turn.is_trained_answer}
    for index, slot in enumerate(layout.slots):
        if slot.ordinal in answers and slot.field is not Field.OTHER:
            answers[slot.ordinal].append(index)
    for message, slots in answers.items():
        if not slots:
            raise TemplateError(f"The template {template.name} does not write the answer of message {message + 1}.")
    return answers


def _end_of_text(layout: Layout, slots: Sequence[int]) -> Position:
    """The end of the last of those slots that has text; of the last one if none has."""
    return layout.slots[next((slot for slot in reversed(slots) if not layout.slots[slot].is_empty), slots[-1])].end


def _is_call(layout: Layout, slots: Sequence[int]) -> bool:
    return any(layout.slots[slot].field is Field.TOOL_CALLS for slot in slots)


def _lead_in(layout: Layout, slot: int) -> LeadIn:
    """The text that leads into a slot; into the end of the conversation if `slot` is the number of slots."""
    until = layout.slots[slot].start if slot < len(layout.slots) else layout.end
    after_message = layout.slots[slot - 1].ordinal if slot else None
    return LeadIn(after_message, layout.constant(layout.start_of_constant_before(slot), until))


# The reasoning that a generation prompt may open (`<think>\n`) or write as an empty block (`<think>\n\n</think>\n\n`).
REASONING_OPENING = re.compile(r"<(\w*think\w*)>\s*(</\1>\s*)?\Z")


def _shared_length(prompt: LeadIn, lead_in: LeadIn) -> int | None:
    """How many characters of the text before an answer belong to the generation prompt; None if the prompt differs.

    A prompt that opens the reasoning counts without that opening where the answer is written without it.
    """
    if prompt.after_message != lead_in.after_message:
        return None
    for text in (prompt.text, REASONING_OPENING.sub("", prompt.text)):
        if lead_in.text.startswith(text):
            return len(text)
    return None


def _generation_prompts(
    lead_ins: Mapping[int, LeadIn], turns: Sequence[Turn], render_subset: RenderSubset
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
        candidates = {message: _try_prompt_after(_context(turns, message), render_subset) for message in messages[:-1]}
        candidates[messages[-1]] = last
        accepted = {
            message: prompt
            for message, prompt in candidates.items()
            if prompt and prompt.text == last.text and _shared_length(prompt, lead_ins[message]) is not None
        }
        if len(accepted) < len(messages):
            accepted = {message: _prompt_after(range(message), render_subset) for message in messages}
        prompts |= accepted
    return prompts


def _context(turns: Sequence[Turn], message: int) -> list[int]:
    """The system message and the last messages before `message`, from one with the role that opens the conversation."""
    start = int(turns[0].role == SYSTEM)
    recent = range(max(start, message - CONTEXT_MESSAGES), message)
    first = next((index for index in recent if turns[index].role == turns[start].role), start)
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


def _generation_spans(
    template: Template, layout: Layout, turns: Sequence[Turn], answers: Mapping[int, Sequence[int]]
) -> tuple[Span, ...]:
    """The `{% generation %}` blocks of the trained answers; adjacent blocks of one answer are one span.

    Raises:
        TemplateError: blocks are nested or not closed, contain text of others, or a trained answer or its end token is
            outside of them.
    """
    spans: list[Span] = []
    owners: list[int] = []
    for start, end in _blocks(template, layout):
        owner = _block_owner(template, layout, turns, start, end)
        if spans and owners[-1] == owner and layout.normalised(spans[-1][1]) == layout.normalised(start):
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
            owners.append(owner)
    for message, slots in answers.items():
        own = [span for span, owner in zip(spans, owners, strict=True) if owner == message]
        inside = [slot for slot in slots if any(_contains(span, layout, slot) for span in own)]
        if not inside:
            raise TemplateError(
                f"The template {template.name} writes the answer of message {message + 1} outside its "
                "{% generation %} block: put one around each answer and its end token."
            )
        answer_end = _end_of_text(layout, inside)
        ending = "".join(layout.constant(max(start, answer_end), end) for start, end in own if end > answer_end)
        find_end_token(template, ending, _is_call(layout, slots))
    return tuple(span for span, owner in zip(spans, owners, strict=True) if turns[owner].is_trained_answer)


def _blocks(template: Template, layout: Layout) -> list[Span]:
    """The non-empty `{% generation %}` blocks."""
    starts = [position for mark, position in layout.marks if mark is Mark.START]
    ends = [position for mark, position in layout.marks if mark is Mark.END]
    alternating = all(mark is (Mark.END if index % 2 else Mark.START) for index, (mark, _) in enumerate(layout.marks))
    if not alternating or len(starts) != len(ends):
        raise TemplateError(f"The template {template.name} nests {{% generation %}} blocks or leaves one open.")
    return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


def _block_owner(template: Template, layout: Layout, turns: Sequence[Turn], start: Position, end: Position) -> int:
    """The answer to which a block belongs: the last one with text in it, or else the last one before it."""
    owner = None
    for slot in layout.slots:
        if slot.end > end or (owner is not None and slot.start >= end):
            break
        is_answer = slot.ordinal >= 0 and turns[slot.ordinal].role == ASSISTANT
        if is_answer and slot.field is not Field.OTHER:
            owner = slot.ordinal
        if not is_answer and start <= slot.start and not slot.is_empty and slot.ordinal >= 0:
            raise TemplateError(
                f"The template {template.name} writes message {slot.ordinal + 1}, which is not an answer, inside a "
                "{% generation %} block: put the blocks around answers only."
            )
    if owner is None:
        raise TemplateError(f"The template {template.name} writes a {{% generation %}} block before any answer.")
    return owner


def _contains(span: Span, layout: Layout, slot: int) -> bool:
    return span[0] <= layout.slots[slot].start and layout.slots[slot].end <= span[1]


def special_tokens_in(template: Template, text: str) -> list[str]:
    """The special tokens in `text`, in order."""
    return [match[0] for match in template.special_pattern.finditer(text)]


def find_end_token(template: Template, ending: str, is_call: bool = False) -> int:
    """Where the end token ends in `ending`, the template's text after an answer.

    A call of a tool may end with another special token than an answer in words.

    Raises:
        TemplateError: the end token is not in it.
    """
    written = special_tokens_in(template, ending)
    accepted = [
        template.end_token,
        template.inner_end_token,
        *(written[:1] if is_call or not template.end_token else ()),
    ]
    for token in accepted:
        if token and token in ending:
            return ending.index(token) + len(token)
    expected = f"the end token {template.end_token!r}" if template.end_token else "a special token"
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
