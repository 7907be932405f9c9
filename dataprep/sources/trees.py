"""OpenAssistant's nested trees: `{message_tree_id, tree_state, prompt: {…, replies: [{…}]}}` on each line.

Arrow has no recursive types, so typed msgspec structs decode the trees one by one (60 MB/s). They are flattened to the
rows of `oasst.SCHEMA` and are handled as flat messages from there on, with the same result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.sources import oasst
from dataprep.sources.coercion import CoercionError
from dataprep.sources.jsonlines import TOO_DEEP, Block, decode_record, iter_lines
from dataprep.sources.rows import (
    ParsedRows,
    UncoercibleCounts,
    all_nullable,
    coerce_record,
    reject_incomplete,
    rejects,
)

# The columns of a tree; Arrow has no type for `prompt`.
SCHEMA = pa.schema([("message_tree_id", pa.string()), ("tree_state", pa.string()), ("prompt", pa.null())])

PARENT_WITHOUT_ID = "(a message without an id)"  # the `parent_id` of replies to such a message


class Message(msgspec.Struct):
    """One message with its replies; other keys are not read."""

    message_id: str | None = None
    parent_id: str | None = None
    text: str | None = None
    role: str | None = None
    lang: str | None = None
    rank: int | None = None
    deleted: bool | None = None
    review_result: bool | None = None
    review_count: int | None = None
    labels: dict[str, Any] | None = None
    replies: list[Message] | None = None


class Tree(msgspec.Struct):
    """One line of an export."""

    prompt: Message
    message_tree_id: str | None = None
    tree_state: str | None = None


_COLUMNS = [name for name in Message.__struct_fields__ if name != "replies"]
_decoder = msgspec.json.Decoder(Tree)


def is_tree(record: Mapping[str, Any]) -> bool:
    """Whether `record` is a nested OASST tree."""
    prompt = record.get("prompt")
    return isinstance(prompt, dict) and ("message_id" in prompt or "replies" in prompt)


def parse(block: Block, schema: pa.Schema, read_as: pa.Schema) -> ParsedRows:
    """Parse the trees in `block` into rows of `oasst.SCHEMA`, in reply order; each row has the line of its tree.

    `schema` and `read_as` are not used: a tree has no Arrow type.
    """
    messages: list[dict[str, Any]] = []
    message_lines: list[int] = []
    faults: list[tuple[int, str, str]] = []
    uncoercible = UncoercibleCounts()
    for line, data in iter_lines(block):
        tree = _decode_tree(data, uncoercible)
        if isinstance(tree, Tree):
            rows = _flatten(tree)
            messages += rows
            message_lines += [line] * len(rows)
        else:
            faults.append((line, *tree))
    batch = _to_batch(messages, uncoercible)
    parsed = ParsedRows(batch, np.array(message_lines, np.int64), rejects(), uncoercible)
    parsed = reject_incomplete(parsed, oasst.SCHEMA)
    bad_messages = parsed.rejects.with_columns(pl.lit("message").alias("kind"))
    return parsed._replace(rejects=pl.concat([rejects(faults), bad_messages]))


def _decode_tree(data: bytes, uncoercible: UncoercibleCounts) -> Tree | tuple[str, str]:
    """Return the tree in `data`, or the rule and the detail of what is wrong with it.

    Values of the wrong type in optional fields are counted in `uncoercible`.
    """
    try:
        return _decoder.decode(data)
    except RecursionError:
        return "too_deep", TOO_DEEP
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # a lone surrogate, or a type that can be coerced: decode it again, leniently
    record, rule, detail = decode_record(data)
    if record is None:
        return rule, detail
    try:
        return msgspec.convert(_coerce_tree(record, uncoercible), Tree)
    except (msgspec.ValidationError, CoercionError) as fault:
        return "wrong_schema", str(fault)
    except RecursionError:
        return "too_deep", TOO_DEEP


def _coerce_tree(value: Any, uncoercible: UncoercibleCounts) -> Any:
    """Coerce the known keys of a tree or message, and of its replies; optional values that do not fit become null."""
    if not isinstance(value, dict):
        return value
    known = {field.name: field for field in (*oasst.SCHEMA, *SCHEMA) if field.name in value}
    row = coerce_record(value, pa.schema([field for name, field in known.items() if name != "prompt"]), uncoercible)
    if "prompt" in value:
        row["prompt"] = _coerce_tree(value["prompt"], uncoercible)
    if isinstance(value.get("replies"), list):
        row["replies"] = [_coerce_tree(reply, uncoercible) for reply in value["replies"]]
    return row


def _flatten(tree: Tree) -> list[dict[str, Any]]:
    """Return the messages of a tree as rows, each before its replies and those in order; iterative, so of any depth.

    A message without an id is rejected later, as in a flat file; its replies then are orphans and never roots.
    """
    tree_id = tree.message_tree_id or tree.prompt.message_id
    rows = []
    stack: list[tuple[Message, str | None]] = [(tree.prompt, None)]
    while stack:
        message, parent_id = stack.pop()
        row = {name: getattr(message, name) for name in _COLUMNS}
        row["message_tree_id"], row["tree_state"] = tree_id, tree.tree_state
        row["parent_id"] = message.parent_id or parent_id
        rows.append(row)
        stack += [(reply, message.message_id or PARENT_WITHOUT_ID) for reply in reversed(message.replies or [])]
    return rows


def _to_batch(rows: list[dict[str, Any]], uncoercible: UncoercibleCounts) -> pa.RecordBatch:
    schema = all_nullable(oasst.SCHEMA)
    try:
        return pa.RecordBatch.from_pylist(rows, schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # labels or numbers of other types than known exports have: values that do not fit become null
        return pa.RecordBatch.from_pylist([coerce_record(row, oasst.SCHEMA, uncoercible) for row in rows], schema)
