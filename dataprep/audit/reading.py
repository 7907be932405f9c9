"""Rendered texts back to messages, however damaged: by the cues that a template writes before questions and answers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dataprep.common.errors import TemplateError
from dataprep.rendering import Template, render
from dataprep.tables import ASSISTANT, SYSTEM, USER

Message = dict[str, str]
_Q, _A, _S = "\ue000question\ue000", "\ue000answer\ue000", "\ue000system\ue000"  # stand-ins that no template writes


@dataclass(frozen=True)
class ReadRow:
    """What was read from one text: its messages, and faults of its frame as (kind, detail)."""

    messages: list[Message]
    faults: list[tuple[str, str]] = field(default_factory=list)


class TextReader:
    """Reads texts of one template, row by row: a damaged text has no plan that columns could follow."""

    def __init__(self, template: Template) -> None:
        """Raises:
        TemplateError: the template writes nothing by which question and answer could be told apart.
        """
        pair = [{"role": USER, "content": _Q}, {"role": ASSISTANT, "content": _A}]
        head, middle, tail = re.split(f"{_Q}|{_A}", render(template, pair))
        begin, end = template.bos_token or "", template.end_token or template.eos_token or ""
        self.begin = begin if begin and begin in head else ""
        self.end = end if end and end in tail else ""
        again = _between_pairs(template, pair) or tail + head  # what comes before a question that is not the first
        user, answer = (text.replace(self.begin, "").replace(self.end, "").strip() for text in (again, middle))
        if not user or not answer or user == answer:
            raise TemplateError(
                f"The template {template.name} writes nothing that tells questions from answers: its texts cannot be read."
            )
        self._wanted = {role: self._counts(text) for role, text in ((USER, again), (ASSISTANT, middle))}
        self._wanted_last = self._counts(tail)
        self._lead = head.partition(user)[0]  # with a default system text, where the template writes one
        self._cues = {user: USER, answer: ASSISTANT}
        self._system, self._leading = _system_frames(template, pair, head, user)
        tokens = [cue for cue in (user, answer, self.begin, self.end) if cue]
        self._token = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))))

    def read(self, text: str) -> ReadRow:
        """The messages of `text`, and what is wrong with its control tokens."""
        places = list(self._token.finditer(text))
        first = next((at for at, found in enumerate(places) if found[0] in self._cues), None)
        if first is None:
            cues = " and ".join(f"'{cue}'" for cue in self._cues)
            return ReadRow([], [("unparsable", f"it holds neither of {cues}")])
        system, faults = self._before(text[: places[first].start()])
        ends = [*(found.start() for found in places[first + 1 :]), len(text)]
        pieces = [(found[0], text[found.end() : end]) for found, end in zip(places[first:], ends, strict=True)]
        return self._assembled(pieces, system, faults)

    def _counts(self, text: str) -> dict[str, int]:
        """How often each control token that frames turns stands in `text`."""
        return {token: text.count(token) for token in (self.begin, self.end) if token}

    def _before(self, lead: str) -> tuple[list[Message], list[tuple[str, str]]]:
        """The system text that stands before the first question, and what is wrong there."""
        if self._leading and lead.strip() != self._lead.strip():
            before, after = self._leading
            inner = lead.strip().removeprefix(before).removesuffix(after).strip()
            if lead.strip().startswith(before) and inner and inner != self.begin:
                return [{"role": SYSTEM, "content": inner}], []
        begins = lead.count(self.begin) if self.begin else 0
        wanted = self._lead.count(self.begin) if self.begin else 0
        text = lead.replace(self.begin, "") if self.begin else lead
        if text.strip() and text.strip() != self._lead.replace(self.begin, "").strip():
            return [], [("unparsable", f"it has text before its first question: '{text.strip()[:60]}'")]
        if begins == wanted:
            return [], []
        kind = "doubled_control_token" if begins > wanted else "missing_control_token"
        return [], [(kind, f"{begins} times {self.begin} before message 1")]

    def _assembled(
        self, pieces: list[tuple[str, str]], system: list[Message], faults: list[tuple[str, str]]
    ) -> ReadRow:
        """The messages of `pieces` (a cue or a token, and the text behind it; a cue first) after those of `system`."""
        messages = list(system)
        met: dict[str, int] | None = None  # tokens since the last cue
        for token, text in pieces:
            if token in self._cues:
                role = self._cues[token]
                if met is not None:
                    faults += _frame_faults(met, self._wanted[role], f"before message {len(messages) + 1}")
                met = self._counts("")
                messages.append({"role": role, "content": text.strip()})
                if len(messages) == 1:
                    messages = self._with_system(messages)
            else:
                assert met is not None
                met[token] += 1
                if text.strip():
                    told = f"text follows {token} after message {len(messages)}: '{text.strip()[:60]}'"
                    faults.append(("missing_control_token", told))
        if self.end and met and messages[-1]["role"] == ASSISTANT:
            end = {self.end: met[self.end]}
            faults += _frame_faults(end, self._wanted_last, f"after message {len(messages)}")
        return ReadRow(messages, faults)

    def _with_system(self, messages: list[Message]) -> list[Message]:
        """The system text as a message of its own, where the first question holds one."""
        if not self._system or not messages[0]["content"].startswith(self._system[0]):
            return messages
        system, found, question = messages[0]["content"][len(self._system[0]) :].partition(self._system[1])
        if not found:
            return messages
        return [{"role": SYSTEM, "content": system.strip()}, {"role": USER, "content": question.strip()}]


def _frame_faults(met: Mapping[str, int], wanted: Mapping[str, int], where: str) -> list[tuple[str, str]]:
    """What is wrong with the number of each control token in one place."""
    told = []
    for token, count in met.items():
        if count > wanted[token]:
            told.append(("doubled_control_token", f"{count} times {token} {where}"))
        elif count < wanted[token]:
            told.append(("missing_control_token", f"{f'{count} times' if count else 'no'} {token} {where}"))
    return told


def _between_pairs(template: Template, pair: list[Message]) -> str | None:
    """What stands between an answer and the next question; None where the template knows one turn only."""
    try:
        return render(template, pair + pair).split(_A)[1].split(_Q)[0]
    except TemplateError:
        return None


def _system_frames(
    template: Template, pair: list[Message], head: str, cue: str
) -> tuple[tuple[str, str] | None, tuple[str, str] | None]:
    """What stands before and behind a system text: inside the first question, or before it; None where it is not there."""
    try:
        before, rest = render(template, [{"role": SYSTEM, "content": _S}, *pair]).split(_S, 1)
    except (TemplateError, ValueError):  # it refuses a system text, or drops it
        return None, None
    if cue in before:
        frame = before.replace(head, "", 1).strip(), rest.split(_Q, 1)[0].strip()
        return (frame if all(frame) else None), None
    return None, (before.strip(), rest.partition(cue)[0].strip())


def without_system(messages: Sequence[Message]) -> Sequence[Message]:
    """`messages` less a system text at their head."""
    return messages[1:] if messages and messages[0]["role"] == SYSTEM else messages


def roles_fault(messages: Sequence[Message]) -> str | None:
    """What is odd about the order of the roles."""
    roles = [message["role"] for message in messages]
    turns = [message["role"] for message in without_system(messages)]
    for at, role in enumerate(turns):
        if role != (USER if at % 2 == 0 else ASSISTANT):
            return f"message {at + 1 + len(roles) - len(turns)} is of {role}"
    return None
