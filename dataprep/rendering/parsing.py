"""The way back: does a rendered text, read by its plan, give exactly the messages that went in?

A plan says which constants stand between the messages of a conversation. The text is read from the left: each message
ends where the constant after it stands first. A marker that somebody typed ends a message too early, and the
messages differ. Constants of white space only (some templates put no more between system text and question) part
nothing: the messages around one are read as one.
"""

from __future__ import annotations

from itertools import groupby

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from dataprep.arrays import numbers
from dataprep.rendering.columns import Turns, shapes_of
from dataprep.rendering.layout import Slot
from dataprep.rendering.plan import Plan, Planner

Places = npt.NDArray[np.int64]
Block = list[str | Slot]  # what stands between two constants: one slot, or some with white space between


class Parser:
    """Reads texts of one template; finds the plan of each shape once."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    def parses_back(self, messages: pl.Series, text: pa.StringArray) -> pl.Series:
        """Whether each of `text` gives back its `messages` (list<struct<role, content>>), less stripped white space.

        Returns: Boolean; null where the template has no plan for the shape, but goes row by row.
        """
        turns = Turns.of(messages)
        shape, shapes = shapes_of(turns)
        reader = _Reader(text)
        verdict = np.full(len(messages), -1, np.int8)
        for number, one in enumerate(shapes):
            way = self._planner.way(one)
            if isinstance(way, Plan):
                rows = np.flatnonzero(shape == number)
                verdict[rows] = _same(reader, rows, turns, *_grammar(way))
        return pl.Series("parses_back", verdict == 1).set(pl.Series(verdict < 0), None)


def _grammar(plan: Plan) -> tuple[list[str], list[Block]]:
    """The constants of a plan that part messages, and the blocks between them (one fewer; "" at an open end)."""
    pieces = plan.places.layout.pieces
    runs = [(key, list(run)) for key, run in groupby(pieces, lambda p: isinstance(p, str) and bool(p.strip()))]
    blocks = [run for parts, run in runs if not parts]
    constants = ["".join(map(str, run)) for parts, run in runs if parts]
    if runs and not runs[0][0]:
        constants.insert(0, "")
    if len(constants) == len(blocks):
        constants.append("")
    return constants, blocks


class _Reader:
    """The texts as bytes, with the places of constants, each found once."""

    def __init__(self, text: pa.StringArray) -> None:
        self.column = pl.Series(text, dtype=pl.String)
        _, offsets, self.data = text.buffers()
        cuts = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1].astype(np.int64)
        self.starts, self.ends = cuts[:-1], cuts[1:]
        self._found: dict[str, Places] = {}

    def first(self, constant: str, at: Places) -> Places:
        """Where `constant` stands first from each of `at` on, in bytes of all texts together."""
        if constant not in self._found:
            lists = self.column.str.find_many([constant])
            counts = lists.list.len().to_numpy()
            inside = lists.explode(empty_as_null=False, keep_nulls=False).to_numpy().astype(np.int64)
            self._found[constant] = np.append(inside + np.repeat(self.starts, counts), np.iinfo(np.int64).max // 2)
        return self._found[constant][np.searchsorted(self._found[constant], at)]

    def between(self, start: Places, end: Places) -> pl.Series:
        """The texts between two places each; ascending, and apart."""
        cuts = np.stack([start, end], axis=1).ravel().astype(np.int32)
        view = pa.StringArray.from_buffers(len(cuts) - 1, pa.py_buffer(cuts), self.data)
        return pl.Series(view.take(numbers(np.arange(0, len(cuts), 2))), dtype=pl.String)


def _same(
    reader: _Reader, rows: npt.NDArray[np.intp], turns: Turns, constants: list[str], blocks: list[Block]
) -> npt.NDArray[np.bool_]:
    at, ends = reader.starts[rows], reader.ends[rows]
    same = np.ones(len(rows), bool)
    if constants[0]:
        same &= reader.first(constants[0], at) == at
        at = np.minimum(at + len(constants[0].encode()), ends)
    for place, block in enumerate(blocks, start=1):
        constant, is_last = constants[place], place == len(blocks)
        stop = reader.first(constant, at) if constant else ends
        size = len(constant.encode())
        same &= (stop + size == ends) if is_last else (stop + size <= ends)
        stop = np.where(same, stop, at)  # a row that is lost is read as empty from here on
        same &= (reader.between(at, stop) == _expected(block, rows, turns)).to_numpy()
        at = np.where(same, stop + size, at)
    return same & (at == ends) if blocks else same


def _expected(block: Block, rows: npt.NDArray[np.intp], turns: Turns) -> pl.Series:
    """What went in: the contents of a block, cut as the plan cuts them."""
    parts = []
    for piece in block:
        if isinstance(piece, Slot):
            which = turns.offsets[:-1][rows] + piece.ordinal
            parts.append(turns.cut(piece.cut, which) if piece.cut else turns.contents.gather(pl.Series(which)))
        else:
            parts.append(pl.Series([piece]).new_from_index(0, len(rows)))
    if len(parts) == 1:
        return parts[0]
    return pl.select(pl.concat_str(part.alias(str(at)) for at, part in enumerate(parts))).to_series()
