"""Divide conversations into those that go on and those that a rule drops."""

from __future__ import annotations

import polars as pl


def divided(conversations: pl.DataFrame, drops: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the conversations that are kept, and those that are dropped with the other columns of `drops`.

    Args:
        conversations: columns of `tables.CONVERSATIONS`.
        drops: `row` of each conversation to drop, and the columns that its fate needs.
    """
    is_dropped = conversations["row"].is_in(drops["row"].implode())
    lost = conversations.filter(is_dropped).join(drops, on="row", how="left", maintain_order="left")
    return conversations.filter(~is_dropped), lost
