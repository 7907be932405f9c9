"""Turn message trees into conversations: choose threads by a path policy, and give all other messages their fates.

Input is a messages frame (`tables.MESSAGES`) with trees in any order and replies in file order. Output is a conversations
frame with one row for each path, and the fates of all messages and trees that are on no path, and of those on a path
that have a line of their own. Everything is computed on arrays, for all trees at once (see `message_tree`).
"""

from __future__ import annotations

import numpy as np
import polars as pl

from dataprep.curate.message_tree import (
    CYCLE,
    MISSING_PARENT,
    MessageTrees,
    Policy,
    RowIndices,
    is_acceptable,
)
from dataprep.tables import (
    ASSISTANT,
    CONVERSATIONS,
    UNWANTED_LABELS,
    WANTED_LABELS,
    StageResult,
    conform,
    dropped,
    no_fates,
)

READY = "ready_for_export"
STAGE = "threads"


def choose_threads(messages: pl.DataFrame, policy: Policy) -> StageResult[None]:
    """Return conversations along the paths that `policy` chooses, and the fates of all messages and trees on no path.

    * `reviewed`: from the root of a ready tree, always the best-ranked reply that is neither deleted nor rejected in
      review (a missing rank comes after all ranks; ties go to file order), until there is none;
    * `guanaco`: from the root of a ready tree, always the first reply in file order, whatever its review: the rule of
      timdettmers/openassistant-guanaco;
    * `all`: every path from a root to a leaf, of every tree.

    Args:
        messages: columns of `tables.MESSAGES`; the messages of a tree need not be adjacent.
        policy: see above.

    Returns:
        The conversations: `id` is the leaf's message id; `lang`, `file` and `line` are the root's. In the fates, a
        message on a path that has a line of its own (flat files) has the rule `on_path`, so that every line has a fate.
    """
    messages, repeated = _without_repeats(messages)
    trees = MessageTrees(messages)
    fates = [repeated, _unreachable(trees)]
    roots = trees.roots()
    if policy == "all":
        path, step = trees.paths_up(trees.leaves())
    else:
        refused = _refused_trees(trees, roots, policy)
        fates += [refused, _messages_of_refused(trees, refused, repeated)]
        roots = roots[~messages["message_id"].gather(roots).is_in(refused["id"].implode()).to_numpy()]
        path, step = trees.paths_down(roots, trees.next_replies(policy))
        fates.append(_off_path(trees, roots, step))
    conversations = _conversations(messages, path, step)
    fates.append(_on_path(messages[step], conversations, path, repeated))
    return StageResult(conversations, pl.concat(fates))


def _conversations(messages: pl.DataFrame, path: RowIndices, step: RowIndices) -> pl.DataFrame:
    """Return one row for each path, in path order, from the (path, message row) of its steps."""
    is_answer = pl.col("role") == ASSISTANT
    steps = messages[step].with_columns(path=pl.Series(path))
    frame = steps.group_by("path", maintain_order=True).agg(
        pl.col("message_id").last().alias("id"),
        pl.col("tree_id", "file", "source", "line", "lang").first(),
        pl.struct("role", "content").alias("messages"),
        pl.col("message_id").alias("message_ids"),
        pl.col("rank").filter(is_answer).last(),
        pl.col("review_count").min(),
        pl.col("review_result").all(ignore_nulls=False).alias("accepted"),
        pl.col(WANTED_LABELS).filter(is_answer).min(),
        pl.col(UNWANTED_LABELS).max(),
    )
    return conform(frame, CONVERSATIONS)


def _without_repeats(messages: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the messages without second copies, and the fates of the copies: a repeated root makes a `repeated_tree`."""
    is_repeat = pl.int_range(pl.len()).over("message_id") > 0
    marked = messages.with_columns(is_repeat=is_repeat)
    copies = marked.filter("is_repeat")
    if copies.is_empty():
        return messages, no_fates()
    is_root = pl.col("parent_id").is_null()
    roots = copies.filter(is_root).with_columns(detail=pl.lit("the tree was read before"), id=pl.col("tree_id"))
    others = copies.filter(~is_root).join(roots.select("file", "line"), on=["file", "line"], how="anti")
    others = others.with_columns(detail=pl.lit("the message was read before"), id=pl.col("message_id"))
    fates = pl.concat(
        [dropped(roots, "tree", STAGE, "repeated_tree"), dropped(others, "message", STAGE, "repeated_id")]
    )
    return marked.filter(~pl.col("is_repeat")).drop("is_repeat"), fates


def _with_own_line(messages: pl.DataFrame, *others: pl.DataFrame) -> pl.DataFrame:
    """Return the messages that are not in the line of a conversation or a tree, as those of flat files are not."""
    lines = pl.concat(other.select("source", "line") for other in others).unique()
    return messages.join(lines, on=["source", "line"], how="anti", maintain_order="left")


def _on_path(
    steps: pl.DataFrame, conversations: pl.DataFrame, path: RowIndices, repeated: pl.DataFrame
) -> pl.DataFrame:
    """Return fates of the messages on paths that have a line of their own; `survivor` is the conversation they belong to."""
    parts = steps.with_columns(survivor=conversations["id"].gather(path), id=pl.col("message_id"))
    once = _with_own_line(parts, conversations, repeated).unique("id", keep="first", maintain_order=True)
    detailed = once.with_columns(detail=pl.format("it is part of the conversation '{}'", "survivor"))
    return dropped(detailed, "message", STAGE, "on_path")


def _unreachable(trees: MessageTrees) -> pl.DataFrame:
    """Return fates of the messages that are below no root."""
    rows = trees.messages.with_columns(pl.Series("root", trees.root), id=pl.col("message_id"))
    parent_missing = ~pl.col("parent_id").is_in(trees.messages["message_id"].implode())
    missing = pl.format("its parent {} is not in the data", "parent_id")
    orphans = rows.filter(pl.col("root") == MISSING_PARENT).with_columns(
        detail=pl.when(parent_missing).then(missing).otherwise(pl.lit("it replies to an orphan"))
    )
    cycles = rows.filter(pl.col("root") == CYCLE).with_columns(detail=pl.lit("its ancestors form a cycle"))
    return pl.concat([dropped(orphans, "message", STAGE, "orphan"), dropped(cycles, "message", STAGE, "cycle")])


def _refused_trees(trees: MessageTrees, roots: RowIndices, policy: Policy) -> pl.DataFrame:
    """Return fates of the trees that a policy takes no path of; `id` is the root's message id."""
    state = pl.col("tree_state")
    prompts = trees.messages[roots].with_columns(id=pl.col("message_id"))
    is_unready = state.is_not_null() & (state != READY)
    unready = prompts.filter(is_unready).with_columns(detail=pl.format("its state is {}", state))
    fates = [dropped(unready, "tree", STAGE, "tree_not_ready")]
    if policy == "reviewed":
        was_deleted = pl.when(pl.col("deleted")).then(pl.lit("its prompt was deleted"))
        reason = was_deleted.otherwise(pl.lit("its prompt was rejected in review"))
        unusable = prompts.filter(~is_unready & ~is_acceptable()).with_columns(detail=reason)
        fates.append(dropped(unusable, "tree", STAGE, "no_usable_path"))
    return pl.concat(fates)


def _messages_of_refused(trees: MessageTrees, refused: pl.DataFrame, repeated: pl.DataFrame) -> pl.DataFrame:
    """Return fates of the messages of `refused` trees that have a line of their own: they share their tree's rule."""
    root_row = trees.messages.select(id="message_id").with_columns(root=pl.int_range(pl.len(), dtype=pl.Int64))
    rules = refused.select("id", "rule").join(root_row, on="id").select("root", "rule")
    rows = trees.messages.with_columns(pl.Series("root", trees.root), id=pl.col("message_id"))
    parts = rows.join(rules, on="root", how="inner", maintain_order="left")
    own_line = _with_own_line(parts, refused, repeated)
    return dropped(own_line.with_columns(detail=pl.lit("its tree is not used")), "message", STAGE)


def _off_path(trees: MessageTrees, roots: RowIndices, steps: RowIndices) -> pl.DataFrame:
    """Return fates of the messages of used trees that are not on their tree's path."""
    is_off = np.isin(trees.root, roots)
    is_off[steps] = False
    rest = trees.messages.filter(pl.Series(is_off)).with_columns(
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
        .otherwise(pl.lit("the path continues with another reply, or ends above it")),
    )
    return dropped(rest, "message", STAGE)
