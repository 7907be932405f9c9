"""OpenAssistant's nested trees: `{message_tree_id, tree_state, prompt: {…, replies: [{…}]}}` on each line.

Arrow has no recursive types, so typed msgspec structs decode the trees one by one (60 MB/s). They are flattened to the
rows of `oasst.SCHEMA` and are handled as flat messages from there on, with the same result.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.sources import oasst
from dataprep.sources.coercion import CoercionError, has_value
from dataprep.sources.fields import UNKNOWN_FIELD, unknown_detail
from dataprep.sources.jsonlines import TOO_DEEP, Block, decode_record, iter_lines
from dataprep.sources.records import coerce_record, rename_keys, to_batch
from dataprep.sources.rows import Fault, FieldCounts, ParsedRows, reject_incomplete, rejects
from dataprep.sources.schema import Column, Kind, Parsing, Record, RecordSchema

# The columns of a tree; Arrow has no type for `prompt`.
SCHEMA = RecordSchema((Column("message_tree_id"), Column("tree_state"), Column("prompt", kind=Kind.LINE)))

_KNOWN = oasst.SCHEMA.by_name | {column.name: column for column in SCHEMA.columns[:2]}
PARENT_WITHOUT_ID = "(a message without an id)"  # the `parent_id` of replies to such a message


_ABSENT = msgspec.Raw()


class Message(msgspec.Struct, forbid_unknown_fields=True):
    """One message with its replies. The keys of `oasst.METADATA` are known and not used; others need the lenient decoder."""

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
    message_tree_id: str | None = None  # those of the tree are used
    tree_state: str | None = None
    user_id: msgspec.Raw = _ABSENT
    created_date: msgspec.Raw = _ABSENT
    synthetic: msgspec.Raw = _ABSENT
    model_name: msgspec.Raw = _ABSENT
    detoxify: msgspec.Raw = _ABSENT
    emojis: msgspec.Raw = _ABSENT
    events: msgspec.Raw = _ABSENT


class Tree(msgspec.Struct, forbid_unknown_fields=True):
    """One line of an export."""

    prompt: Message
    message_tree_id: str | None = None
    tree_state: str | None = None
    origin: msgspec.Raw = _ABSENT


_COLUMNS = [column.name for column in oasst.SCHEMA.columns if column.name not in ("message_tree_id", "tree_state")]
_METADATA = tuple(sorted(oasst.METADATA))
_metadata_of = attrgetter(*_METADATA)
_NOTHING = frozenset([b"", b"null", b"NaN", b'""', b"[]", b"{}"])  # JSON that says nothing
_decoder = msgspec.json.Decoder(Tree)


def is_tree(record: Record) -> bool:
    """Whether `record` is a nested OASST tree."""
    prompt = record.get("prompt")
    return isinstance(prompt, dict) and ("message_id" in prompt or "replies" in prompt)


def parse(block: Block, parsing: Parsing) -> list[ParsedRows]:
    """Parse the trees in `block` into rows of `oasst.SCHEMA`, in reply order; each row has the line of its tree."""
    messages: list[dict[str, Any]] = []
    message_lines: list[int] = []
    faults: list[Fault] = []
    counts = FieldCounts()
    for line, data in iter_lines(block):
        tree = _decode_tree(data, parsing, counts)
        if isinstance(tree, Tree):
            rows = _flatten(tree, counts)
            messages += rows
            message_lines += [line] * len(rows)
        else:
            faults.append((line, *tree))
    parsed = ParsedRows(_to_batch(messages, counts), np.array(message_lines, np.int64), rejects(), counts)
    parsed = reject_incomplete(parsed, oasst.SCHEMA)
    bad_messages = parsed.rejects.with_columns(pl.lit("message").alias("kind"))
    return [parsed._replace(rejects=pl.concat([rejects(faults), bad_messages]))]


def _decode_tree(data: bytes, parsing: Parsing, counts: FieldCounts) -> Tree | tuple[str, str]:
    """Return the tree in `data`, or the rule and the detail of what is wrong with it.

    Values of the wrong type in optional fields, and keys that are not used, are counted in `counts`.
    """
    try:
        if not parsing.renamed:
            return _decoder.decode(data)
    except RecursionError:
        return "too_deep", TOO_DEEP
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # a lone surrogate, a type that can be coerced, or an unknown key: decode it again, leniently
    record, rule, detail = decode_record(data)
    if record is None:
        return rule, detail
    lenient_counts = FieldCounts()
    try:
        record = dict(rename_keys(record, parsing.renamed, lenient_counts))
        tree = msgspec.convert(_coerce_tree(record, SCHEMA, lenient_counts, parsing.drop_unknown), Tree)
    except msgspec.ValidationError as fault:
        return "wrong_schema", str(fault)
    except CoercionError as fault:
        return fault.rule, str(fault)
    except RecursionError:
        return "too_deep", TOO_DEEP
    counts.add(lenient_counts)
    return tree


def _coerce_tree(value: Any, schema: RecordSchema, counts: FieldCounts, drop_unknown: bool) -> Any:
    """Coerce the known keys of a tree or message, and of its replies; optional values that do not fit become null."""
    if not isinstance(value, dict):
        return value
    row = coerce_record({name: part for name, part in value.items() if name in _KNOWN}, _KNOWN, counts)
    for name, part in value.items():
        if name == "prompt" and schema is SCHEMA:
            row["prompt"] = _coerce_tree(part, oasst.SCHEMA, counts, drop_unknown)
        elif name == "replies" and isinstance(part, list):
            row["replies"] = [_coerce_tree(reply, oasst.SCHEMA, counts, drop_unknown) for reply in part]
        elif name not in _KNOWN and has_value(part):
            if drop_unknown and name not in oasst.METADATA:
                raise CoercionError(unknown_detail(name), UNKNOWN_FIELD)
            counts.unused[name] += 1
    return row


def _flatten(tree: Tree, counts: FieldCounts) -> list[dict[str, Any]]:
    """Return the messages of a tree as rows, each before its replies and those in order; iterative, so of any depth.

    A message without an id is rejected later, as in a flat file; its replies then are orphans and never roots.
    """
    tree_id = tree.message_tree_id or tree.prompt.message_id
    unused = counts.unused
    if bytes(tree.origin) not in _NOTHING:
        unused["origin"] += 1
    rows = []
    stack: list[tuple[Message, str | None]] = [(tree.prompt, None)]
    while stack:
        message, parent_id = stack.pop()
        row = {name: getattr(message, name) for name in _COLUMNS}
        row["message_tree_id"], row["tree_state"] = tree_id, tree.tree_state
        row["parent_id"] = message.parent_id or parent_id
        rows.append(row)
        for name, raw in zip(_METADATA, _metadata_of(message), strict=True):
            if raw is not _ABSENT and bytes(raw) not in _NOTHING:
                unused[name] += 1
        stack += [(reply, message.message_id or PARENT_WITHOUT_ID) for reply in reversed(message.replies or [])]
    return rows


def _to_batch(rows: list[dict[str, Any]], counts: FieldCounts) -> pa.RecordBatch:
    try:
        return to_batch(rows, oasst.SCHEMA)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        # labels or numbers of other types than known exports have: values that do not fit become null
        return to_batch([coerce_record(row, oasst.SCHEMA.by_name, counts) for row in rows], oasst.SCHEMA)
