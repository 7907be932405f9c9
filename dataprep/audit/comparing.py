"""Rows beside each other, beside what they must not hold, and beside the source that they were made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import polars as pl
import xxhash

from dataprep.audit.reading import Message, without_system
from dataprep.audit.rows import Rows, told
from dataprep.audit.signs import CERTAIN, LIKELY
from dataprep.dedup.contamination import drop_contaminated
from dataprep.dedup.exact import exact_form
from dataprep.dedup.normal_form import Part, each_form
from dataprep.tables import ASSISTANT, CONVERSATIONS, USER, conform

_START = 40  # characters of a question by which a conversation is looked up in its source

# Characters of a normal form from which on it says something. Each letter of a script without spaces is a word there,
# with a space behind it, so half as many are enough.
_QUESTION, _ANSWER = 20, 100

Leak = tuple[int, str, str]  # row, detail, how sure


def repeats(rows: Sequence[Sequence[Message]]) -> Iterator[tuple[int, int]]:
    """(row, first row that says the same)."""
    first: dict[str, int] = {}
    for row, key in enumerate(_keys(rows)):
        if rows[row]:
            at = first.setdefault(key, row)
            if at != row:
                yield row, at


def leaks(rows: Sequence[Sequence[Message]], others: Rows) -> Iterator[Leak]:
    """Rows that are a conversation of `others`, ask one of its questions, or give one of its long answers.

    What is asked first there is what an evaluation measures; what is asked or answered later, others may say, too.
    """
    where = [told(number, others.files[0].name) for number in others.numbers()]
    theirs = [without_system(messages) for messages in others.messages]
    whole: dict[str, int] = {}
    for at, key in enumerate(_keys(theirs)):
        if theirs[at]:
            whole.setdefault(key, at)
    telling = {
        USER: _telling(others.messages, USER, _QUESTION),
        ASSISTANT: _telling(others.messages, ASSISTANT, _ANSWER),
    }
    forms = _forms(message["content"] for messages in rows for message in messages)
    for row, key in enumerate(_keys([without_system(messages) for messages in rows])):
        known = [telling.get(message["role"], {}).get(next(forms)) for message in rows[row]]
        if key in whole:
            yield row, f"it is the same as {where[whole[key]]}", CERTAIN
        elif any(known):
            place = next(place for place, turn in enumerate(known) if turn)
            later, other, number = known[place] or (False, 0, 0)
            yield row, f"message {place + 1} is message {number} of {where[other]}", LIKELY if later else CERTAIN


def shared_words(rows: Sequence[Sequence[Message]], benchmark: pl.DataFrame) -> Iterator[Leak]:
    """Rows that share many words in a row with a benchmark (a frame of `read_benchmark`)."""
    frame = pl.DataFrame(
        {"row": range(len(rows)), "id": map(str, range(len(rows))), "messages": [_clean(row) for row in rows]},
        schema_overrides={"messages": CONVERSATIONS["messages"]},
    )
    fates = drop_contaminated(conform(frame, CONVERSATIONS), [benchmark])[1]
    for row, detail in fates.select("row", "detail").iter_rows():
        yield row, f"it {detail[:1].lower()}{detail[1:].rstrip('.')}", LIKELY


def found_in(rows: Sequence[Sequence[Message]], others: Sequence[Sequence[Message]]) -> dict[int, list[Message]]:
    """By row, the messages of its source: of the conversations that begin with the same question, the most alike."""
    by_start: dict[str, list[Sequence[Message]]] = {}
    for other in filter(None, others):  # what cannot be read has no messages
        by_start.setdefault(_start(other), []).append(other)
    found: dict[int, list[Message]] = {}
    for row, messages in enumerate(rows):
        near = by_start.get(_start(messages), []) if messages else []
        if near:
            source = max(near, key=lambda other: _agreement(without_system(messages), without_system(other)))
            found[row] = list(source)
    return found


def _clean(messages: Iterable[Message]) -> list[Message]:
    """With characters that no text may hold, such as half of an emoji, replaced: columns refuse them."""
    return [{**m, "content": m["content"].encode(errors="replace").decode()} for m in messages]


def _keys(rows: Sequence[Sequence[Message]]) -> list[str]:
    """A key of each conversation: the same for those that are the same but for Unicode form, case and white space."""
    contents = pl.Series([m["content"] for row in rows for m in _clean(row)], dtype=pl.String)
    forms = iter(exact_form(contents).to_list())
    said = (json.dumps([[message["role"], next(forms)] for message in row]) for row in rows)
    return [xxhash.xxh3_128_hexdigest(text.encode()) for text in said]


def _forms(texts: Iterable[str]) -> Iterator[str]:
    """The normal form of each text."""
    column = pl.Series([text.encode(errors="replace").decode() + "\n" for text in texts], dtype=pl.String)
    forms = [""] * len(column)

    def take(part: Part) -> None:
        view = bytes(part.texts.data)
        for row, (start, end) in zip(part.rows.tolist(), pairwise(part.texts.offsets.tolist()), strict=True):
            forms[row] = view[start:end].decode()

    each_form(column, take)
    return iter(forms)


def _telling(rows: Sequence[Sequence[Message]], role: str, least: int) -> dict[str, tuple[bool, int, int]]:
    """By normal form of messages of `role`, if it has `least` characters: whether it is not the first question, its row,
    and its number in there."""
    turns = [
        (message["content"], (message is not without_system(messages)[0], row, number))
        for row, messages in enumerate(rows)
        for number, message in enumerate(messages, 1)
        if message["role"] == role
    ]
    found: dict[str, tuple[bool, int, int]] = {}
    for form, (_, place) in zip(_forms(content for content, _ in turns), turns, strict=True):
        if len(form) >= least:
            found[form] = min(place, found.get(form, place))
    return found


def _start(messages: Sequence[Message]) -> str:
    question = next((message["content"] for message in messages if message["role"] == USER), "")
    return " ".join(question.split()).casefold()[:_START]


def _agreement(messages: Sequence[Message], other: Sequence[Message]) -> int:
    """Messages that are the same, and the beginning of the next one."""
    same = 0
    for mine, theirs in zip(messages, other, strict=False):
        if mine["content"].strip() != theirs["content"].strip():
            return same * 1000 + sum(
                a == b for a, b in zip(mine["content"][:900], theirs["content"][:900], strict=False)
            )
        same += 1
    return same * 1000
