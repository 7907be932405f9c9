"""Conversations from turns: what all formats without trees have in common."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from dataprep.common.arrow import numbers, numpied, replaced, strings
from dataprep.sources.rows import Rows
from dataprep.tables import ASSISTANT, REPAIRS, SYSTEM, USER

Offsets = npt.NDArray[np.int32]

# What a row of a flat format may say about itself beside its turns; our own exports do.
FACTS = [
    pa.field("id", pa.string()),
    pa.field("tree_id", pa.string()),
    pa.field("source", pa.string()),
    pa.field("lang", pa.string()),
    pa.field("message_ids", pa.list_(pa.string())),
]

# The words that formats have for the three roles; any other is kept as it was found, for the rules to judge.
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
    """Turns of many conversations, one after another: conversation i has those from offsets[i] to offsets[i + 1]."""

    roles: pa.StringArray
    contents: pa.StringArray
    offsets: Offsets


def standard_roles(found: pa.StringArray) -> pa.StringArray:
    """Roles in our words, whatever the format calls them."""
    coded = found.dictionary_encode()
    words = [_ROLES.get(word.lower(), word) for word in coded.dictionary.to_pylist()]
    return strings(words).take(coded.indices)


def conversations(rows: Rows, turns: Turns) -> pl.DataFrame:
    """One conversation for each of `rows`, with the facts that its row has; ids may repeat until `unique_ids`.

    Columns: `line`, those of `FACTS` (id and tree_id never null), `messages`, `repairs`, `own_id` (the row had one).
    """
    facts = {field.name: rows.batch.column(field.name) for field in FACTS}
    for name in ("id", "tree_id"):
        facts[name] = _without_empty(facts[name])
    own_id = facts["id"].is_valid()
    made = strings(digests(turns)) if facts["id"].null_count else facts["id"]
    facts["id"] = pc.coalesce(facts["id"], made)
    facts["tree_id"] = pc.coalesce(facts["tree_id"], facts["id"])
    turn = pa.StructArray.from_arrays([turns.roles, turns.contents], ["role", "content"])
    messages = pa.ListArray.from_arrays(numbers(turns.offsets), turn)
    table = pa.table({"line": numbers(rows.line), **facts, "messages": messages, "own_id": own_id})
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col("message_ids").fill_null([]), pl.lit([], dtype=REPAIRS).alias("repairs"))


def _without_empty(texts: pa.StringArray) -> pa.StringArray:
    """`texts` with null for empty ones: an empty id is none."""
    found = pl.Series("text", texts, dtype=pl.String).to_frame().select(pl.when(pl.col("text") != "").then("text"))
    return strings(found.to_series())


def digests(turns: Turns) -> list[str]:
    """Sixteen hex digits over roles and contents of each conversation: the same in every format.

    The bytes hashed are the contents one after another, then (hash of the role, length of the content) of each turn.
    A loop over conversations, since no column operation hashes slices: 1 µs each, and the contents are not copied
    but once.
    """
    words = turns.roles.dictionary_encode()
    codes = np.array([xxhash.xxh3_64_intdigest(word.encode()) for word in words.dictionary.to_pylist()], np.uint64)
    ends, text = string_buffers(turns.contents)
    shape = np.empty((len(turns.contents), 2), np.dtype("<u8"))
    shape[:, 0] = codes[numpied(words.indices)] if len(codes) else 0
    shape[:, 1] = np.diff(ends)
    contents, shapes = memoryview(text.data), memoryview(shape.tobytes())
    places, cuts = turns.offsets.tolist(), ends[turns.offsets].tolist()
    digest = xxhash.xxh3_128_hexdigest
    return [
        digest(b"".join((contents[cuts[i] : cuts[i + 1]], shapes[16 * places[i] : 16 * places[i + 1]])))[:16]
        for i in range(len(places) - 1)
    ]


def string_buffers(texts: pa.StringArray) -> tuple[Offsets, npt.NDArray[np.uint8]]:
    """Where each text begins and ends (n + 1 offsets) in the bytes of them all; no copy."""
    _, offsets, data = texts.buffers()
    if offsets is None or len(texts) == 0:
        return np.zeros(1, np.int32), np.zeros(0, np.uint8)
    places = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return places, np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8)


def unique_ids(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with ids that do not repeat: the second, third … of an id are called `id~2`, `id~3` …

    They are counted in the order of their contents, so which is which does not depend on the order of the files.
    A row that had an id of its own carries the repair `repeated_id`. Drops the column `own_id`.
    """
    while len(places := frame["id"].is_duplicated().arg_true()):
        again = _renamed(frame[places].with_columns(place=places))
        changed = ["id", "tree_id", *(["repairs"] if again["own_id"].any() else [])]  # lists are dear to gather
        frame = frame.with_columns(replaced(frame[name], again["place"].to_numpy(), again[name]) for name in changed)
    return frame.drop("own_id")


def _renamed(repeated: pl.DataFrame) -> pl.DataFrame:
    """Of rows whose ids repeat, those that need another one, with it; `place` tells them apart."""
    was_own = pl.struct(pl.lit("repeated_id").alias("rule"), pl.format("was '{}'", "id").alias("detail"))
    own_tree = pl.col("tree_id") != pl.col("id")
    return (
        repeated.with_columns(pl.Series("digest", _digests_of(repeated)))
        .sort("id", "digest", "place")
        .with_columns(pl.int_range(1, pl.len() + 1).over("id").alias("nth"))
        .filter(pl.col("nth") > 1)
        .with_columns(pl.format("{}~{}", "id", "nth").alias("new_id"))
        .with_columns(
            pl.when("own_id").then(pl.col("repairs").list.concat(pl.concat_list(was_own))).otherwise("repairs"),
            pl.when(own_tree).then("tree_id").otherwise("new_id").alias("tree_id"),
            pl.col("new_id").alias("id"),
        )
    )


def _digests_of(frame: pl.DataFrame) -> list[str]:
    kind = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    found: list[str] = []
    for part in frame["messages"].to_frame().iter_slices(4096):  # 32-bit offsets end at 2 GiB
        column = part.to_series().to_arrow().cast(kind)
        turn = column.values
        turns = Turns(pc.struct_field(turn, "role"), pc.struct_field(turn, "content"), numpied(column.offsets))
        found += digests(turns)
    return found
