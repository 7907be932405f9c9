"""Build conversations from turns: the code that all flat formats share."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from dataprep.common.arrow import numbers, replace_at, strings, to_numpy
from dataprep.sources.rows import ParsedRows
from dataprep.tables import ASSISTANT, REPAIRS, SYSTEM, USER

Offsets = npt.NDArray[np.int32]

# What a record of a flat format may state about itself beside its turns; exports of our builds state all of it.
RECORD_FIELDS = [
    pa.field("id", pa.string()),
    pa.field("tree_id", pa.string()),
    pa.field("source", pa.string()),
    pa.field("lang", pa.string()),
    pa.field("message_ids", pa.list_(pa.string())),
]

# The names that formats give to the roles. Any other role is kept as it is, and the rules drop the conversation.
_ROLES = {
    "human": USER,
    "prompter": USER,
    "user": USER,
    "gpt": ASSISTANT,
    "chatgpt": ASSISTANT,
    "bot": ASSISTANT,
    "assistant": ASSISTANT,
    "system": SYSTEM,
    "developer": SYSTEM,
}


class Turns(NamedTuple):
    """Turns of many conversations in one array: conversation i has those from offsets[i] to offsets[i + 1]."""

    roles: pa.StringArray
    contents: pa.StringArray
    offsets: Offsets


def standard_roles(roles: pa.StringArray) -> pa.StringArray:
    """Replace the role names of a format by the standard ones."""
    coded = roles.dictionary_encode()
    names = [_ROLES.get(name.lower(), name) for name in coded.dictionary.to_pylist()]
    return strings(names).take(coded.indices)


def to_conversations(rows: ParsedRows, turns: Turns) -> pl.DataFrame:
    """Make one conversation from each of `rows`; ids may repeat until `make_ids_unique`.

    Columns: `line`, those of `RECORD_FIELDS` (`id` and `tree_id` are never null), `messages`, `repairs`, and `own_id`
    (whether the record states its id; otherwise the id is a digest of the turns).
    """
    fields = {field.name: rows.batch.column(field.name) for field in RECORD_FIELDS}
    for name in ("id", "tree_id"):
        fields[name] = _empty_to_null(fields[name])
    own_id = fields["id"].is_valid()
    derived_id = strings(digests(turns)) if fields["id"].null_count else fields["id"]
    fields["id"] = pc.coalesce(fields["id"], derived_id)
    fields["tree_id"] = pc.coalesce(fields["tree_id"], fields["id"])
    turn = pa.StructArray.from_arrays([turns.roles, turns.contents], ["role", "content"])
    messages = pa.ListArray.from_arrays(numbers(turns.offsets), turn)
    table = pa.table({"line": numbers(rows.line), **fields, "messages": messages, "own_id": own_id})
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col("message_ids").fill_null([]), pl.lit([], dtype=REPAIRS).alias("repairs"))


def _empty_to_null(texts: pa.StringArray) -> pa.StringArray:
    """Replace empty texts by null: an empty id is not an id."""
    column = pl.Series("text", texts, dtype=pl.String).to_frame().select(pl.when(pl.col("text") != "").then("text"))
    return strings(column.to_series())


def digests(turns: Turns) -> list[str]:
    """Return 16 hex digits over the roles and contents of each conversation: the same in every format.

    The hashed bytes are the contents one after another, then (hash of the role, length of the content) of each turn.
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
    return [
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
    return frame.drop("own_id")


def _renamed(repeated: pl.DataFrame) -> pl.DataFrame:
    """Of rows with repeated ids, return those that need a new id, with it; `position` identifies them."""
    repair = pl.struct(pl.lit("repeated_id").alias("rule"), pl.format("was '{}'", "id").alias("detail"))
    own_tree = pl.col("tree_id") != pl.col("id")
    return (
        repeated.with_columns(pl.Series("digest", _frame_digests(repeated)))
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
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    result: list[str] = []
    for part in frame["messages"].to_frame().iter_slices(4096):  # 32-bit offsets end at 2 GiB
        column = part.to_series().to_arrow().cast(kind)
        turn = column.values
        turns = Turns(pc.struct_field(turn, "role"), pc.struct_field(turn, "content"), to_numpy(column.offsets))
        result += digests(turns)
    return result
