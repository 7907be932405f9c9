"""Renders conversations that have a plan as columns: the texts of a whole batch come from one gather.

Each content exists in up to four versions (unchanged, stripped on the left, on the right, on both sides), which share
their bytes; the constants of all plans follow. NumPy computes an index array that puts the pieces of all conversations
in order, one gather joins them, and the joined bytes, cut at the borders of the conversations, are the texts. Loops run
over shapes, roles and versions, never over conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.common.arrow import numbers, to_numpy
from dataprep.rendering.layout import LEFT, RIGHT, ContentKind, Slot
from dataprep.rendering.plan import Plan
from dataprep.rendering.spans import Span
from dataprep.rendering.symbols import MessageShape, Shape

SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())]))

# The white space that `str.strip` removes; `strip_chars` of Polars without arguments does not remove the first four.
WHITE_SPACE = "\x1c\x1d\x1e\x1f\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))
WHITE_SPACE += "\u2028\u2029\u202f\u205f\u3000"
_FIRST, _LAST = (np.isin(np.arange(256), [space.encode()[index] for space in WHITE_SPACE]) for index in (0, -1))

# Arrow's string view; for strings of up to 12 bytes, everything after `size` is the string itself.
_VIEW = np.dtype([("size", "<i4"), ("first", "u1"), ("", "u1", 3), ("buffer", "<i4"), ("offset", "<i4")])

_LIMIT = 2**31 - 1  # bytes in one array with 32-bit offsets


class BatchTooLong(Exception):
    """The text of the batch would overflow 32-bit offsets."""


@dataclass(frozen=True)
class FlatMessages:
    """The messages of a batch in one sequence; those of conversation i are at offsets[i] to offsets[i + 1]."""

    offsets: np.ndarray
    roles: pl.Series
    contents: pl.Series
    missing: np.ndarray | None  # whether the role or the content is null; None: nowhere
    context_only: np.ndarray | None  # whether `trained` is false; None: nowhere
    bytes: np.ndarray  # of each content
    chars: np.ndarray
    stripped_bytes: np.ndarray  # of each content stripped on both sides

    @classmethod
    def of(cls, messages: pl.Series) -> FlatMessages:
        """Flatten a column `list<struct<role, content, …>>` without copying; a null list counts as empty."""
        offsets, fields = flatten(messages)
        roles, contents = fields["role"], fields["content"]
        trained = fields.get("trained")
        context_only = None if trained is None else (~trained.fill_null(True)).to_numpy()
        nulls = roles.null_count() + contents.null_count()
        missing = (roles.is_null() | contents.is_null()).to_numpy() if nulls else None
        contents = contents.fill_null("") if nulls else contents
        sizes = contents.str.len_bytes().to_numpy()
        chars = contents.str.len_chars().to_numpy()
        flat = cls(offsets, roles, contents, missing, context_only, sizes, chars, sizes.copy())
        candidates = np.flatnonzero(_may_be_padded(contents))
        flat.stripped_bytes[candidates] = flat.stripped(LEFT | RIGHT, candidates).str.len_bytes().to_numpy()
        return flat

    def stripped(self, sides: int, indices: np.ndarray) -> pl.Series:
        """The contents with those indices, stripped on the given sides exactly as Python strips."""
        contents = self.contents.gather(pl.Series(indices))
        strip = {
            LEFT: contents.str.strip_chars_start,
            RIGHT: contents.str.strip_chars_end,
            LEFT | RIGHT: contents.str.strip_chars,
        }
        return strip[sides](WHITE_SPACE)


def _may_be_padded(contents: pl.Series) -> np.ndarray:
    """Whether each content starts or ends with a byte of white space: few do, and stripping all takes six times as long."""
    array = contents.to_arrow(compat_level=pl.CompatLevel.newest())
    _, views, *buffers = array.buffers()
    view = np.frombuffer(views, _VIEW)[array.offset : array.offset + len(array)]
    inline = np.frombuffer(views, np.uint8)
    sizes = view["size"]
    last = inline[(np.arange(len(array)) + array.offset) * 16 + 3 + np.minimum(sizes, 12)]
    buffer_of = np.where(sizes > 12, view["buffer"], -1)
    for number in np.unique(buffer_of[buffer_of >= 0]).tolist():  # of very many buffers, a batch uses a few
        rows = np.flatnonzero(buffer_of == number)
        last[rows] = np.frombuffer(buffers[number], np.uint8)[view["offset"][rows] + sizes[rows] - 1]
    padded: np.ndarray = (_FIRST[view["first"]] | _LAST[last]) & (sizes > 0)
    return padded


def message_schema(messages: pl.Series) -> dict[str, Any]:
    """The fields of the messages in a column `list<struct<…>>`, with their types."""
    inner = messages.dtype.inner if isinstance(messages.dtype, pl.List) else None
    assert isinstance(inner, pl.Struct)
    return dict(inner.to_schema())


def flatten(messages: pl.Series) -> tuple[np.ndarray, dict[str, pl.Series]]:
    """The offsets and the fields of a column `list<struct<role, content, …>>`, without copying."""
    if messages.null_count():
        messages = messages.fill_null([])
    lists = messages.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    offsets = to_numpy(lists.offsets)
    flat = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    types = message_schema(messages)
    fields = {name: pl.Series(array, dtype=types[name]) for name, array in zip(types, flat.flatten(), strict=True)}
    return offsets - offsets[0], fields


# Fields of a message that plans do not cover.
_FURTHER_FIELDS = ("reasoning_content", "tool_calls", "name", "tool_call_id")


def has_further_fields(messages: pl.Series, tools: pl.Series | None) -> np.ndarray:
    """Whether each conversation has tools, or a message with a field besides role, content and trained."""
    result = np.zeros(len(messages), bool) if tools is None else tools.is_not_null().to_numpy().copy()
    present = [name for name in _FURTHER_FIELDS if name in message_schema(messages)]
    if present:
        offsets, fields = flatten(messages)
        used = np.logical_or.reduce([fields[name].is_not_null().to_numpy() for name in present])
        result[np.repeat(np.arange(len(messages)), np.diff(offsets))[used]] = True
    return result


_CODES = len(ContentKind) * 2  # of a role: the kind of its content, and whether it is context only


def shapes_of(messages: FlatMessages) -> tuple[np.ndarray, list[Shape]]:
    """The distinct shapes, and for each conversation the index of its shape among them."""
    coded = messages.roles.fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
    roles = coded.dictionary.to_pylist()
    kinds = (messages.stripped_bytes == 0).astype(np.uint32) + (messages.bytes == 0)  # NORMAL, BLANK, EMPTY
    if messages.missing is not None:
        kinds[messages.missing] = ContentKind.MISSING
    if messages.context_only is not None:
        kinds[messages.context_only] += len(ContentKind)
    codes = (to_numpy(coded.indices).astype(np.uint32) * _CODES + kinds).astype("<u4")
    # The codes of one conversation, read as one binary value: the dictionary of these values is the list of shapes.
    borders = pa.py_buffer((messages.offsets * 4).astype(np.int64))
    keys = pa.Array.from_buffers(pa.large_binary(), len(messages.offsets) - 1, [None, borders, pa.py_buffer(codes)])
    shapes = keys.dictionary_encode()
    return to_numpy(shapes.indices), [_decode_shape(key, roles) for key in shapes.dictionary.to_pylist()]


def _decode_shape(key: bytes, roles: Sequence[str]) -> Shape:
    kinds = len(ContentKind)
    return tuple(
        MessageShape(roles[code // _CODES], ContentKind(code % kinds), code % _CODES < kinds)
        for code in np.frombuffer(key, "<u4").tolist()
    )


@dataclass(frozen=True)
class _PlanTable:
    """Rows of integers for each plan: those of plan i are at offsets[i] to offsets[i + 1]."""

    offsets: np.ndarray
    values: np.ndarray  # two-dimensional

    @classmethod
    def of(cls, rows_of_plans: Sequence[Sequence[Sequence[int]]], width: int) -> _PlanTable:
        flat = [row for rows in rows_of_plans for row in rows]
        offsets = np.cumsum([0, *map(len, rows_of_plans)], dtype=np.int64)
        return cls(offsets, np.array(flat, dtype=np.int64).reshape(len(flat), width))

    def expand(self, plan_of: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each conversation the rows of its plan: their indices, their number, and where each conversation starts."""
        counts = np.diff(self.offsets)[plan_of]
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(starts[-1]) + np.repeat(self.offsets[plan_of] - starts[:-1], counts)
        return rows, counts, starts


def assemble(
    messages: FlatMessages, rows: np.ndarray, plan_of: np.ndarray, plans: Sequence[Plan]
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """The `text`, `spans` and `controls` of the conversations `rows`; row i is rendered with `plans[plan_of[i]]`.

    Raises:
        BatchTooLong: the texts together are longer than 2 GiB.
    """
    stock = _PieceStock.of(messages, plans)
    table = _PlanTable.of([[stock.number(piece) for piece in plan.annotated.layout.pieces] for plan in plans], 2)
    piece_rows, counts, starts = table.expand(plan_of)
    base, is_relative = table.values.T
    first_message = np.repeat(messages.offsets[:-1][rows], counts)
    order = stock.places[base[piece_rows] + is_relative[piece_rows] * first_message]
    sizes = stock.bytes[order]
    borders = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    if borders[-1] > _LIMIT:
        raise BatchTooLong
    joined = stock.pieces.gather(pl.Series(order)).to_arrow(compat_level=pl.CompatLevel.oldest())
    data = joined.buffers()[2] or pa.py_buffer(b"")
    offsets = pa.py_buffer(borders[starts].astype(np.int32))
    text = pa.Array.from_buffers(pa.string(), len(rows), [None, offsets, data])

    chars = np.concatenate([[0], np.cumsum(stock.chars[order], dtype=np.int64)])
    spans = _ranges([plan.annotated.spans for plan in plans], plan_of, starts[:-1], chars)
    controls = _ranges([plan.annotated.controls for plan in plans], plan_of, starts[:-1], chars)
    return text, spans, controls


@dataclass(frozen=True)
class _PieceStock:
    """All pieces from which the texts of a batch are assembled, with their sizes.

    Pieces are numbered by version and message (version * messages + message), then the constants follow. `places` maps a
    number to an index into `pieces`, because most contents are equal in all versions and are stored once.
    """

    pieces: pl.Series
    bytes: np.ndarray
    chars: np.ndarray
    places: np.ndarray
    constants: dict[str, int]
    versions: dict[int, int]  # stripped sides: index of the version
    message_count: int

    @classmethod
    def of(cls, messages: FlatMessages, plans: Sequence[Plan]) -> _PieceStock:
        used = [piece for plan in plans for piece in plan.annotated.layout.pieces]
        all_sides = sorted({piece.strip_sides for piece in used if isinstance(piece, Slot)})
        versions = {sides: index for index, sides in enumerate(all_sides)}
        constants = {
            text: index for index, text in enumerate(dict.fromkeys(piece for piece in used if isinstance(piece, str)))
        }
        count, padded = len(messages.contents), np.flatnonzero(messages.stripped_bytes != messages.bytes)
        stripped = [messages.stripped(sides, padded) for sides in versions if sides]
        extra = pl.concat([*stripped, pl.Series(list(constants), dtype=pl.String)])
        places = np.tile(np.arange(count, dtype=np.uint32), (len(versions), 1))
        for index, row in enumerate(places[len(versions) - len(stripped) :]):
            row[padded] = count + index * len(padded) + np.arange(len(padded))
        first_constant = count + len(stripped) * len(padded)
        return cls(
            pl.concat([messages.contents, extra], rechunk=True),  # a gather from one chunk is many times faster
            np.concatenate([messages.bytes, extra.str.len_bytes().to_numpy()]),
            np.concatenate([messages.chars, extra.str.len_chars().to_numpy()]),
            np.concatenate(
                [places.ravel(), first_constant + np.arange(len(constants), dtype=np.uint32)], dtype=np.uint32
            ),
            constants,
            versions,
            count,
        )

    def number(self, piece: str | Slot) -> tuple[int, int]:
        """A piece's number, and 1 if the number of the conversation's first message has to be added to it."""
        if isinstance(piece, Slot):
            return self.versions[piece.strip_sides] * self.message_count + piece.ordinal, 1
        return len(self.versions) * self.message_count + self.constants[piece], 0


def _ranges(
    spans_of_plans: Sequence[Sequence[Span]], plan_of: np.ndarray, first_piece: np.ndarray, piece_starts: np.ndarray
) -> pa.Array:
    """Spans as code points of each conversation's text: `list<struct<start, end>>`."""
    table = _PlanTable.of([[(*start, *end) for start, end in spans] for spans in spans_of_plans], 4)
    rows, counts, offsets = table.expand(plan_of)
    first = np.repeat(first_piece, counts)
    start_piece, start_shift, end_piece, end_shift = table.values[rows].T
    text_start = piece_starts[first]
    start = piece_starts[first + start_piece] + start_shift - text_start
    end = piece_starts[first + end_piece] + end_shift - text_start
    values = pa.StructArray.from_arrays(
        [numbers(start.astype(np.int32)), numbers(end.astype(np.int32))], fields=list(SPANS.value_type)
    )
    return pa.ListArray.from_arrays(numbers(offsets.astype(np.int32)), values, type=SPANS)
