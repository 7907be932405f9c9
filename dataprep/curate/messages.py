"""Polars expressions over the `messages` column that rules and repairs share."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

MESSAGES = pl.col("messages")
ROLE = pl.element().struct.field("role")
CONTENT = pl.element().struct.field("content")


def roles() -> pl.Expr:
    """Return the roles of a conversation, a list."""
    return MESSAGES.list.eval(ROLE)


def contents() -> pl.Expr:
    """Return the contents of a conversation, a list."""
    return MESSAGES.list.eval(CONTENT)


def any_message(condition: pl.Expr) -> pl.Expr:
    """Return whether `condition`, an expression over a message, holds for any message of a conversation."""
    return MESSAGES.list.eval(condition).list.any()


def tokens_in(tokens: Sequence[str]) -> pl.Expr:
    """Return those of `tokens` that occur in a conversation's contents, comma-separated, in order of appearance."""
    return contents().list.join("\n").str.extract_many(list(tokens)).list.unique(maintain_order=True).list.join(", ")
