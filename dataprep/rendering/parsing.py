"""The way back: does a rendered text, read by its plan, give exactly the messages that went in?

A plan says which constants stand between the messages of a conversation. The text is read from the left: each message
ends where the constant after it stands first. A marker that somebody typed ends a message too early, and the
messages differ. Constants of white space only (some templates put no more between system text and question) part
nothing: the messages around one are read as one.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from dataprep.common.arrow import numbers
from dataprep.rendering.columns import Turns, shapes_of
from dataprep.rendering.layout import Slot
from dataprep.rendering.plan import Plan, Planner

Places = npt.NDArray[np.int64]


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
        ways = [self._planner.way(one) for one in shapes]
        grammars = {number: _grammar(way) for number, way in enumerate(ways) if isinstance(way, Plan)}
        reading = _Reading(text)
        for (_, part), sharing in _steps(grammars):
            reading.read(np.flatnonzero(np.isin(shape, sharing)), part, turns)
        return pl.Series("parses_back", reading.end()).set(pl.Series(~np.isin(shape, list(grammars))), None)


@dataclass(frozen=True)
class _Part:
    """What is read at one place: a block and the constant after it ("": up to the end); no block: where a text begins."""

    block: tuple[str | Slot, ...] | None
    constant: str
    is_last: bool


def _grammar(plan: Plan) -> list[_Part]:
    """The parts of a plan, one after the other: blocks (one slot, or some with white space between) and constants."""
    pieces = plan.places.layout.pieces
    runs = [(key, tuple(run)) for key, run in groupby(pieces, lambda p: isinstance(p, str) and bool(p.strip()))]
    blocks = [run for parts, run in runs if not parts]
    constants = ["".join(map(str, run)) for parts, run in runs if parts]
    if runs and not runs[0][0]:
        constants.insert(0, "")
    if len(constants) == len(blocks):
        constants.append("")
    last = len(blocks) - 1
    read = [_Part(block, constants[at + 1], at == last) for at, block in enumerate(blocks)]
    return [_Part(None, constants[0], False), *read]


def _steps(grammars: dict[int, list[_Part]]) -> list[tuple[tuple[int, _Part], list[int]]]:
    """Each part by its place, with the shapes that have it there, in the order of the places.

    Conversations of many lengths have most of their parts in common: so there are as many steps as the longest has
    parts, and some, and not as many as all shapes have together.
    """
    steps: dict[tuple[int, _Part], list[int]] = {}
    for number, parts in grammars.items():
        for at, part in enumerate(parts):
            steps.setdefault((at, part), []).append(number)
    return sorted(steps.items(), key=lambda step: step[0][0])


class _Reading:
    """The texts as bytes, with the places of constants, each found once; and how far each text has been read."""

    def __init__(self, text: pa.StringArray) -> None:
        self.column = pl.Series(text, dtype=pl.String)
        _, offsets, self.data = text.buffers()
        cuts = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1].astype(np.int64)
        self.at, self.starts, self.ends = cuts[:-1].copy(), cuts[:-1], cuts[1:]
        self.same = np.ones(len(text), bool)  # so far, what was read is what went in
        self._found: dict[str, Places] = {}

    def read(self, rows: npt.NDArray[np.intp], part: _Part, turns: Turns) -> None:
        """Go on by one part in the texts `rows`."""
        at, ends, size = self.at[rows], self.ends[rows], len(part.constant.encode())
        if part.block is None:
            if part.constant:
                self.same[rows] = self.first(part.constant, at) == at
                self.at[rows] = np.minimum(at + size, ends)
            return
        stop = self.first(part.constant, at) if part.constant else ends
        same = self.same[rows] & ((stop + size == ends) if part.is_last else (stop + size <= ends))
        stop = np.where(same, stop, at)  # a row that is lost is read as empty from here on
        same &= (self.between(at, stop) == _expected(part.block, rows, turns)).to_numpy()
        self.same[rows], self.at[rows] = same, np.where(same, stop + size, at)

    def end(self) -> npt.NDArray[np.bool_]:
        """Whether all was read, and came out as it went in."""
        all_read: npt.NDArray[np.bool_] = self.same & (self.at == self.ends)
        return all_read

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


def _expected(block: tuple[str | Slot, ...], rows: npt.NDArray[np.intp], turns: Turns) -> pl.Series:
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
