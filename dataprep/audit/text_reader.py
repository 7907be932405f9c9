"""Reads rendered texts back to messages, also damaged ones, by the markers that a template writes before each turn."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dataprep.audit.faults import Fault
from dataprep.common.errors import TemplateError
from dataprep.rendering import Template, text_around_contents
from dataprep.tables import ASSISTANT, SYSTEM, TOOL, USER

Message = dict[str, Any]  # role and content, and those of `tables.MESSAGE_FIELDS` that have a value

_PAIR: list[Message] = [{"role": USER, "content": "a question"}, {"role": ASSISTANT, "content": "an answer"}]


@dataclass(frozen=True)
class ReadRow:
    """The messages of one row, the tools that they may call (JSON; empty if none), and the faults that reading it showed."""

    messages: list[Message]
    faults: list[Fault] = field(default_factory=list)
    tools: str = ""


class TextReader:
    """Reads the texts of one template, each on its own, because damaged texts have no common structure."""

    def __init__(self, template: Template) -> None:
        """Learn the template's markers and control tokens by rendering probe conversations.

        Raises:
            TemplateError: the template writes no different markers before questions and before answers.
        """
        head, middle, tail = _around(template, _PAIR)
        begin, end = template.bos_token or "", template.end_token or template.eos_token or ""
        self.begin = begin if begin and begin in head else ""
        self.end = end if end and end in tail else ""
        next_question = _between_pairs(template) or tail + head  # written before every question but the first
        user, answer = (text.replace(self.begin, "").replace(self.end, "").strip() for text in (next_question, middle))
        if not user or not answer or user == answer:
            raise TemplateError(
                f"Texts of the template {template.name} cannot be read back: it writes no marker that tells questions "
                "from answers. Audit the data as messages."
            )
        self._expected = {role: self._count(text) for role, text in ((USER, next_question), (ASSISTANT, middle))}
        self._expected_last = self._count(tail)
        self._lead = head.partition(user)[0]  # with the default system text, where the template writes one
        self._roles = {user: USER, answer: ASSISTANT}
        self._system_inside, self._system_before = _system_frames(template, head, user)
        self._after_tool = ""  # what the template writes between a tool's result and the answer's marker
        self._learn_tool_results(template, answer)
        tokens = [token for token in (*self._roles, self.begin, self.end) if token]
        self._token = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))

    def _learn_tool_results(self, template: Template, answer: str) -> None:
        """Learn the marker of tool results, if the template writes one of its own."""
        try:
            before, after = _around(template, [*_PAIR, {"role": TOOL, "content": "a result"}, _PAIR[1]])[2:4]
        except TemplateError:  # the template has no tool results
            return
        marker = before.replace(self.begin, "").replace(self.end, "").strip()
        if marker and marker not in self._roles:
            self._roles[marker] = TOOL
            self._expected[TOOL] = self._count(before)
            self._after_tool = after.replace(self.begin, "").replace(self.end, "").strip().removesuffix(answer).strip()

    def read(self, text: str) -> ReadRow:
        """The messages of `text`, and the faults of its markers and control tokens."""
        tokens = list(self._token.finditer(text))
        first = next((at for at, token in enumerate(tokens) if token[0] in self._roles), None)
        if first is None:
            markers = " nor ".join(f"'{marker}'" for marker in self._roles)
            return ReadRow([], [Fault("unparsable", f"contains neither {markers}")])
        system, faults = self._read_lead(text[: tokens[first].start()])
        ends = [*(token.start() for token in tokens[first + 1 :]), len(text)]
        pieces = [(token[0], text[token.end() : end]) for token, end in zip(tokens[first:], ends, strict=True)]
        return self._read_turns(pieces, system, faults)

    def _count(self, text: str) -> dict[str, int]:
        """The number of begin tokens and of end tokens in `text`."""
        return {token: text.count(token) for token in (self.begin, self.end) if token}

    def _read_lead(self, lead: str) -> tuple[list[Message], list[Fault]]:
        """The system text before the first question, and the faults there."""
        if self._system_before and lead.strip() != self._lead.strip():
            before, after = self._system_before
            inner = lead.strip().removeprefix(before).removesuffix(after).strip()
            if lead.strip().startswith(before) and inner and inner != self.begin:
                return [{"role": SYSTEM, "content": inner}], []
        count = lead.count(self.begin) if self.begin else 0
        expected = self._lead.count(self.begin) if self.begin else 0
        text = lead.replace(self.begin, "") if self.begin else lead
        if text.strip() and text.strip() != self._lead.replace(self.begin, "").strip():
            return [], [Fault("unparsable", f"has text before its first question: '{text.strip()[:60]}'")]
        fault = _count_fault(self.begin, count, expected, "before message 1")
        return [], [fault] if fault else []

    def _read_turns(self, pieces: list[tuple[str, str]], system: list[Message], faults: list[Fault]) -> ReadRow:
        """The messages of `pieces` after those of `system`.

        A piece is a marker or a control token with the text after it; the first piece has a marker.
        """
        messages = list(system)
        counts: dict[str, int] | None = None  # control tokens since the last marker
        for token, text in pieces:
            if token in self._roles:
                role = self._roles[token]
                if counts is not None:
                    faults += _count_faults(counts, self._expected[role], f"before message {len(messages) + 1}")
                counts = self._count("")
                content = text.strip().removesuffix(self._after_tool if role == TOOL else "").strip()
                messages.append({"role": role, "content": content})
                if len(messages) == 1:
                    messages = self._with_system(messages)
            else:
                assert counts is not None
                counts[token] += 1
                if text.strip():
                    detail = (
                        f"no marker before the text after {token} of message {len(messages)}: '{text.strip()[:60]}'"
                    )
                    faults.append(Fault("unparsable", detail))  # whose text it is would be a guess
        if self.end and counts and messages[-1]["role"] == ASSISTANT:
            end_count = {self.end: counts[self.end]}
            faults += _count_faults(end_count, self._expected_last, f"after message {len(messages)}")
        return ReadRow(messages, faults)

    def _with_system(self, messages: list[Message]) -> list[Message]:
        """The first question divided into system text and question, where it contains a system text."""
        if not self._system_inside or not messages[0]["content"].startswith(self._system_inside[0]):
            return messages
        before, after = self._system_inside
        system, separator, question = messages[0]["content"][len(before) :].partition(after)
        if not separator:
            return messages
        return [{"role": SYSTEM, "content": system.strip()}, {"role": USER, "content": question.strip()}]


def _count_faults(counts: Mapping[str, int], expected: Mapping[str, int], where: str) -> list[Fault]:
    faults = (_count_fault(token, count, expected[token], where) for token, count in counts.items())
    return [fault for fault in faults if fault]


def _count_fault(token: str, count: int, expected: int, where: str) -> Fault | None:
    """The fault of one control token in one place; None where it occurs as often as the template writes it."""
    if count == expected:
        return None
    kind = "doubled_control_token" if count > expected else "missing_control_token"
    occurrences = f"{count} times {token}" if count else f"no {token}"
    return Fault(kind, f"{occurrences} {where}, expected {expected or 'none'}")


def _around(template: Template, messages: list[Message]) -> list[str]:
    """What the template writes before, between and after the contents of a conversation.

    Raises:
        TemplateError: it refuses the conversation, or does not write each content exactly once.
    """
    texts = text_around_contents(template, messages)
    if len(texts) != len(messages) + 1:
        raise TemplateError(
            f"Texts of the template {template.name} cannot be read back: it does not write every message exactly once. "
            "Audit the data as messages."
        )
    return texts


def _between_pairs(template: Template) -> str | None:
    """What the template writes between an answer and the next question; None where it accepts one pair only."""
    try:
        return _around(template, _PAIR + _PAIR)[2]
    except TemplateError:
        return None


def _system_frames(
    template: Template, head: str, user_marker: str
) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    """What the template writes before and after a system text.

    The first result is for a system text inside the first question, the second for one before it; a place where the
    template writes no system text has None.
    """
    try:
        before, after, *_ = _around(template, [{"role": SYSTEM, "content": "a system text"}, *_PAIR])
    except TemplateError:  # the template refuses a system text, or leaves it out
        return None, None
    if user_marker in before:
        frame = before.replace(head, "", 1).strip(), after.strip()
        return (frame if all(frame) else None), None
    return None, (before.strip(), after.partition(user_marker)[0].strip())


def without_system(messages: Sequence[Message]) -> Sequence[Message]:
    """`messages` without the system text at their start."""
    return messages[1:] if messages and messages[0]["role"] == SYSTEM else messages


def roles_fault(messages: Sequence[Message]) -> str | None:
    """A sentence about the first message whose role breaks the order user, assistant, …; None if no role does.

    Results of tools may follow an answer, and an answer follows them.
    """
    turns = without_system(messages)
    # calls are not told apart from text where a rendered text was read
    calls_are_known = any(message.get("tool_calls") for message in turns)
    previous: Message = {"role": ASSISTANT}
    for number, message in enumerate(turns, 1 + len(messages) - len(turns)):
        is_result = message["role"] == TOOL and number > 1 and previous["role"] in (ASSISTANT, TOOL)
        if is_result and previous["role"] == ASSISTANT and calls_are_known and not previous.get("tool_calls"):
            return f"message {number} is a tool's result, and message {number - 1} calls no tool"
        expected = USER if previous["role"] == ASSISTANT else ASSISTANT
        if not is_result and message["role"] != expected:
            return f"message {number} has the role '{message['role']}', expected '{expected}'"
        previous = message
    return None
