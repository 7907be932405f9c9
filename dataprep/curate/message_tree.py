"""Message trees as arrays: each message's parent, the root above it, and paths through many trees at once."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Policy = Literal["reviewed", "guanaco", "all"]
RowIndices = npt.NDArray[np.int64]  # row numbers of the messages frame; -1 means none

NO_PARENT = -1  # the message is a root
MISSING_PARENT = -2  # its parent is not in the data; as `root`: it or a message above it is an orphan
CYCLE = -3  # as `root`: its ancestors form a cycle


class MessageTrees:
    """The messages of many trees, with `parent` and `root` of each message as row numbers."""

    def __init__(self, messages: pl.DataFrame) -> None:
        """Link the messages, which have columns of `tables.MESSAGES` and unique ids."""
        self.messages = messages
        by_id = messages.select(parent_id="message_id", parent=pl.int_range(pl.len(), dtype=pl.Int64))
        linked = messages.select("parent_id").join(by_id, on="parent_id", how="left", maintain_order="left")
        otherwise = pl.when(messages["parent_id"].is_null()).then(NO_PARENT).otherwise(MISSING_PARENT)
        self.parent = linked.select(pl.col("parent").fill_null(otherwise)).to_series().to_numpy().astype(np.int64)
        self.root = self._roots_above()

    def roots(self) -> RowIndices:
        """Return the row numbers of the roots, in file order."""
        return np.flatnonzero(self.parent == NO_PARENT)

    def leaves(self) -> RowIndices:
        """Return the row numbers of the messages without replies that are below a root, in file order."""
        has_reply = np.zeros(len(self.parent), dtype=bool)
        has_reply[self.parent[self.parent >= 0]] = True
        return np.flatnonzero(~has_reply & (self.root >= 0))

    def next_replies(self, policy: Policy) -> RowIndices:
        """Return, for each message, the reply that the path continues with, or -1."""
        replies = pl.DataFrame({"parent": self.parent}).with_row_index("child")
        replies = replies.with_columns(self.messages.select("rank", "deleted", "review_result"))
        if policy == "reviewed":
            replies = replies.filter(is_acceptable()).sort("rank", "child", nulls_last=True)
        replies = replies.filter(pl.col("parent") >= 0).unique("parent", keep="first", maintain_order=True)
        next_reply = np.full(len(self.parent), -1, dtype=np.int64)
        next_reply[replies["parent"].to_numpy()] = replies["child"].to_numpy()
        return next_reply

    def paths_down(self, roots: RowIndices, next_reply: RowIndices) -> tuple[RowIndices, RowIndices]:
        """Follow `next_reply` from each root: (path number, message row) of all steps, path by path from the root."""
        paths, steps = [], []
        path, row = np.arange(len(roots)), roots
        while len(row):
            paths.append(path)
            steps.append(row)
            continues = next_reply[row] >= 0
            path, row = path[continues], next_reply[row][continues]
        return _by_path(paths, steps)

    def paths_up(self, leaves: RowIndices) -> tuple[RowIndices, RowIndices]:
        """Follow `parent` from each leaf to its root; the result is as in `paths_down`."""
        paths, steps = [], []
        path, row = np.arange(len(leaves)), leaves
        while len(row):
            paths.append(path)
            steps.append(row)
            continues = self.parent[row] >= 0
            path, row = path[continues], self.parent[row][continues]
        return _by_path(paths[::-1], steps[::-1])

    def _roots_above(self) -> RowIndices:
        """Return for each message its root, or MISSING_PARENT or CYCLE.

        Pointer doubling: after k rounds `ancestor` is 2**k levels up, so a chain of n messages takes log2(n) rounds.
        """
        rows = np.arange(len(self.parent))
        ancestor = np.where(self.parent < 0, rows, self.parent)  # roots and orphans point at themselves
        for _ in range(max(1, len(rows)).bit_length()):
            ancestor = ancestor[ancestor]
        end = self.parent[ancestor]
        return np.where(end == NO_PARENT, ancestor, np.where(end == MISSING_PARENT, MISSING_PARENT, CYCLE))


def is_acceptable() -> pl.Expr:
    """Return whether a message is neither deleted nor rejected in review; unknown values do not count against it."""
    return ~pl.col("deleted").fill_null(False) & pl.col("review_result").fill_null(True)


def _by_path(paths: list[RowIndices], steps: list[RowIndices]) -> tuple[RowIndices, RowIndices]:
    """Sort levels of steps path by path; the steps of each level are in ascending path order."""
    if not paths:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    path, step = np.concatenate(paths), np.concatenate(steps)
    order = np.argsort(path, kind="stable")
    return path[order], step[order]
