"""Small messages and conversations frames for tests, written in few words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

from dataprep.tables import CONVERSATIONS, MESSAGES, OPTIONAL_COLUMNS, conform, turns_type


def tree_messages(*rows: dict[str, Any]) -> pl.DataFrame:
    """Return a messages frame; each row needs `id` and may give `parent`, `role`, `text` and any column of MESSAGES."""
    full = []
    for line, row in enumerate(rows, start=1):
        parent = row.get("parent")
        known = {key: value for key, value in row.items() if key in MESSAGES}
        full.append(
            {
                "file": 0,
                "source": "trees.jsonl",
                "line": line,
                "tree_id": row.get("tree", "t"),
                "message_id": row["id"],
                "parent_id": parent,
                "role": row.get("role", "user" if parent is None else "assistant"),
                "content": row.get("text", f"text of {row['id']}"),
                **known,
            }
        )
    return conform(pl.DataFrame(full, infer_schema_length=None), MESSAGES)


def conversation(*turns: str | None, roles: Sequence[str] | None = None, **more: Any) -> dict[str, Any]:
    """Return one row of a conversations frame: user and assistant in turn, unless `roles` says otherwise."""
    roles = roles or [("user", "assistant")[place % 2] for place in range(len(turns))]
    return {
        "messages": [{"role": role, "content": text} for role, text in zip(roles, turns, strict=True)],
        "message_ids": [],
        **more,
    }


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return one row of a conversations frame whose messages may have any field; `content` is "" if it is absent."""
    return {"messages": [{"content": "", **message} for message in messages], "message_ids": [], **more}


def conversations(*rows: dict[str, Any]) -> pl.DataFrame:
    """Return a conversations frame of `conversation(…)` and `chat(…)` rows, with `row` 0, 1, … and ids c0, c1, …

    Rows may give other values. Message fields and optional columns are present if any row has them.
    """
    numbered = [
        {"row": n, "id": f"c{n}", "tree_id": f"t{n}", "file": 0, "source": "chat.jsonl", "line": n + 1, **row}
        for n, row in enumerate(rows)
    ]
    fields = {name for row in rows for message in row["messages"] for name in message}
    schema = {**CONVERSATIONS, **OPTIONAL_COLUMNS, "messages": turns_type(fields)}
    return conform(pl.DataFrame(numbered, schema_overrides=schema, infer_schema_length=None), CONVERSATIONS)


def trees_of_conversations(count: int, trees: int | None = None) -> pl.DataFrame:
    """Return a conversations frame of `count` different question-answer pairs, dealt in turn to `trees` trees (default: one each)."""
    rows = [conversation(f"q{n}", f"a{n}", tree_id=f"t{n % (trees or count)}") for n in range(count)]
    return conversations(*rows)
