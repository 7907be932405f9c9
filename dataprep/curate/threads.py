"""Message trees to conversations: which threads of a tree are taken, and what becomes of the rest.

In: a messages frame (`conversations.MESSAGES`), trees in any order, replies in file order.
Out: a conversations frame with one row a path, untrimmed, and the fates of all messages and trees that are on none, and
of those on a path that have a line of their own.
All of it is arrays: a tree is a column of parents' row numbers, and a path is followed for all trees at once,
one step a level.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import polars as pl

from dataprep.tables import (
    ASSISTANT,
    CONVERSATIONS,
    UNWANTED_LABELS,
    WANTED_LABELS,
    conform,
    dropped,
    no_fates,
)

READY = "ready_for_export"
STAGE = "threads"

Policy = Literal["reviewed", "guanaco", "all"]
Rows = np.ndarray  # int64 row numbers of the messages frame; -1 is none


def choose_threads(messages: pl.DataFrame, policy: Policy) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Conversations along the paths that `policy` takes, and the fates of what is on none of them.

    * `reviewed`: from a ready tree's root, the best-ranked reply that is neither deleted nor rejected in review
      (no rank counts after all ranks; ties go to file order), until there is none;
    * `guanaco`: from a ready tree's root, always the first reply in file order, whatever its review: the rule of
      timdettmers/openassistant-guanaco;
    * `all`: every path from a root to a leaf, of every tree.

    Args:
        messages: columns of `conversations.MESSAGES`; the parts of a tree may lie apart.

    Returns:
        (conversations, fates); a conversation's `id` is its leaf's message id, its `lang` and place its root's. A
        message on a path that has a line of its own (flat files) has the fate `on_path`, so that no line is without one.
    """
    messages, repeated = _without_repeats(messages)
    tree = _Tree(messages)
    fates = [repeated, tree.unreachable()]
    roots = tree.roots()
    if policy == "all":
        path, step = tree.climb(tree.leaves())
    else:
        refused = tree.refused_roots(roots, policy)
        fates += [refused, tree.below(refused, repeated)]
        roots = roots[~messages["message_id"].gather(roots).is_in(refused["id"].implode()).to_numpy()]
        path, step = tree.descend(roots, tree.first_replies(policy))
        fates.append(tree.left_aside(roots, step))
    conversations = _conversations(messages, path, step)
    fates.append(_on_path(messages[step], conversations, path, repeated))
    return conversations, pl.concat(fates)


def _with_own_line(messages: pl.DataFrame, *others: pl.DataFrame) -> pl.DataFrame:
    """Those of `messages` that do not stand in the line of a conversation or a tree, as those of flat files do not."""
    places = pl.concat(other.select("source", "line") for other in others).unique()
    return messages.join(places, on=["source", "line"], how="anti", maintain_order="left")


def _on_path(steps: pl.DataFrame, conversations: pl.DataFrame, path: Rows, repeated: pl.DataFrame) -> pl.DataFrame:
    """Fates of the messages of paths that have a line of their own; `survivor` is the conversation they are part of."""
    parts = steps.with_columns(survivor=conversations["id"].gather(path), id=pl.col("message_id"))
    once = _with_own_line(parts, conversations, repeated).unique("id", keep="first", maintain_order=True)
    told = once.with_columns(detail=pl.format("it is part of the conversation '{}'", "survivor"))
    return dropped(told, "message", STAGE, "on_path")


def _without_repeats(messages: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Messages without second copies, and their fates: a tree whose root comes again is one `repeated_tree`."""
    again = pl.int_range(pl.len()).over("message_id") > 0
    marked = messages.with_columns(again=again)
    copies = marked.filter("again")
    if copies.is_empty():
        return messages, no_fates()
    is_root = pl.col("parent_id").is_null()
    roots = copies.filter(is_root).with_columns(detail=pl.lit("the tree was read before"), id=pl.col("tree_id"))
    others = copies.filter(~is_root).join(roots.select("file", "line"), on=["file", "line"], how="anti")
    others = others.with_columns(detail=pl.lit("the message was read before"), id=pl.col("message_id"))
    fates = pl.concat(
        [dropped(roots, "tree", STAGE, "repeated_tree"), dropped(others, "message", STAGE, "repeated_id")]
    )
    return marked.filter(~pl.col("again")).drop("again"), fates


class _Tree:
    """The messages as arrays: `parent` is each message's parent as a row number, -1 at a root, -2 where it is missing."""

    def __init__(self, messages: pl.DataFrame) -> None:
        self.messages = messages
        found = messages.select("parent_id").join(
            messages.select(parent_id="message_id", parent=pl.int_range(pl.len(), dtype=pl.Int64)),
            on="parent_id",
            how="left",
            maintain_order="left",
        )
        missing = pl.when(messages["parent_id"].is_null()).then(-1).otherwise(-2)
        self.parent = found.select(pl.col("parent").fill_null(missing)).to_series().to_numpy().astype(np.int64)
        self.top = self._tops()

    def _tops(self) -> Rows:
        """For each message the root (>= 0) above it; -2: an orphan is above it; -3: it hangs on a cycle.

        Pointer doubling: after k rounds `at` looks 2**k ancestors up, so a chain of n messages takes log2(n) rounds.
        """
        here = np.arange(len(self.parent))
        at = np.where(self.parent < 0, here, self.parent)  # roots and orphans point at themselves
        for _ in range(max(1, len(here)).bit_length()):
            at = at[at]
        state = self.parent[at]
        return np.where(state == -1, at, np.where(state == -2, -2, -3))

    def roots(self) -> Rows:
        """Row numbers of the roots, in file order."""
        return np.flatnonzero(self.parent == -1)

    def leaves(self) -> Rows:
        """Row numbers of the messages under a root that nobody answered, in file order."""
        answered = np.zeros(len(self.parent), dtype=bool)
        answered[self.parent[self.parent >= 0]] = True
        return np.flatnonzero(~answered & (self.top >= 0))

    def first_replies(self, policy: Policy) -> Rows:
        """For each message the reply that the path goes on with, or -1."""
        rows = pl.DataFrame({"parent": self.parent}).with_row_index("child")
        rows = rows.with_columns(self.messages.select("rank", "deleted", "review_result"))
        if policy == "reviewed":
            rows = rows.filter(_acceptable()).sort("rank", "child", nulls_last=True)
        rows = rows.filter(pl.col("parent") >= 0).unique("parent", keep="first", maintain_order=True)
        reply = np.full(len(self.parent), -1, dtype=np.int64)
        reply[rows["parent"].to_numpy()] = rows["child"].to_numpy()
        return reply

    def descend(self, roots: Rows, reply: Rows) -> tuple[Rows, Rows]:
        """Paths down from `roots`: (path number, message row) of all steps, path by path from the top."""
        paths, steps = [], []
        path, at = np.arange(len(roots)), roots
        while len(at):
            paths.append(path)
            steps.append(at)
            path, at = path[reply[at] >= 0], reply[at][reply[at] >= 0]
        return _by_path(paths, steps)

    def climb(self, leaves: Rows) -> tuple[Rows, Rows]:
        """Paths up from `leaves`, given as `descend` gives them."""
        paths, steps = [], []
        path, at = np.arange(len(leaves)), leaves
        while len(at):
            paths.append(path)
            steps.append(at)
            up = self.parent[at] >= 0
            path, at = path[up], self.parent[at][up]
        return _by_path(paths[::-1], steps[::-1])

    def unreachable(self) -> pl.DataFrame:
        """Fates of the messages that no root leads to."""
        state = pl.Series("top", self.top)
        lost = self.messages.with_columns(state, id=pl.col("message_id")).filter(pl.col("top") < 0)
        parent = pl.format("its parent {} is not in the data", "parent_id")
        above = ~pl.col("parent_id").is_in(self.messages["message_id"].implode())
        orphans = lost.filter(pl.col("top") == -2).with_columns(
            detail=pl.when(above).then(parent).otherwise(pl.lit("it answers an orphan"))
        )
        cycles = lost.filter(pl.col("top") == -3).with_columns(detail=pl.lit("its parents lead in a circle"))
        return pl.concat([dropped(orphans, "message", STAGE, "orphan"), dropped(cycles, "message", STAGE, "cycle")])

    def refused_roots(self, roots: Rows, policy: Policy) -> pl.DataFrame:
        """Fates of the trees that a policy takes no path of; `id` is the root's message id."""
        state = pl.col("tree_state")
        top = self.messages[roots].with_columns(id=pl.col("message_id"))
        unready = state.is_not_null() & (state != READY)
        fates = [
            dropped(
                top.filter(unready).with_columns(detail=pl.format("its state is {}", state)),
                "tree",
                STAGE,
                "tree_not_ready",
            )
        ]
        if policy == "reviewed":
            deleted = pl.when(pl.col("deleted")).then(pl.lit("its prompt was deleted"))
            why = deleted.otherwise(pl.lit("its prompt was rejected in review"))
            unusable = top.filter(~unready & ~_acceptable()).with_columns(detail=why)
            fates.append(dropped(unusable, "tree", STAGE, "no_usable_path"))
        return pl.concat(fates)

    def below(self, refused: pl.DataFrame, repeated: pl.DataFrame) -> pl.DataFrame:
        """Fates of the messages of `refused` trees that have a line of their own: they share their tree's rule."""
        root = self.messages.select(id="message_id").with_columns(top=pl.int_range(pl.len(), dtype=pl.Int64))
        trees = refused.select("id", "rule").join(root, on="id").select("top", "rule")
        parts = self.messages.with_columns(pl.Series("top", self.top), id=pl.col("message_id")).join(
            trees, on="top", how="inner", maintain_order="left"
        )
        told = _with_own_line(parts, refused, repeated).with_columns(detail=pl.lit("its tree is not taken"))
        return dropped(told, "message", STAGE)

    def left_aside(self, roots: Rows, taken: Rows) -> pl.DataFrame:
        """Fates of the messages of trees in use that their tree's path does not take."""
        aside = np.isin(self.top, roots)
        aside[taken] = False
        rest = self.messages.filter(pl.Series(aside)).with_columns(
            id=pl.col("message_id"),
            rule=pl.when(pl.col("deleted"))
            .then(pl.lit("deleted_reply"))
            .when(~pl.col("review_result"))
            .then(pl.lit("rejected_reply"))
            .otherwise(pl.lit("off_path")),
            detail=pl.when(pl.col("deleted"))
            .then(pl.lit("it was deleted, and is not on the path"))
            .when(~pl.col("review_result"))
            .then(pl.lit("it was rejected in review, and is not on the path"))
            .otherwise(pl.lit("the path takes another reply, or ends above it")),
        )
        return dropped(rest, "message", STAGE)


def _acceptable() -> pl.Expr:
    """Neither deleted nor rejected in review; what is not told does not count against a message."""
    return ~pl.col("deleted").fill_null(False) & pl.col("review_result").fill_null(True)


def _by_path(paths: list[Rows], steps: list[Rows]) -> tuple[Rows, Rows]:
    """Levels of steps put path by path; each level's steps come in ascending path order."""
    if not paths:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    path, step = np.concatenate(paths), np.concatenate(steps)
    order = np.argsort(path, kind="stable")
    return path[order], step[order]


def _conversations(messages: pl.DataFrame, path: Rows, step: Rows) -> pl.DataFrame:
    """One row a path, in path order, from the (path, message row) of its steps."""
    answers = pl.col("role") == ASSISTANT
    steps = messages[step].with_columns(path=pl.Series(path))
    frame = steps.group_by("path", maintain_order=True).agg(
        pl.col("message_id").last().alias("id"),
        pl.col("tree_id", "file", "source", "line", "lang").first(),
        pl.struct("role", "content").alias("messages"),
        pl.col("message_id").alias("message_ids"),
        pl.col("rank").filter(answers).last(),
        pl.col("review_count").min(),
        pl.col("review_result").all(ignore_nulls=False).alias("accepted"),
        pl.col(WANTED_LABELS).filter(answers).min(),
        pl.col(UNWANTED_LABELS).max(),
    )
    return conform(frame, CONVERSATIONS)
