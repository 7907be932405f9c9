"""Preference records, which hold a better and a worse answer: `--preference chosen` trains on the better one.

The context of the answers is in `prompt`, `messages`, `conversations` or Alpaca's keys, or each answer is a whole
conversation.
"""

from __future__ import annotations

from typing import Any

from dataprep.sources import alpaca
from dataprep.sources.chat import decode_turns
from dataprep.sources.coercion import CoercionError
from dataprep.sources.completion import turns_of
from dataprep.sources.schema import Record, RecordSchema
from dataprep.tables import ASSISTANT, USER

SCHEMA = RecordSchema((), is_line_only=True)
_ANSWERS = ("chosen", "rejected")
_TURN_KEYS = ("messages", "conversations")


def is_preference(record: Record) -> bool:
    """Whether `record` has a chosen and a rejected answer."""
    return all(isinstance(record.get(name), str | list | dict) and record[name] for name in _ANSWERS)


def rewrite(record: Record) -> tuple[Any, dict[str, Any]]:
    """Split a record into its turns, which end with the better answer, and its other keys.

    Raises:
        CoercionError: an answer or its context is missing or of an unknown shape.
    """
    if record.get("chosen") is None:
        raise CoercionError("has no 'chosen'")
    answer = turns_of(record, "chosen", ASSISTANT)
    context, used = _context(record)
    if len(answer) > len(context) and [_words(turn) for turn in answer[: len(context)]] == [
        _words(turn) for turn in context
    ]:
        context = []  # the answer is a whole conversation
    return [*context, *answer], {name: value for name, value in record.items() if name not in (*_ANSWERS, *used)}


def _context(record: Record) -> tuple[list[Any], tuple[str, ...]]:
    """Return the messages before the answer, and the keys from which they come."""
    for name in _TURN_KEYS:
        if record.get(name) is not None:
            turns = decode_turns(record[name])
            if not isinstance(turns, list):
                raise CoercionError(f"'{name}' is not a list of turns")
            return turns, (name,)
    if record.get("prompt") is not None:
        return turns_of(record, "prompt", USER), ("prompt",)
    if record.get("instruction") is not None:
        turns, _ = alpaca.rewrite({**record, "output": ""})
        return turns[:-1], ("instruction", "input", "output", "history")
    return [], ()


def _words(turn: Any) -> tuple[Any, Any]:
    """Return role and text of a turn, under whichever keys it has them."""
    if not isinstance(turn, dict):
        return None, turn
    return turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
