"""Polars expressions over conversations that rules and repairs share.

Most take `fields`, the message fields and columns that a frame has (see `present_fields`): a plain frame has `role` and
`content` only, and pays for nothing else.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl

from dataprep.tables import message_fields

MESSAGES = pl.col("messages")
ROLE = pl.element().struct.field("role")
CONTENT = pl.element().struct.field("content")
TEXT_FIELDS = ("content", "reasoning_content", "tool_calls", "name")  # fields of a message that a template may write


def present_fields(conversations: pl.DataFrame) -> tuple[str, ...]:
    """Return the message fields of a frame, and `tools` if it has that column."""
    return (*message_fields(conversations), *(["tools"] if "tools" in conversations.columns else []))


def roles() -> pl.Expr:
    """Return the roles of a conversation, a list."""
    return MESSAGES.list.eval(ROLE)


def contents() -> pl.Expr:
    """Return the contents of a conversation, a list."""
    return MESSAGES.list.eval(CONTENT)


def any_message(condition: pl.Expr) -> pl.Expr:
    """Return whether `condition`, an expression over a message, holds for any message of a conversation."""
    return MESSAGES.list.eval(condition).list.any()


def calls_tools(fields: Collection[str]) -> pl.Expr:
    """Return whether a message calls tools."""
    return pl.element().struct.field("tool_calls").is_not_null() if "tool_calls" in fields else pl.lit(False)


def is_context(fields: Collection[str]) -> pl.Expr:
    """Return whether a message is marked as context only."""
    return ~pl.element().struct.field("trained").fill_null(True) if "trained" in fields else pl.lit(False)


def message_has_token(tokens: Sequence[str], fields: Collection[str]) -> pl.Expr:
    """Return whether any of `tokens` occurs in a message's text that a template may write."""
    in_field = [_contains_any(pl.element().struct.field(name), tokens) for name in _text_fields(fields)]
    return in_field[0] if len(in_field) == 1 else pl.any_horizontal(in_field)


def has_token(tokens: Sequence[str], fields: Collection[str]) -> pl.Expr:
    """Return whether any of `tokens` occurs in a conversation's text that a template may write."""
    in_messages = any_message(message_has_token(tokens, fields))
    if "tools" not in fields:
        return in_messages
    return in_messages.fill_null(False) | _contains_any(pl.col("tools"), tokens).fill_null(False)


def tokens_in(tokens: Sequence[str], fields: Collection[str]) -> pl.Expr:
    """Return those of `tokens` that occur in a conversation's texts, comma-separated, in order of appearance."""
    texts = [
        MESSAGES.list.eval(pl.element().struct.field(name)).list.join("\n", ignore_nulls=True)
        for name in _text_fields(fields)
    ]
    if "tools" in fields:
        texts.append(pl.col("tools"))
    extracted = pl.concat_str(texts, separator="\n", ignore_nulls=True).str.extract_many(list(tokens))
    return extracted.list.unique(maintain_order=True).list.join(", ")


def _contains_any(text: pl.Expr, tokens: Sequence[str]) -> pl.Expr:
    """Return whether a text holds any of `tokens`: of two, a pattern is found in a third of the time."""
    if 0 < len(tokens) <= 2:
        return text.str.contains("|".join(map(pl.escape_regex, tokens)))
    return text.str.contains_any(list(tokens))


def _text_fields(fields: Collection[str]) -> list[str]:
    return [name for name in TEXT_FIELDS if name in fields]
