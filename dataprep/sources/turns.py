"""Build conversations from turns: the code that all flat formats share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from dataprep.common.arrow import numbers, replace_at, strings, to_numpy
from dataprep.sources.rows import ParsedRows
from dataprep.sources.schema import Column, Kind
from dataprep.tables import ASSISTANT, REPAIRS, SYSTEM, TOOL, USER

Offsets = npt.NDArray[np.int32]

# What a record of a flat format may state beside its turns.
RECORD_COLUMNS = (
    Column("id"),
    Column("tree_id"),
    Column("lang"),
    Column("message_ids", pa.list_(pa.string())),
    Column("split", optional=True),
)
# What belongs to the conversation and stands beside its turns; the second name of each is a synonym.
CONTEXT_COLUMNS = (
    Column("system", content=True, optional=True),
    Column("system_prompt", content=True, optional=True),
    Column("tools", content=True, optional=True, kind=Kind.JSON),
    Column("functions", content=True, optional=True, kind=Kind.JSON),
)

# What a turn may have beside role and content, in the order of a build's messages. A column exists only if it has a value.
EXTRA_FIELDS: Mapping[str, pa.DataType] = {
    "reasoning_content": pa.string(),
    "tool_calls": pa.string(),
    "name": pa.string(),
    "tool_call_id": pa.string(),
    "trained": pa.bool_(),
}

# The names that formats give to the roles. Any other role is kept as it is, and the rules drop the conversation.
ROLE_NAMES = {
    "human": USER,
    "prompter": USER,
    "user": USER,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bot": ASSISTANT,
    "assistant": ASSISTANT,
    "system": SYSTEM,
    "developer": SYSTEM,
    "tool": TOOL,
    "function": TOOL,
    "observation": TOOL,
    "ipython": TOOL,
}


class Turns(NamedTuple):
    """Turns of many conversations in one array: conversation i has those from offsets[i] to offsets[i + 1].

    `extras` has those of `EXTRA_FIELDS` that have a value, in that order.
    """

    roles: pa.StringArray
    contents: pa.StringArray
    offsets: Offsets
    extras: Mapping[str, pa.Array] = {}


def standard_roles(roles: pa.StringArray, renamed: Mapping[str, str] | None = None) -> pa.StringArray:
    """Replace the role names of a format by the standard ones; `renamed` has further names."""
    coded = roles.dictionary_encode()
    names = ROLE_NAMES | {name.lower(): role for name, role in (renamed or {}).items()}
    return strings([names.get(name.lower(), name) for name in coded.dictionary.to_pylist()]).take(coded.indices)


def prepend_system(turns: Turns, systems: pa.StringArray) -> Turns:
    """Put a system turn in front of each conversation whose entry in `systems` is not null."""
    has_system = to_numpy(systems.is_valid())
    if not has_system.any():
        return turns
    count, added = len(turns.roles), int(has_system.sum())
    offsets = np.concatenate([[0], np.cumsum(np.diff(turns.offsets) + has_system)]).astype(np.int32)
    is_system = np.zeros(count + added, np.bool_)
    is_system[offsets[:-1][has_system]] = True
    order = np.empty(count + added, np.int64)
    order[is_system] = count + np.arange(added)
    order[~is_system] = np.arange(count)
    indices = numbers(order)
    return Turns(
        pa.concat_arrays([turns.roles, strings([SYSTEM] * added)]).take(indices),
        pa.concat_arrays([turns.contents, systems.drop_null()]).take(indices),
        offsets,
        {
            name: pa.concat_arrays([column, pa.nulls(added, column.type)]).take(indices)
            for name, column in turns.extras.items()
        },
    )


def to_conversations(rows: ParsedRows, turns: Turns, tools: pa.StringArray | None = None) -> pl.DataFrame:
    """Make one conversation from each of `rows`; ids may repeat until `make_ids_unique`.

    Columns: `line`, `id` and `tree_id` (never null), `lang`, `message_ids`, `messages`, `repairs`, `own_id` (whether the
    record states its id; otherwise the id is a digest of the conversation), and if they have values `tools`, `split`.
    """
    batch = rows.batch
    fields = {column.name: batch.column(column.name) for column in RECORD_COLUMNS if column.name in batch.schema.names}
    for name in ("id", "tree_id"):
        fields[name] = _empty_to_null(fields[name])
    own_id = fields["id"].is_valid()
    derived_id = strings(digests(turns, tools)) if fields["id"].null_count else fields["id"]
    fields["id"] = pc.coalesce(fields["id"], derived_id)
    fields["tree_id"] = pc.coalesce(fields["tree_id"], fields["id"])
    if tools is not None and tools.null_count < len(tools):
        fields["tools"] = tools
    turn = pa.StructArray.from_arrays(
        [turns.roles, turns.contents, *turns.extras.values()], ["role", "content", *turns.extras]
    )
    messages = pa.ListArray.from_arrays(numbers(turns.offsets), turn)
    table = pa.table({"line": numbers(rows.line), **fields, "messages": messages, "own_id": own_id})
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col("message_ids").fill_null([]), pl.lit([], dtype=REPAIRS).alias("repairs"))


def _empty_to_null(texts: pa.StringArray) -> pa.StringArray:
    """Replace empty texts by null: an empty id is not an id."""
    if texts.null_count == len(texts):
        return texts
    column = pl.Series("text", texts, dtype=pl.String).to_frame().select(pl.when(pl.col("text") != "").then("text"))
    return strings(column.to_series())


def digests(turns: Turns, tools: pa.StringArray | None = None) -> list[str]:
    """Return 16 hex digits over each conversation: the same in every format.

    The hashed bytes are the contents one after another, then (hash of the role, length of the content) of each turn.
    A conversation with tools or extra fields has these hashed after the digest of the rest.
    This loops over conversations, because no column operation hashes slices: 1 µs each, with one copy of the contents.
    """
    names = turns.roles.dictionary_encode()
    role_hashes = np.array(
        [xxhash.xxh3_64_intdigest(name.encode()) for name in names.dictionary.to_pylist()], np.uint64
    )
    ends, text = string_buffers(turns.contents)
    shape = np.empty((len(turns.contents), 2), np.dtype("<u8"))
    shape[:, 0] = role_hashes[to_numpy(names.indices)] if len(role_hashes) else 0
    shape[:, 1] = np.diff(ends)
    contents, shapes = memoryview(text.data), memoryview(shape.tobytes())
    first_turn, first_byte = turns.offsets.tolist(), ends[turns.offsets].tolist()
    digest = xxhash.xxh3_128_hexdigest
    plain = [
        digest(
            b"".join(
                (
                    contents[first_byte[i] : first_byte[i + 1]],
                    shapes[16 * first_turn[i] : 16 * first_turn[i + 1]],
                )
            )
        )[:16]
        for i in range(len(first_turn) - 1)
    ]
    return _with_extras(plain, turns, tools) if turns.extras or tools is not None else plain


def _with_extras(plain: list[str], turns: Turns, tools: pa.StringArray | None) -> list[str]:
    """Extend the digests of the conversations that have tools or extra fields."""
    fields = {name: pl.Series(column).cast(pl.String).to_list() for name, column in turns.extras.items()}
    tool_texts = tools.to_pylist() if tools is not None else [None] * len(plain)
    bounds = turns.offsets.tolist()
    result = []
    for i, digest in enumerate(plain):
        values = [
            f"{turn}\x1f{name}\x1f{value}"
            for name, column in fields.items()
            for turn, value in enumerate(column[bounds[i] : bounds[i + 1]])
            if value is not None
        ]
        if tool_texts[i] is not None:
            values.append(f"tools\x1f{tool_texts[i]}")
        text = "\x1e".join([digest, *values])
        result.append(xxhash.xxh3_128_hexdigest(text.encode())[:16] if values else digest)
    return result


def string_buffers(texts: pa.StringArray) -> tuple[Offsets, npt.NDArray[np.uint8]]:
    """Return the n + 1 offsets of n texts and the bytes of all of them, without a copy."""
    _, offsets, data = texts.buffers()
    if offsets is None or len(texts) == 0:
        return np.zeros(1, np.int32), np.zeros(0, np.uint8)
    bounds = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return bounds, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)


def make_ids_unique(frame: pl.DataFrame) -> pl.DataFrame:
    """Rename repeated ids: the second, third … conversation with an id gets `id~2`, `id~3` …

    They are counted in the order of their contents, so the result does not depend on the order of the files.
    A conversation whose record states its id gets the repair `repeated_id`. Drops the column `own_id`.
    """
    while len(positions := frame["id"].is_duplicated().arg_true()):
        renamed = _renamed(frame[positions].with_columns(position=positions))
        # `repairs` only if needed: gathering lists is slow
        changed = ["id", "tree_id", *(["repairs"] if renamed["own_id"].any() else [])]
        frame = frame.with_columns(
            replace_at(frame[name], renamed["position"].to_numpy(), renamed[name]) for name in changed
        )
        if not frame["own_id"].any():
            break  # only an id that a record states can be equal to a new one
    return frame.drop("own_id")


def _renamed(repeated: pl.DataFrame) -> pl.DataFrame:
    """Of rows with repeated ids, return those that need a new id, with it; `position` identifies them."""
    repair = pl.struct(pl.lit("repeated_id").alias("rule"), pl.format("was '{}'", "id").alias("detail"))
    own_tree = pl.col("tree_id") != pl.col("id")
    digests = _frame_digests(repeated) if repeated["own_id"].any() else repeated["id"]  # which are the digests then
    return (
        repeated.with_columns(pl.Series("digest", digests))
        .sort("id", "digest", "position")
        .with_columns(pl.int_range(1, pl.len() + 1).over("id").alias("nth"))
        .filter(pl.col("nth") > 1)
        .with_columns(pl.format("{}~{}", "id", "nth").alias("new_id"))
        .with_columns(
            pl.when("own_id").then(pl.col("repairs").list.concat(pl.concat_list(repair))).otherwise("repairs"),
            pl.when(own_tree).then("tree_id").otherwise("new_id").alias("tree_id"),
            pl.col("new_id").alias("id"),
        )
    )


def _frame_digests(frame: pl.DataFrame) -> list[str]:
    dtype = frame.schema["messages"]
    assert isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct)
    extras = {name: kind for name, kind in EXTRA_FIELDS.items() if name in {field.name for field in dtype.inner.fields}}
    turn_type = pa.struct([("role", pa.string()), ("content", pa.string()), *extras.items()])
    result: list[str] = []
    for part in frame.iter_slices(4096):  # 32-bit offsets end at 2 GiB
        # the turns of this part only: the Arrow form of a slice of lists has the turns of the whole frame
        turns = part["messages"].explode(empty_as_null=False, keep_nulls=False).to_arrow().cast(turn_type)
        offsets = np.cumsum([0, *part["messages"].list.len().fill_null(0)], dtype=np.int32)
        fields = {name: pc.struct_field(turns, name) for name in ("role", "content", *extras)}
        roles, contents = fields.pop("role"), fields.pop("content")
        tools = strings(part["tools"]) if "tools" in part.columns else None
        result += digests(Turns(roles, contents, offsets, fields), tools)
    return result
