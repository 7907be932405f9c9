"""Repair conversations that can be trained on after a small change; each repair is recorded in the `repairs` column.

A repair is applied only to the few conversations that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import polars as pl

from dataprep.common.text import VISIBLE_CHARACTER
from dataprep.curate.messages import (
    CONTENT,
    MESSAGES,
    TEXT_FIELDS,
    has_token,
    present_fields,
    roles,
    tokens_in,
)
from dataprep.recipe import Recipe
from dataprep.tables import (
    ASSISTANT,
    MESSAGE_FIELDS,
    REPAIRS,
    REQUIRED_FIELDS,
    ROLES,
    SYSTEM,
    TOOL,
    message_fields,
    turns_type,
)

TURN_BREAK = "\n\n"  # between messages of one role that are merged


def repair(conversations: pl.DataFrame, recipe: Recipe, tokens: Sequence[str]) -> pl.DataFrame:
    """Apply the repairs that `recipe` asks for.

    Args:
        conversations: columns of `tables.CONVERSATIONS`.
        recipe: `system` and `control_tokens` are used.
        tokens: the template's special tokens and markers.
    """
    for always in (cut_dangling_question, drop_blank_system, merge_turns):
        conversations = always(conversations)
    if recipe.system is not None:
        conversations = add_system(conversations, recipe.system)
    if recipe.control_tokens == "escape":
        conversations = escape_tokens(conversations, tokens)
    return conversations


def cut_dangling_question(conversations: pl.DataFrame) -> pl.DataFrame:
    """Cut what follows the last answer; the repair `dangling_question` records the text that was cut.

    Conversations without any answer are left to the rule `no_answer`.
    """
    last_role = roles().list.last()
    condition = (last_role != ASSISTANT) & roles().list.contains(ASSISTANT)

    def cut(frame: pl.DataFrame) -> pl.DataFrame:
        tail = roles().list.reverse().list.eval(pl.element() == ASSISTANT).list.arg_max()
        frame = frame.with_columns(_tail=tail.cast(pl.Int64))
        head = MESSAGES.list.len().cast(pl.Int64) - pl.col("_tail")
        text = MESSAGES.list.tail(pl.col("_tail")).list.eval(CONTENT).list.join(TURN_BREAK, ignore_nulls=True)
        one_id_each = pl.col("message_ids").list.len() == MESSAGES.list.len()
        ids = pl.when(one_id_each).then(pl.col("message_ids").list.head(head)).otherwise(pl.col("message_ids"))
        return frame.with_columns(_with_repair("dangling_question", text), MESSAGES.list.head(head), ids)

    return _apply_where(conversations, condition, cut)


def drop_blank_system(conversations: pl.DataFrame) -> pl.DataFrame:
    """Remove a leading system message without visible text: many files write one in every row."""
    first = MESSAGES.list.first()
    has_text = first.struct.field("content").str.contains(VISIBLE_CHARACTER).fill_null(False)

    def remove(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(_with_repair("blank_system", pl.lit("")), MESSAGES.list.slice(1))

    return _apply_where(conversations, (first.struct.field("role") == SYSTEM) & ~has_text, remove)


def merge_turns(conversations: pl.DataFrame) -> pl.DataFrame:
    """Join neighbouring messages of one role with a blank line; `message_ids` still names every source message.

    A message without visible text adds nothing to its neighbours, and the repair counts it. If all of them are blank, the
    rule `empty_turn` applies.

    Neighbours are joined only if nothing changes its meaning or place: results of tools are never joined; neither are
    messages that differ in `name` or `trained`. A message with reasoning is not joined to the one before it, and to one
    that calls tools only further calls are. Neighbours that remain are left to the rule `roles_do_not_alternate`.
    """
    fields = message_fields(conversations)
    # The roles are searched as text: comparing each with the one before it, list by list, takes ten times as long.
    role_text = pl.format("\n{}\n", roles().list.join("\n\n"))
    has_neighbours = role_text.str.contains_any([f"\n{role}\n\n{role}\n" for role in ROLES])

    def merge(frame: pl.DataFrame) -> pl.DataFrame:
        rows = frame.select("_row", "messages").explode("messages").unnest("messages")
        rows = rows.with_columns(run=_runs(fields))
        content = pl.col("content")
        visible = content.filter(content.str.contains(VISIBLE_CHARACTER))
        any_visible = visible.len() > 0
        turns = rows.group_by("run", maintain_order=True).agg(
            pl.col("_row").first(),
            pl.col("role").first(),
            content=pl.when(any_visible).then(visible.str.join(TURN_BREAK)).otherwise(content.str.join(TURN_BREAK)),
            blank=pl.when(any_visible).then(content.len() - visible.len()).otherwise(0),
            **{name: _joined(name) for name in fields if name not in REQUIRED_FIELDS},
        )
        merged = turns.group_by("_row", maintain_order=True).agg(pl.col("blank").sum(), messages=pl.struct(fields))
        fewer = frame["messages"].list.len() - merged["messages"].list.len()
        frame = frame.with_columns(_fewer=fewer, _blank=merged["blank"], messages=merged["messages"])
        detail = pl.format("{} messages joined to a neighbour of the same role", "_fewer")
        blank_detail = (
            pl.when(pl.col("_blank") > 0).then(pl.format(", {} of them without text", "_blank")).otherwise(pl.lit(""))
        )
        repaired = _with_repair("merged_turns", detail + blank_detail)
        return frame.with_columns(pl.when(pl.col("_fewer") > 0).then(repaired).otherwise("repairs").alias("repairs"))

    return _apply_where(conversations, has_neighbours, merge)


def add_system(conversations: pl.DataFrame, text: str) -> pl.DataFrame:
    """Put the system message `text` in front of conversations that have none."""
    fields = message_fields(conversations)
    values = {"role": SYSTEM, "content": text}
    message = pl.struct(pl.lit(values.get(name), MESSAGE_FIELDS[name]).alias(name) for name in fields)

    def prepend(frame: pl.DataFrame) -> pl.DataFrame:
        return frame.with_columns(pl.concat_list(message, MESSAGES).cast(turns_type(fields)).alias("messages"))

    return _apply_where(conversations, roles().list.first() != SYSTEM, prepend)


def escape_tokens(conversations: pl.DataFrame, tokens: Sequence[str]) -> pl.DataFrame:
    """Break each typed control token by a space after its first character: `<s>` becomes `< s>`."""
    patterns, escaped = list(tokens), [token[0] + " " + token[1:] for token in tokens]
    fields = present_fields(conversations)

    def break_tokens(text: pl.Expr) -> pl.Expr:
        return text.str.replace_many(patterns, escaped, leftmost=True)

    def escape(frame: pl.DataFrame) -> pl.DataFrame:
        values = {name: pl.element().struct.field(name) for name in message_fields(frame)}
        message = pl.struct((break_tokens(v) if name in TEXT_FIELDS else v).alias(name) for name, v in values.items())
        tools = [break_tokens(pl.col("tools"))] if "tools" in fields else []
        repaired = _with_repair("escaped_control_token", tokens_in(tokens, fields))
        return frame.with_columns(repaired, MESSAGES.list.eval(message).alias("messages"), *tools)

    return _apply_where(conversations, has_token(tokens, fields), escape)


def _runs(fields: Sequence[str]) -> pl.Expr:
    """Number the runs of messages that `merge_turns` joins, in rows of exploded messages."""
    same = ["_row", "role", *(name for name in ("name", "trained") if name in fields)]
    starts_run = pl.struct(same).rle_id().diff().fill_null(1) > 0
    if "tool_calls" in fields:
        only_calls = pl.col("tool_calls").is_not_null() & ~pl.col("content").str.contains(VISIBLE_CHARACTER)
        starts_run = starts_run | (pl.col("tool_calls").shift(1).is_not_null() & ~only_calls)
    if "reasoning_content" in fields:
        starts_run = starts_run | pl.col("reasoning_content").is_not_null()
    return (starts_run | (pl.col("role") == TOOL)).cum_sum()


def _with_repair(rule: str, detail: pl.Expr) -> pl.Expr:
    """Return `repairs` with one more entry."""
    entry = pl.struct(pl.lit(rule).alias("rule"), detail.cast(pl.String).alias("detail"))
    return pl.concat_list(pl.col("repairs").fill_null([]), entry).cast(REPAIRS).alias("repairs")


def _apply_where(
    frame: pl.DataFrame, condition: pl.Expr, change: Callable[[pl.DataFrame], pl.DataFrame]
) -> pl.DataFrame:
    """Apply `change` to the rows for which `condition` holds, and leave the others and the order as they are."""
    mask = frame.select(condition.fill_null(False)).to_series()
    if not mask.any():
        return frame
    numbered = frame.with_columns(pl.int_range(pl.len()).alias("_row"))
    changed = change(numbered.filter(mask)).select(numbered.columns)
    return pl.concat([numbered.filter(~mask), changed]).sort("_row").drop("_row")


def _joined(name: str) -> pl.Expr:
    """Return a field of joined messages: the calls of all in one JSON list, or the only value of any other field."""
    values = pl.col(name).drop_nulls()
    if name != "tool_calls":
        return values.first()
    calls = pl.format("[{}]", values.str.strip_prefix("[").str.strip_suffix("]").str.join(","))
    return pl.when(values.len() > 0).then(calls)
