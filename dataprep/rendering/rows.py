"""Renders conversations one at a time, for templates that inspect contents and for messages with further fields.

The text comes from plain Jinja. Spans and controls come from a second run on tainted strings, which must give the same
text.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from dataprep.common.errors import TemplateError
from dataprep.rendering.isolation import TemplateStopped, isolated
from dataprep.rendering.layout import TOOLS_ORIGIN, UNKNOWN_ORIGIN, Field, Layout, Position, Slot
from dataprep.rendering.spans import AnnotatedLayout, Span, Turn, annotate
from dataprep.rendering.taint import render_tainted
from dataprep.rendering.template import Conversation, Template, render, rendering_error

Messages = Sequence[Mapping[str, Any]]  # as a build stores them; see `Conversation.of`


@dataclass(frozen=True)
class Unwritten:
    """How much of a conversation is missing from its rendered text."""

    system: int = 0  # system messages whose text is not whole
    messages: int = 0  # other messages whose text is not whole
    reasoning: int = 0  # answers whose reasoning is not whole


@dataclass(frozen=True)
class RenderedRow:
    """One rendered conversation; spans and controls are half-open ranges in code points of `text`."""

    text: str
    spans: list[tuple[int, int]]
    controls: list[tuple[int, int]]
    unwritten: Unwritten = field(default=Unwritten(), compare=False)


# Rules of the fates.
TOOLS_NOT_IN_TEMPLATE = "tools_not_in_template"
REASONING_NOT_IN_TEMPLATE = "reasoning_not_in_template"


class UnsupportedField(TemplateError):
    """The template does not write a field of the conversation at all; `rule` names the reason in the fates."""

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(rule, message)  # both, so that it can be sent from a worker
        self.rule = rule

    def __str__(self) -> str:
        return str(self.args[1])


class RenderCache:
    """A bounded cache of the rows that `refusals` rendered, so that `batches` need not render them again.

    Each row is returned once. The key is a digest of the conversation, so that its text is not held twice.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free_bytes = max_bytes
        self._rows: dict[bytes, RenderedRow] = {}

    def put(self, messages: Messages, tools: str | None, row: RenderedRow) -> None:
        """Store `row` unless the cache is full."""
        size = sys.getsizeof(row.text) + _RANGE_BYTES * (len(row.spans) + len(row.controls))
        if size <= self._free_bytes:
            self._free_bytes -= size
            self._rows[conversation_digest(messages, tools)] = row

    def pop(self, messages: Messages, tools: str | None) -> RenderedRow | None:
        """Remove and return the row of that conversation, if it is stored."""
        return self._rows.pop(conversation_digest(messages, tools), None) if self._rows else None


_RANGE_BYTES = 128  # a tuple of two integers and its entry in a list


def conversation_digest(messages: Messages, tools: str | None) -> bytes:
    """A key of a conversation: equal for equal conversations only."""
    return hashlib.blake2b(repr((messages, tools)).encode(), digest_size=16).digest()


@isolated
def render_rows(
    template: Template, conversations: Sequence[tuple[Messages, str | Sequence[Any] | None]]
) -> list[RenderedRow | TemplateError]:
    """Render conversations (messages and tools) one at a time; one that cannot be rendered gives its error.

    Raises:
        TemplateStopped: a limit was exceeded. Limits depend on the machine, so they decide over no single conversation.
    """
    return [_row_or_error(template, messages, tools) for messages, tools in conversations]


def _row_or_error(
    template: Template, messages: Messages, tools: str | Sequence[Any] | None
) -> RenderedRow | TemplateError:
    try:
        return render_row(template, messages, tools)
    except TemplateStopped:
        raise
    except TemplateError as error:
        return error


@isolated
def render_row(template: Template, messages: Messages, tools: str | Sequence[Any] | None = None) -> RenderedRow:
    """Render one conversation and find its spans and controls.

    Args:
        template: any template.
        messages: each with `role` and `content`, and any further field of `tables.MESSAGE_FIELDS`.
        tools: the tools that the model may call, as JSON.
    Raises:
        TemplateError: the template refuses the conversation, or what is trained or who wrote a special token in it
            cannot be determined.
        UnsupportedField: the template does not write the tools or tool calls.
    """
    conversation = Conversation.of(messages, tools)
    text = render(template, conversation.messages, tools=conversation.tools)
    annotated, tainted_text = annotate_row(template, conversation)
    if tainted_text != text:
        raise TemplateError(
            f"The template {template.name} uses an operation on a content that cannot be tracked, so the positions of "
            "its answers are unknown; write it with the usual string operations."
        )
    starts = [0, *accumulate(_length(piece) for piece in annotated.layout.pieces)]

    def in_code_points(spans: Sequence[Span]) -> list[tuple[int, int]]:
        return [(_offset(start, starts), _offset(end, starts)) for start, end in spans]

    _refuse_ambiguous_tokens(template, text, annotated, starts)
    written = _written_texts(annotated.layout, text, starts)
    _require_tools(template, conversation, written)
    unwritten = _unwritten(conversation, written)
    return RenderedRow(text, in_code_points(annotated.spans), in_code_points(annotated.controls), unwritten)


@isolated
def annotate_row(template: Template, conversation: Conversation) -> tuple[AnnotatedLayout, str]:
    """The annotated layout of one conversation, and its text from the run on tainted strings.

    Raises:
        TemplateError: as `render_row`.
    """
    texts: list[str] = []

    def render_subset(indices: Sequence[int], add_generation_prompt: bool) -> Layout:
        text, layout = render_tainted(template, conversation.subset(indices), add_generation_prompt)
        texts.append(text)
        return layout

    turns = [
        Turn(message["role"], index not in conversation.context_only)
        for index, message in enumerate(conversation.messages)
    ]
    try:
        annotated = annotate(template, turns, render_subset)
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


_Written = Mapping[tuple[int, Field], str]  # message and field: all of its text in the rendering


def _written_texts(layout: Layout, text: str, starts: Sequence[int]) -> _Written:
    written: dict[tuple[int, Field], str] = {}
    for index, piece in enumerate(layout.pieces):
        if isinstance(piece, Slot):
            key = piece.ordinal, piece.field
            written[key] = written.get(key, "") + text[starts[index] : starts[index + 1]]
    return written


def _unwritten(conversation: Conversation, written: _Written) -> Unwritten:
    """Count the messages whose text is not whole in the rendering."""
    system = messages = reasoning = 0
    for index, message in enumerate(conversation.messages):
        if not _is_whole(message["content"], written.get((index, Field.CONTENT), "")):
            system += message["role"] == "system"
            messages += message["role"] != "system"
        if not _is_whole(message.get("reasoning_content") or "", written.get((index, Field.REASONING), "")):
            reasoning += 1
    return Unwritten(system, messages, reasoning)


_REASONING_TAGS = ("<think>", "</think>")  # templates write them in the place of those in a content


def _is_whole(text: str, written: str) -> bool:
    """Whether all of `text` was written; white space and reasoning tags may have been replaced by the template's own."""
    if text in written:
        return True
    expected, rendered = _compact(text), _compact(written)
    return expected in rendered or _compact(json.dumps(text, ensure_ascii=False)[1:-1]) in rendered


def _compact(text: str) -> str:
    for tag in _REASONING_TAGS:
        text = text.replace(tag, "")
    return "".join(text.split())


def _require_tools(template: Template, conversation: Conversation, written: _Written) -> None:
    """Raise an error if the template leaves out a tool or a tool call."""
    tools = written.get((TOOLS_ORIGIN, Field.CONTENT), "")
    if not all(_is_mentioned(name, tools) for name in _strings_at(conversation.tools or (), "name")):
        raise UnsupportedField(
            TOOLS_NOT_IN_TEMPLATE,
            f"The template {template.name} does not write the tools that the conversation offers to the model.",
        )
    for index, message in enumerate(conversation.messages):
        calls = written.get((index, Field.TOOL_CALLS), "")
        if not all(_is_mentioned(leaf, calls) for leaf in _call_texts(message.get("tool_calls") or ())):
            raise UnsupportedField(
                TOOLS_NOT_IN_TEMPLATE,
                f"The template {template.name} does not write the tool calls of message {index + 1}.",
            )


def _is_mentioned(text: str, written: str) -> bool:
    return text in written or json.dumps(text, ensure_ascii=False)[1:-1] in written or _is_whole(text, written)


def _strings_at(tools: Sequence[Any], key: str) -> Iterator[str]:
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, Mapping) else {}
        if isinstance(function, Mapping) and isinstance(function.get(key), str):
            yield function[key]


def _call_texts(calls: Sequence[Any]) -> Iterator[str]:
    """The names and the text arguments of tool calls."""
    yield from _strings_at(calls, "name")
    for call in calls:
        function = call.get("function", call) if isinstance(call, Mapping) else {}
        arguments = function.get("arguments") if isinstance(function, Mapping) else None
        yield from _leaves(arguments)


def _leaves(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
