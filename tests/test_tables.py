"""The tables that stages pass on: casts, and message fields that are present only where some record has a value."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest

from dataprep.tables import (
    CONVERSATIONS,
    FATES,
    MESSAGE_FIELDS,
    TURNS,
    concat_conversations,
    conform,
    dropped,
    message_fields,
    turns_type,
    without_absent_fields,
)


def frame(*messages: dict[str, Any], **columns: Any) -> pl.DataFrame:
    """One conversation of `messages`, with the fields that they have between them."""
    fields = {field for message in messages for field in message}
    return pl.DataFrame({"messages": [list(messages)], **columns}, schema_overrides={"messages": turns_type(fields)})


PLAIN = frame({"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
FLAGGED = frame({"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "trained": False})
CALLING = frame({"role": "assistant", "content": "", "tool_calls": "[]"}, tools=["[]"])


def test_a_plain_frame_gets_the_columns_and_types_of_the_schema() -> None:
    assert dict(conform(PLAIN, CONVERSATIONS).schema) == CONVERSATIONS


def test_conform_keeps_present_message_fields_in_their_order() -> None:
    turns = pl.List(pl.Struct({"trained": pl.Boolean, "content": pl.String, "name": pl.String, "role": pl.String}))
    conformed = conform(pl.DataFrame({"messages": [[]]}, schema={"messages": turns}), CONVERSATIONS)
    assert message_fields(conformed) == ("role", "content", "name", "trained")
    assert conformed.schema["messages"] == turns_type(["trained", "name"])


def test_conform_keeps_optional_columns_that_are_present() -> None:
    assert list(conform(CALLING, CONVERSATIONS).columns) == [*CONVERSATIONS, "tools"]
    assert "tools" not in conform(PLAIN, CONVERSATIONS).columns


def test_a_message_field_that_is_not_in_the_contract_is_an_error() -> None:
    emoji = pl.DataFrame(
        {"messages": [[]]}, schema={"messages": pl.List(pl.Struct({"role": pl.String, "emoji": pl.String}))}
    )
    with pytest.raises(ValueError, match="messages have no field emoji; known are role, content"):
        conform(emoji, CONVERSATIONS)


def test_every_message_has_role_and_content() -> None:
    assert turns_type([]) == turns_type(["role"]) == TURNS
    all_fields = turns_type(MESSAGE_FIELDS).inner
    assert isinstance(all_fields, pl.Struct)
    assert [field.name for field in all_fields.fields] == list(MESSAGE_FIELDS)


def test_concatenated_conversations_have_the_fields_of_all_with_null_where_one_has_none() -> None:
    both = concat_conversations([PLAIN, FLAGGED, CALLING])
    assert message_fields(both) == ("role", "content", "tool_calls", "trained")
    assert both["tools"].to_list() == [None, None, "[]"]
    assert [[turn["trained"] for turn in turns] for turns in both["messages"].to_list()] == [
        [None, None],
        [None, False],
        [None],
    ]


def test_concatenating_plain_conversations_adds_nothing() -> None:
    assert dict(concat_conversations([PLAIN, PLAIN]).schema) == CONVERSATIONS
    assert dict(concat_conversations([]).schema) == CONVERSATIONS


def test_fields_and_columns_without_a_value_are_removed() -> None:
    both = concat_conversations([PLAIN, FLAGGED, CALLING])
    assert without_absent_fields(both).equals(both)
    assert message_fields(without_absent_fields(both[:2])) == ("role", "content", "trained")
    assert dict(without_absent_fields(both[:1]).schema) == CONVERSATIONS
    assert dict(without_absent_fields(both[:0]).schema) == CONVERSATIONS


def test_fates_have_the_schema_of_fates_whatever_columns_the_frame_has() -> None:
    fates = dropped(PLAIN.with_columns(id=pl.lit("c1"), rule=pl.lit("no_answer")), "conversation", "rules")
    assert dict(fates.schema) == FATES
    assert fates.select("id", "kind", "fate", "stage", "rule").row(0) == (
        "c1",
        "conversation",
        "dropped",
        "rules",
        "no_answer",
    )
