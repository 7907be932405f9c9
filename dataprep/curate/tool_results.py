"""Pair the results of tools with the calls that they answer."""

from __future__ import annotations

import polars as pl

from dataprep.curate.messages import present_fields, roles
from dataprep.tables import ASSISTANT, TOOL

_CALLS = pl.List(pl.Struct({"id": pl.String}))  # the part of `tool_calls` that pairing needs


def orphan_results(conversations: pl.DataFrame) -> pl.DataFrame:
    """Find conversations with the result of a tool that answers no call.

    A result belongs to the assistant message before it, with only other results in between. It needs a call there: the
    call with its `tool_call_id` if the calls have ids, else one call for each result, in order.

    Args:
        conversations: columns of `tables.CONVERSATIONS`.

    Returns:
        `row` of each such conversation, and `detail`, which names its first orphan.
    """
    chosen = conversations.filter(roles().list.contains(TOOL))
    turns = chosen.select("row", "messages", length=pl.col("messages").list.len())
    turns = turns.explode("messages", empty_as_null=False).unnest("messages")
    fields = present_fields(conversations)
    absent = [pl.lit(None, pl.String).alias(name) for name in ("tool_calls", "tool_call_id") if name not in fields]
    is_result = pl.col("role") == TOOL
    turns = turns.with_columns(absent).with_columns(
        number=pl.int_range(pl.len()).over("row") + 1,
        block=(~is_result).cum_sum().over("row"),  # a message with the results that follow it; 0 before any message
    )
    calls = turns.filter(~is_result, role=ASSISTANT).select(
        "row", "block", call_ids=pl.col("tool_calls").str.json_decode(_CALLS).list.eval(pl.element().struct.field("id"))
    )
    results = turns.filter(is_result).join(calls, on=["row", "block"], how="left", maintain_order="left")
    in_block, result_id, call_ids = ["row", "block"], pl.col("tool_call_id"), pl.col("call_ids").fill_null([])
    ids_given = result_id.is_not_null() & (call_ids.list.drop_nulls().list.len() > 0)
    is_repeated = pl.int_range(pl.len()).over(*in_block, "tool_call_id") > 0
    has_other_id = ids_given & (is_repeated | ~call_ids.list.contains(result_id))
    is_one_too_many = pl.int_range(pl.len()).over(in_block) >= call_ids.list.len()
    orphans = results.filter(has_other_id | is_one_too_many).unique("row", keep="first", maintain_order=True)
    return orphans.select("row", detail=pl.format("message {} of {} is the result of no call", "number", "length"))
