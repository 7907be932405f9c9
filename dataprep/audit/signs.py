"""Signs of damage in messages: what a split at `###` leaves behind, and what differs from the source."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from dataprep.audit.reading import Message, roles_fault, without_system
from dataprep.tables import ASSISTANT, USER

Sign = tuple[str, str, str]  # kind, detail, how sure: certain or likely

CERTAIN, LIKELY = "certain", "likely"

_MARKER = {ASSISTANT: re.compile(r"#*\s*Human:"), USER: re.compile(r"#*\s*Assistant:")}
_HEADING_LINE = re.compile(r"(?P<line>[^\n?]{1,90})\n\s*\S")
_NUMBERED = re.compile(
    r"(?:step|schritt|paso|étape|passo|шаг|part|section|example)?\s*(\d{1,2})(?:[.):]|\s?[–—-])\s[^\n]*\S\s*\n",
    re.IGNORECASE,
)
_REST = re.compile(r"[;,)\]}]")
_HASHES = re.compile(r"#{1,3}\s")
_LONG = 200  # characters; what people type below a heading is mostly less
_LOST_HASH = re.compile(r"#{1,3} {2,}\S")  # '# Assistant: x' with its marker taken out
_SENTENCE_END = re.compile(r"[.!?…:。！？\"'»”)\]`*}>]\s*$")


def signs(messages: Sequence[Message]) -> Iterator[Sign]:
    """What is visibly wrong with the messages of one conversation."""
    odd = roles_fault(messages)
    if odd:
        yield "odd_roles", odd, CERTAIN
    for at, message in enumerate(messages):
        if not message["content"].strip():
            yield "empty_turn", f"message {at + 1} ({message['role']}) has no text", CERTAIN
        pattern = _MARKER.get(message["role"])
        if pattern and pattern.match(message["content"]):
            told = message["content"].split(":")[0]
            yield "odd_roles", f"message {at + 1} ({message['role']}) begins with '{told}:'", CERTAIN
    if messages and messages[-1]["role"] == USER:
        yield "unfinished", f"message {len(messages)}, the last one, is a question without an answer", CERTAIN
    yield from _splits(messages)


def _splits(messages: Sequence[Message]) -> Iterator[Sign]:
    """Rests of answers where questions should be, and answers that end before one."""
    for at, message in enumerate(messages):
        text = message["content"]
        if message["role"] == ASSISTANT and at and _LOST_HASH.match(text):
            yield "cut_at_heading", f"message {at + 1} begins with '{text[:20]}': message {at} was cut at '###'", LIKELY
        if message["role"] != USER or at == 0 or messages[at - 1]["role"] != ASSISTANT:
            continue
        sure = _is_rest(messages, at)
        if sure:
            yield "heading_in_user_turn", f"message {at + 1} is the rest of an answer: '{_start(text)}'", sure
            yield "cut_at_heading", f"message {at} ends where that begins: '…{messages[at - 1]['content'][-40:]}'", sure


def _is_rest(messages: Sequence[Message], at: int) -> str | None:
    """How sure it is that question `at` is what followed a heading in the answer before.

    It is certain where the next answer begins with another speaker's marker. All else people type too: they paste
    texts with headings, and count; so there the turns around must look cut as well.
    """
    before, text = messages[at - 1]["content"], messages[at]["content"]
    after = messages[at + 1]["content"] if at + 1 < len(messages) else ""
    unfinished = not _SENTENCE_END.search(before)
    rest = bool(_REST.match(text)) and unfinished
    if _MARKER[ASSISTANT].match(after) and (rest or _HASHES.match(text) or _is_title(text)):
        return CERTAIN
    between = text.startswith("##") and all(_HASHES.match(turn) for turn in (before, text, after))
    if rest or between or _counts_on(before, text, after):
        return LIKELY
    return LIKELY if unfinished and len(text) > _LONG and _is_title(text) and _is_title(after) else None


def _is_title(text: str) -> bool:
    """Whether it begins with a short line that is no sentence, and goes on."""
    heading = _HEADING_LINE.match(text)
    return heading is not None and not heading["line"].rstrip().endswith((".", ",", ":", ";", "!"))


def _counts_on(before: str, text: str, after: str) -> bool:
    """Whether `text` and `after` begin with headings of which one is numbered n and the other n + 1, as no quiz has them."""
    number, following = _NUMBERED.match(text), _NUMBERED.match(after + "\n")
    if not number or not following or int(following[1]) != int(number[1]) + 1 or before.rstrip().endswith(("?", "？")):
        return False
    return not _SENTENCE_END.search(before) or before.rstrip().endswith(":") or len(text) > _LONG


def differences(messages: Sequence[Message], source: Sequence[Message]) -> Iterator[Sign]:
    """How a conversation differs from the one that it was made from; a system text that only one has is no part of it."""
    mine, theirs = without_system(messages), without_system(source)
    if len(messages) - len(mine) == len(source) - len(theirs):
        mine, theirs = messages, source
    ahead = len(messages) - len(mine)
    for at, (have, want) in enumerate(zip(mine, theirs, strict=False), 1 + ahead):
        if _said(have) != _said(want):
            yield _difference(at, have, want)
            return
    lost, added = theirs[len(mine) :], mine[len(theirs) :]
    if lost:
        count = f"{len(lost)} message{'s' * (len(lost) > 1)}"
        yield "unfinished", f"the source goes on for {count}: '{_start(lost[0]['content'])}' is lost", CERTAIN
    elif added:
        yield "odd_roles", f"message {len(messages) - len(added) + 1} is not in the source", CERTAIN


def _said(message: Message) -> tuple[str, str]:
    return message["role"], message["content"].strip()


def _difference(number: int, mine: Message, theirs: Message) -> Sign:
    """How message `number` differs from the source's."""
    have, want = mine["content"].strip(), theirs["content"].strip()
    if not have or mine["role"] != theirs["role"] or not want.startswith(have):
        return "odd_roles", f"message {number} is '{_start(have)}', and '{_start(want)}' in the source", CERTAIN
    rest = want[len(have) :].lstrip()
    early = f"message {number} ends {len(want) - len(have)} characters early; the source goes on '{_start(rest)}'"
    return "cut_at_heading" if rest.startswith("#") else "unfinished", early, CERTAIN


def _start(text: str) -> str:
    return " ".join(text[:80].split())[:50]
