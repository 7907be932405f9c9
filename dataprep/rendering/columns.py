"""Rendering by columns: the texts of a whole batch out of one gather.

Each content is there in up to four cuts (as it is, stripped on the left, on the right, on both sides), which share its
bytes; the constants of all plans follow. An index array computed by NumPy puts all pieces of all conversations in
order, one gather joins them, and the joined bytes, cut at the conversations' borders, are the texts. Loops run over
shapes, roles and cuts, never over conversations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa

from dataprep.common.arrow import numbers, numpied
from dataprep.rendering.layout import LEFT, RIGHT, Kind, Slot
from dataprep.rendering.places import Span
from dataprep.rendering.plan import Plan
from dataprep.rendering.symbols import Shape

SPANS = pa.list_(pa.struct([("start", pa.int32()), ("end", pa.int32())]))

# What `str.strip` takes for white space; Polars' own idea of it lacks the first four.
WHITE_SPACE = "\x1c\x1d\x1e\x1f\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))
WHITE_SPACE += "\u2028\u2029\u202f\u205f\u3000"
_FIRST, _LAST = (np.isin(np.arange(256), [space.encode()[at] for space in WHITE_SPACE]) for at in (0, -1))

# Arrow's string view; of up to 12 bytes, the string itself stands in the place of all but `size`.
_VIEW = np.dtype([("size", "<i4"), ("first", "u1"), ("", "u1", 3), ("buffer", "<i4"), ("offset", "<i4")])

_LIMIT = 2**31 - 1  # bytes in one array with 32-bit offsets


class TooLong(Exception):
    """The batch's text would overflow 32-bit offsets."""


@dataclass(frozen=True)
class Turns:
    """The messages of a batch, flat; `offsets` has conversation i's at offsets[i] to offsets[i + 1]."""

    offsets: np.ndarray
    roles: pl.Series
    contents: pl.Series
    missing: np.ndarray | None  # where the role or the content is null; None: nowhere
    bytes: np.ndarray  # of each content
    chars: np.ndarray
    core_bytes: np.ndarray  # of each content stripped on both sides

    @classmethod
    def of(cls, messages: pl.Series) -> Turns:
        """From a column `list<struct<role, content>>`, without copying; a null list has no messages."""
        offsets, roles, contents = flat(messages)
        holes = roles.null_count() + contents.null_count()
        missing = (roles.is_null() | contents.is_null()).to_numpy() if holes else None
        contents = contents.fill_null("") if holes else contents
        sizes = contents.str.len_bytes().to_numpy()
        turns = cls(offsets, roles, contents, missing, sizes, contents.str.len_chars().to_numpy(), sizes.copy())
        candidates = np.flatnonzero(_may_be_padded(contents))
        turns.core_bytes[candidates] = turns.cut(LEFT | RIGHT, candidates).str.len_bytes().to_numpy()
        return turns

    def cut(self, sides: int, which: np.ndarray) -> pl.Series:
        """The contents `which`, stripped on those sides exactly as Python strips."""
        found = self.contents.gather(pl.Series(which))
        strip = {
            LEFT: found.str.strip_chars_start,
            RIGHT: found.str.strip_chars_end,
            LEFT | RIGHT: found.str.strip_chars,
        }
        return strip[sides](WHITE_SPACE)


def _may_be_padded(contents: pl.Series) -> np.ndarray:
    """Whether a content begins or ends with a byte of white space: few do, and stripping all takes six times as long."""
    array = contents.to_arrow(compat_level=pl.CompatLevel.newest())
    _, views, *buffers = array.buffers()
    view = np.frombuffer(views, _VIEW)[array.offset : array.offset + len(array)]
    inline = np.frombuffer(views, np.uint8)
    sizes = view["size"]
    last = inline[(np.arange(len(array)) + array.offset) * 16 + 3 + np.minimum(sizes, 12)]
    elsewhere = np.where(sizes > 12, view["buffer"], -1)
    for number, buffer in enumerate(buffers):
        at = np.flatnonzero(elsewhere == number)
        last[at] = np.frombuffer(buffer, np.uint8)[view["offset"][at] + sizes[at] - 1] if len(at) else 0
    padded: np.ndarray = (_FIRST[view["first"]] | _LAST[last]) & (sizes > 0)
    return padded


def flat(messages: pl.Series) -> tuple[np.ndarray, pl.Series, pl.Series]:
    """Offsets, roles and contents of a column `list<struct<role, content>>`, without copying."""
    if messages.null_count():
        messages = messages.fill_null([])
    lists = messages.rechunk().to_arrow(compat_level=pl.CompatLevel.newest())
    offsets = numpied(lists.offsets)
    turns = lists.values.slice(offsets[0], offsets[-1] - offsets[0])
    roles, contents = (pl.Series(field, dtype=pl.String) for field in turns.flatten())
    return offsets - offsets[0], roles, contents


def shapes_of(turns: Turns) -> tuple[np.ndarray, list[Shape]]:
    """For each conversation the number of its shape, and the shapes."""
    coded = turns.roles.fill_null("").to_arrow(compat_level=pl.CompatLevel.oldest()).dictionary_encode()
    names = coded.dictionary.to_pylist()
    kinds = (turns.core_bytes == 0).astype(np.uint32) + (turns.bytes == 0)  # NORMAL, BLANK, EMPTY
    if turns.missing is not None:
        kinds[turns.missing] = Kind.MISSING
    codes = (numpied(coded.indices).astype(np.uint32) * len(Kind) + kinds).astype("<u4")
    # A conversation's codes, side by side, are a binary value: a dictionary of these is the list of shapes.
    borders = pa.py_buffer((turns.offsets * 4).astype(np.int64))
    found = pa.Array.from_buffers(pa.large_binary(), len(turns.offsets) - 1, [None, borders, pa.py_buffer(codes)])
    shapes = found.dictionary_encode()
    return numpied(shapes.indices), [_shape(key, names) for key in shapes.dictionary.to_pylist()]


def _shape(key: bytes, names: Sequence[str]) -> Shape:
    return tuple((names[code // len(Kind)], Kind(code % len(Kind))) for code in np.frombuffer(key, "<u4").tolist())


@dataclass(frozen=True)
class _Rows:
    """Rows of integers, one group a plan: the group of plan i is at offsets[i] to offsets[i + 1]."""

    offsets: np.ndarray
    values: np.ndarray  # one row of columns each

    @classmethod
    def of(cls, groups: Sequence[Sequence[Sequence[int]]], width: int) -> _Rows:
        flat = [row for group in groups for row in group]
        offsets = np.cumsum([0, *map(len, groups)], dtype=np.int64)
        return cls(offsets, np.array(flat, dtype=np.int64).reshape(len(flat), width))

    def spread(self, plan: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The rows of each conversation's plan: which rows, how many each, and where each conversation's begin."""
        counts = np.diff(self.offsets)[plan]
        starts = np.concatenate([[0], np.cumsum(counts)])
        rows = np.arange(starts[-1]) + np.repeat(self.offsets[plan] - starts[:-1], counts)
        return rows, counts, starts


def assemble(
    turns: Turns, rows: np.ndarray, plan_of: np.ndarray, plans: Sequence[Plan]
) -> tuple[pa.Array, pa.Array, pa.Array]:
    """`text`, `spans` and `controls` of the conversations `rows`, each with the plan `plans[plan_of[i]]`.

    Raises:
        TooLong: the texts together are longer than 2 GiB.
    """
    stock = _Stock.of(turns, plans)
    table = _Rows.of([[stock.number(piece) for piece in plan.places.layout.pieces] for plan in plans], 2)
    which, counts, starts = table.spread(plan_of)
    base, moves = table.values.T
    order = stock.places[base[which] + moves[which] * np.repeat(turns.offsets[:-1][rows], counts)]
    sizes = stock.bytes[order]
    borders = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
    if borders[-1] > _LIMIT:
        raise TooLong
    joined = stock.pieces.gather(pl.Series(order)).to_arrow(compat_level=pl.CompatLevel.oldest())
    data = joined.buffers()[2] or pa.py_buffer(b"")
    offsets = pa.py_buffer(borders[starts].astype(np.int32))
    text = pa.Array.from_buffers(pa.string(), len(rows), [None, offsets, data])

    chars = np.concatenate([[0], np.cumsum(stock.chars[order], dtype=np.int64)])
    spans = _located([plan.places.spans for plan in plans], plan_of, starts[:-1], chars)
    controls = _located([plan.places.controls for plan in plans], plan_of, starts[:-1], chars)
    return text, spans, controls


@dataclass(frozen=True)
class _Stock:
    """All pieces that a batch's texts are made of, with their sizes.

    They are numbered by cut and message (cut * messages + message), then the constants; `places` says where a number
    lies in `pieces`: most contents are the same in every cut and lie there once.
    """

    pieces: pl.Series
    bytes: np.ndarray
    chars: np.ndarray
    places: np.ndarray
    constants: dict[str, int]
    cuts: dict[int, int]
    messages: int

    @classmethod
    def of(cls, turns: Turns, plans: Sequence[Plan]) -> _Stock:
        used = [piece for plan in plans for piece in plan.places.layout.pieces]
        cuts = {sides: at for at, sides in enumerate(sorted({piece.cut for piece in used if isinstance(piece, Slot)}))}
        constants = {text: at for at, text in enumerate(dict.fromkeys(p for p in used if isinstance(p, str)))}
        count, padded = len(turns.contents), np.flatnonzero(turns.core_bytes != turns.bytes)
        more = [turns.cut(sides, padded) for sides in cuts if sides]
        extra = pl.concat([*more, pl.Series(list(constants), dtype=pl.String)])
        places = np.tile(np.arange(count, dtype=np.uint32), (len(cuts), 1))
        for at, row in enumerate(places[len(cuts) - len(more) :]):
            row[padded] = count + at * len(padded) + np.arange(len(padded))
        return cls(
            pl.concat([turns.contents, extra], rechunk=True),  # a gather from one chunk is many times faster
            np.concatenate([turns.bytes, extra.str.len_bytes().to_numpy()]),
            np.concatenate([turns.chars, extra.str.len_chars().to_numpy()]),
            np.concatenate(
                [places.ravel(), count + len(more) * len(padded) + np.arange(len(constants), dtype=np.uint32)],
                dtype=np.uint32,
            ),
            constants,
            cuts,
            count,
        )

    def number(self, piece: str | Slot) -> tuple[int, int]:
        """A piece's number, and 1 where the number of the conversation's first message is to be added."""
        if isinstance(piece, Slot):
            return self.cuts[piece.cut] * self.messages + piece.ordinal, 1
        return len(self.cuts) * self.messages + self.constants[piece], 0


def _located(
    places: Sequence[Sequence[Span]], plan_of: np.ndarray, first_piece: np.ndarray, piece_starts: np.ndarray
) -> pa.Array:
    """Spans in code points of each conversation's text, as `list<struct<start, end>>`."""
    table = _Rows.of([[(*start, *end) for start, end in plan] for plan in places], 4)
    which, counts, offsets = table.spread(plan_of)
    first = np.repeat(first_piece, counts)
    piece, into, end_piece, end_into = table.values[which].T
    origin = piece_starts[first]
    start = piece_starts[first + piece] + into - origin
    end = piece_starts[first + end_piece] + end_into - origin
    values = pa.StructArray.from_arrays(
        [numbers(start.astype(np.int32)), numbers(end.astype(np.int32))], fields=list(SPANS.value_type)
    )
    return pa.ListArray.from_arrays(numbers(offsets.astype(np.int32)), values, type=SPANS)
