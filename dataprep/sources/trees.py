"""OpenAssistant's nested trees: `{message_tree_id, tree_state, prompt: {…, replies: [{…}]}}` on each line.

Arrow has no recursive types, so trees are decoded one by one, by typed msgspec structs (60 MB/s), and flattened to
the rows of `oasst.SCHEMA`: from there on they are flat messages, and give the same as those would.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.sources import oasst
from dataprep.sources.jsonlines import Block, decoded, lines
from dataprep.sources.rows import Rows, Unfit, Untold, coerced, complete, readable, rejects

# The columns of a tree; `prompt` is of no type that Arrow could have.
SCHEMA = pa.schema([("message_tree_id", pa.string()), ("tree_state", pa.string()), ("prompt", pa.null())])

NAMELESS = "(a message without an id)"  # what a reply to one has for a parent


class Message(msgspec.Struct):
    """One message with its replies; whatever else it has is not read."""

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


def recognise(record: Mapping[str, Any]) -> bool:
    """Whether `record` is a nested OASST tree."""
    prompt = record.get("prompt")
    return isinstance(prompt, dict) and ("message_id" in prompt or "replies" in prompt)


def parse(block: Block, schema: pa.Schema, read_as: pa.Schema) -> Rows:
    """All messages of the trees in `block`, as rows of `oasst.SCHEMA` in reply order; each has the line of its tree.

    The schemas are those of a tree, which have nothing to say here.
    """
    found: list[dict[str, Any]] = []
    number: list[int] = []
    bad: list[tuple[int, str, str]] = []
    untold = Untold()
    for line, data in lines(block):
        tree = _tree(data, untold)
        if isinstance(tree, Tree):
            messages = _flat(tree)
            found += messages
            number += [line] * len(messages)
        else:
            bad.append((line, *tree))
    whole = complete(Rows(_batch(found, untold), np.array(number, np.int64), rejects(), untold), oasst.SCHEMA)
    lost = whole.rejects.with_columns(pl.lit("message").alias("kind"))
    return whole._replace(rejects=pl.concat([rejects(bad), lost]))


def _tree(data: bytes, untold: Untold) -> Tree | tuple[str, str]:
    """The tree in `data`, or the rule and the detail of what is wrong with it; `untold` as `coerced` has it."""
    try:
        return _decoder.decode(data)
    except RecursionError:
        return "too_deep", "is nested too deeply to be read"
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # a lone surrogate, or a type that can be put right: once more, leniently
    record, rule, detail = decoded(data)
    if record is None:
        return rule, detail
    try:
        return msgspec.convert(_lenient(record, untold), Tree)
    except (msgspec.ValidationError, Unfit) as fault:
        return "wrong_schema", str(fault)
    except RecursionError:
        return "too_deep", "is nested too deeply to be read"


def _lenient(value: Any, untold: Untold) -> Any:
    """`value` with the ids and texts of its messages as text, and what is optional left out where it does not fit."""
    if not isinstance(value, dict):
        return value
    known = {field.name: field for field in (*oasst.SCHEMA, *SCHEMA) if field.name in value}
    row = coerced(value, pa.schema([field for name, field in known.items() if name != "prompt"]), untold)
    if "prompt" in value:
        row["prompt"] = _lenient(value["prompt"], untold)
    if isinstance(value.get("replies"), list):
        row["replies"] = [_lenient(reply, untold) for reply in value["replies"]]
    return row


def _flat(tree: Tree) -> list[dict[str, Any]]:
    """The messages of a tree as rows, each before its replies and those in their order; no recursion, at any depth.

    A message without an id is refused, as in a flat file, and its replies are orphans then: never roots.
    """
    tree_id = tree.message_tree_id or tree.prompt.message_id
    rows = []
    waiting: list[tuple[Message, str | None]] = [(tree.prompt, None)]
    while waiting:
        message, above = waiting.pop()
        row = {name: getattr(message, name) for name in _COLUMNS}
        row["message_tree_id"], row["tree_state"] = tree_id, tree.tree_state
        row["parent_id"] = message.parent_id or above
        rows.append(row)
        waiting += [(reply, message.message_id or NAMELESS) for reply in reversed(message.replies or [])]
    return rows


def _batch(rows: list[dict[str, Any]], untold: Untold) -> pa.RecordBatch:
    schema = readable(oasst.SCHEMA)
    try:
        return pa.RecordBatch.from_pylist(rows, schema)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # labels or numbers of another kind than every export has: what does not fit is left out
        return pa.RecordBatch.from_pylist([coerced(row, oasst.SCHEMA, untold) for row in rows], schema)
