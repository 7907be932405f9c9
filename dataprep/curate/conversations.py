"""The threads stage of a build: the messages of trees become conversations, and all conversations are numbered."""

from __future__ import annotations

import polars as pl

from dataprep.curate.ledger import check_messages
from dataprep.curate.message_tree import Policy
from dataprep.curate.threads import choose_threads
from dataprep.tables import StageResult, concat_conversations


def to_conversations(messages: pl.DataFrame, conversations: pl.DataFrame, policy: Policy) -> StageResult[None]:
    """Return all conversations in the order of their records, numbered by `row`.

    Args:
        messages: MESSAGES of the sources that hold trees.
        conversations: CONVERSATIONS of the other sources; `row` is null.
        policy: which threads of a tree are taken.

    Returns:
        kept, and the fates of the messages and trees that are on no path.

    Raises:
        AssertionError: a message or a line has neither a path nor a fate.
    """
    if messages.is_empty():
        return StageResult(_numbered(conversations))
    threads, fates, *_ = choose_threads(messages, policy)
    check_messages(messages, threads, fates)
    return StageResult(
        _numbered(concat_conversations([threads, conversations]).sort("file", "line", maintain_order=True)), fates
    )


def _numbered(conversations: pl.DataFrame) -> pl.DataFrame:
    return conversations.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
