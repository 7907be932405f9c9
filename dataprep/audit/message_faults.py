"""Faults that show in the messages of one conversation, and differences from its source.

A common fault is that text was split at every `###`, so that Markdown headings in answers became turns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dataprep.audit.faults import CERTAIN, LIKELY, Fault
from dataprep.audit.text_reader import Message, roles_fault, without_system
from dataprep.tables import ASSISTANT, TOOL, USER

_OTHER_SPEAKER = {ASSISTANT: re.compile(r"#*\s*Human:"), USER: re.compile(r"#*\s*Assistant:")}
_SHORT_LINE = re.compile(r"(?P<line>[^\n?]{1,90})\n\s*\S")
_NUMBERED_HEADING = re.compile(
    r"(?:step|schritt|paso|étape|passo|шаг|part|section|example)?\s*(\d{1,2})(?:[.):]|\s?[–—-])\s[^\n]*\S\s*\n",
    re.IGNORECASE,
)
_CLOSING = re.compile(r"[;,)\]}]")
_HEADING = re.compile(r"#{1,3}\s")
_LONG = 200  # characters; what people type below a heading is mostly shorter
_EMPTIED_HEADING = re.compile(r"#{1,3} {2,}\S")  # '# Assistant: x' after its marker was removed
_SENTENCE_END = re.compile(r"[.!?…:。！？\"'»”)\]`*}>]\s*$")


def message_faults(messages: Sequence[Message]) -> Iterator[Fault]:
    """The faults that show in the messages of one conversation alone."""
    wrong_order = roles_fault(messages)
    if wrong_order:
        yield Fault("odd_roles", wrong_order)
    for number, message in enumerate(messages, 1):
        if not message["content"].strip() and not message.get("tool_calls") and message["role"] != TOOL:
            yield Fault("empty_turn", f"message {number} ({message['role']}) is empty")
        pattern = _OTHER_SPEAKER.get(message["role"])
        if pattern and pattern.match(message["content"]):
            speaker = message["content"].split(":")[0]
            yield Fault("odd_roles", f"message {number} ({message['role']}) begins with '{speaker}:'")
    if messages and messages[-1]["role"] in (USER, TOOL):
        last = "a question" if messages[-1]["role"] == USER else "a tool's result"
        yield Fault("unfinished", f"the last message ({len(messages)}) is {last} without an answer")
    yield from _split_answers(messages)


def _split_answers(messages: Sequence[Message]) -> Iterator[Fault]:
    """User turns that are the rest of an answer, and the answers that end before them."""
    for at, message in enumerate(messages):
        number, text = at + 1, message["content"]
        if message["role"] == ASSISTANT and at and _EMPTIED_HEADING.match(text):
            detail = f"message {at} was probably cut at '###': message {number} begins with '{text[:20]}'"
            yield Fault("cut_at_heading", detail, LIKELY)
        if message["role"] != USER or at == 0 or messages[at - 1]["role"] != ASSISTANT:
            continue
        sure = _rest_of_answer(messages, at)
        if sure:
            end = messages[at - 1]["content"][-40:]
            yield Fault("heading_in_user_turn", f"message {number} is the rest of an answer: '{_start(text)}'", sure)
            yield Fault("cut_at_heading", f"message {at} ends where message {number} begins: '…{end}'", sure)


def _rest_of_answer(messages: Sequence[Message], at: int) -> str | None:
    """How sure it is that user turn `at` is the part of the previous answer after a heading; None if it is not.

    It is certain where the next answer begins with another speaker's marker. Everything else can be typed by people, who
    paste texts with headings and count; there the turns around must look cut as well.
    """
    before, text = messages[at - 1]["content"], messages[at]["content"]
    after = messages[at + 1]["content"] if at + 1 < len(messages) else ""
    unfinished = not _SENTENCE_END.search(before)
    closes = bool(_CLOSING.match(text)) and unfinished
    if _OTHER_SPEAKER[ASSISTANT].match(after) and (closes or _HEADING.match(text) or _begins_with_title(text)):
        return CERTAIN
    between_headings = text.startswith("##") and all(_HEADING.match(turn) for turn in (before, text, after))
    if closes or between_headings or _continues_numbering(before, text, after):
        return LIKELY
    titles = _begins_with_title(text) and _begins_with_title(after)
    return LIKELY if unfinished and len(text) > _LONG and titles else None


def _begins_with_title(text: str) -> bool:
    """Whether the first line is short and no sentence, and more text follows."""
    title = _SHORT_LINE.match(text)
    return title is not None and not title["line"].rstrip().endswith((".", ",", ":", ";", "!"))


def _continues_numbering(before: str, text: str, after: str) -> bool:
    """Whether `text` and `after` begin with headings numbered n and n + 1, and `before` does not look like a quiz."""
    number, following = _NUMBERED_HEADING.match(text), _NUMBERED_HEADING.match(after + "\n")
    if not number or not following or int(following[1]) != int(number[1]) + 1 or before.rstrip().endswith(("?", "？")):
        return False
    return not _SENTENCE_END.search(before) or before.rstrip().endswith(":") or len(text) > _LONG


def source_differences(messages: Sequence[Message], source: Sequence[Message]) -> Iterator[Fault]:
    """The first difference between a conversation and its source, and missing or added messages at the end.

    A system text that only one of them has is no difference.
    """
    mine, theirs = without_system(messages), without_system(source)
    if len(messages) - len(mine) == len(source) - len(theirs):
        mine, theirs = messages, source
    skipped = len(messages) - len(mine)
    for number, (message, original) in enumerate(zip(mine, theirs, strict=False), 1 + skipped):
        if _comparable(message) != _comparable(original):
            yield _difference(number, message, original)
            return
    lost, added = theirs[len(mine) :], mine[len(theirs) :]
    if lost:
        count = f"{len(lost)} more message{'s' * (len(lost) > 1)}"
        yield Fault("unfinished", f"the source continues with {count}, the first is '{_start(lost[0]['content'])}'")
    elif added:
        yield Fault("odd_roles", f"message {len(messages) - len(added) + 1} is not in the source")


def _comparable(message: Message) -> tuple[str, str]:
    return message["role"], message["content"].strip()


def _difference(number: int, message: Message, original: Message) -> Fault:
    """How message `number` differs from the source's."""
    text, source_text = message["content"].strip(), original["content"].strip()
    if not text or message["role"] != original["role"] or not source_text.startswith(text):
        detail = f"message {number} is '{_start(text)}', but '{_start(source_text)}' in the source"
        return Fault("odd_roles", detail)
    rest = source_text[len(text) :].lstrip()
    missing = len(source_text) - len(text)
    detail = f"message {number} ends {missing} characters early; the source continues with '{_start(rest)}'"
    return Fault("cut_at_heading" if rest.startswith("#") else "unfinished", detail)


def _start(text: str) -> str:
    return " ".join(text[:80].split())[:50]
