"""Compares rows with each other, with data that they must not contain, and with the source that they were made from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import polars as pl
import xxhash

from dataprep.audit.faults import CERTAIN, LIKELY, Fault
from dataprep.audit.rows import AuditedRows, row_name
from dataprep.audit.text_reader import Message, without_system
from dataprep.dedup.contamination import drop_contaminated
from dataprep.dedup.exact import exact_form
from dataprep.dedup.normal_form import NormalisedBlock, for_each_normalised_block
from dataprep.tables import ASSISTANT, CONVERSATIONS, USER, conform

_START = 40  # characters of the first question by which a conversation is looked up in its source

# Shortest normal forms, in characters, that count as a leak. In scripts without spaces each letter is a word of the normal
# form, followed by a space, so half as many letters suffice.
_QUESTION, _ANSWER = 20, 100

# Fields that make two messages with the same content different.
_COMPARED_FIELDS = ("reasoning_content", "tool_calls", "trained")

# A message of the compared data: whether it is not its conversation's first question, the row, and its number in the row.
_Occurrence = tuple[bool, int, int]


def duplicates(conversations: Sequence[Sequence[Message]], tools: Sequence[str]) -> Iterator[tuple[int, int]]:
    """(row, first row with the same conversation and tools); conversations without messages are skipped."""
    first_rows: dict[tuple[str, str], int] = {}
    for row, key in enumerate(zip(_keys(conversations), tools, strict=True)):
        if conversations[row]:
            first = first_rows.setdefault(key, row)
            if first != row:
                yield row, first


def leaks(conversations: Sequence[Sequence[Message]], others: AuditedRows) -> Iterator[tuple[int, Fault]]:
    """Rows that equal a conversation of `others`, ask one of its questions, or contain one of its long answers.

    A match with the first question of a conversation is certain, because an evaluation measures the answer to it; later
    messages can occur in unrelated conversations and are likely leaks.
    """
    names = [row_name(place, others.files[0].name) for place in others.references()]
    theirs = [without_system(messages) for messages in others.messages]
    whole: dict[str, int] = {}
    for other, key in enumerate(_keys(theirs)):
        if theirs[other]:
            whole.setdefault(key, other)
    by_role = {
        USER: _occurrences(others.messages, USER, _QUESTION),
        ASSISTANT: _occurrences(others.messages, ASSISTANT, _ANSWER),
    }
    forms = _normal_forms(message["content"] for messages in conversations for message in messages)
    for row, key in enumerate(_keys([without_system(messages) for messages in conversations])):
        matches = [by_role.get(message["role"], {}).get(next(forms)) for message in conversations[row]]
        matched = next(((number, match) for number, match in enumerate(matches, 1) if match), None)
        if key in whole:
            yield row, Fault("leak", f"same conversation as {names[whole[key]]}")
        elif matched:
            number, (later, other, other_number) = matched
            detail = f"message {number} equals message {other_number} of {names[other]}"
            yield row, Fault("leak", detail, LIKELY if later else CERTAIN)


def benchmark_leaks(conversations: Sequence[Sequence[Message]], benchmark: pl.DataFrame) -> Iterator[tuple[int, Fault]]:
    """Rows that share a long sequence of words with a benchmark (a frame of `read_benchmark`)."""
    rows = range(len(conversations))
    frame = pl.DataFrame(
        {"row": rows, "id": map(str, rows), "messages": [_valid_unicode(messages) for messages in conversations]},
        schema_overrides={"messages": CONVERSATIONS["messages"]},
    )
    fates = drop_contaminated(conform(frame, CONVERSATIONS), [benchmark])[1]
    for row, detail in fates.select("row", "detail").iter_rows():
        yield row, Fault("leak", f"{detail[:1].lower()}{detail[1:].rstrip('.')}", LIKELY)


def match_sources(
    conversations: Sequence[Sequence[Message]], sources: Sequence[Sequence[Message]]
) -> dict[int, list[Message]]:
    """For each row, its source: of the conversations with the same first question, the one that agrees longest."""
    by_start: dict[str, list[Sequence[Message]]] = {}
    for source in filter(None, sources):  # records that could not be read have no messages
        by_start.setdefault(_start(source), []).append(source)
    matched: dict[int, list[Message]] = {}
    for row, messages in enumerate(conversations):
        candidates = by_start.get(_start(messages), []) if messages else []
        if candidates:
            turns = without_system(messages)
            scores = [_agreement(turns, without_system(source)) for source in candidates]
            matched[row] = list(candidates[scores.index(max(scores))])
    return matched


def _valid_unicode(messages: Sequence[Message]) -> list[Message]:
    """Role and content of the messages, with lone surrogates replaced, which text columns refuse."""
    return [
        {"role": message["role"], "content": message["content"].encode(errors="replace").decode()}
        for message in messages
    ]


def _keys(conversations: Sequence[Sequence[Message]]) -> list[str]:
    """A digest of each conversation that ignores Unicode form, case and white space."""
    contents = [message["content"] for messages in conversations for message in _valid_unicode(messages)]
    forms = iter(exact_form(pl.Series(contents, dtype=pl.String)).to_list())
    texts = (
        json.dumps([[message["role"], next(forms), *map(message.get, _COMPARED_FIELDS)] for message in messages])
        for messages in conversations
    )
    return [xxhash.xxh3_128_hexdigest(text.encode()) for text in texts]


def _normal_forms(texts: Iterable[str]) -> Iterator[str]:
    """The normal form of each text."""
    column = pl.Series([text.encode(errors="replace").decode() + "\n" for text in texts], dtype=pl.String)
    forms = [""] * len(column)

    def decode(part: NormalisedBlock) -> None:
        view = bytes(part.texts.data)
        for row, (start, end) in zip(part.rows.tolist(), pairwise(part.texts.offsets.tolist()), strict=True):
            forms[row] = view[start:end].decode()

    for_each_normalised_block(column, decode)
    return iter(forms)


def _occurrences(conversations: Sequence[Sequence[Message]], role: str, shortest: int) -> dict[str, _Occurrence]:
    """Where the messages of `role` occur, by normal form of at least `shortest` characters; first questions come first."""
    turns = [
        (message["content"], (message is not without_system(messages)[0], row, number))
        for row, messages in enumerate(conversations)
        for number, message in enumerate(messages, 1)
        if message["role"] == role
    ]
    occurrences: dict[str, _Occurrence] = {}
    for form, (_, place) in zip(_normal_forms(content for content, _ in turns), turns, strict=True):
        if len(form) >= shortest:
            occurrences[form] = min(place, occurrences.get(form, place))
    return occurrences


def _start(messages: Sequence[Message]) -> str:
    question = next((message["content"] for message in messages if message["role"] == USER), "")
    return " ".join(question.split()).casefold()[:_START]


def _agreement(messages: Sequence[Message], source: Sequence[Message]) -> int:
    """A score: 1,000 for each equal message from the start, plus the equal characters of the first that differs."""
    equal = 0
    for message, original in zip(messages, source, strict=False):
        if message["content"].strip() != original["content"].strip():
            characters = zip(str(message["content"])[:900], str(original["content"])[:900], strict=False)
            return equal * 1000 + sum(a == b for a, b in characters)
        equal += 1
    return equal * 1000
