"""Parses rendered texts back: does a text, read by its plan, give exactly the messages that it was rendered from?

A plan says which constants separate the messages of a conversation. A text is read from the left, and each message ends
at the first occurrence of the constant after it. A marker typed inside a message ends that message too early, so the
messages differ. Constants of white space only (some templates write nothing else between system text and question)
cannot separate messages: the messages around one are read as one block.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from dataprep.common.arrow import replace_at
from dataprep.rendering.columns import FlatMessages, has_further_fields, shapes_of
from dataprep.rendering.layout import Slot
from dataprep.rendering.plan import Plan, Planner

ByteOffsets = npt.NDArray[np.int64]
RowIndices = npt.NDArray[np.intp]


class Parser:
    """Parses texts of one template."""

    def __init__(self, planner: Planner) -> None:
        self._planner = planner

    def parses_back(self, messages: pl.Series, text: pa.StringArray, tools: pl.Series | None = None) -> pl.Series:
        """Whether each text gives its `messages` (list<struct<role, content, …>>) back, except for stripped white space.

        Returns: Boolean; null if the conversation was rendered row by row.
        """
        flat = FlatMessages.of(messages)
        shape, shapes = shapes_of(flat)
        strategies = [self._planner.strategy(one_shape) for one_shape in shapes]
        grammars = {
            number: _grammar(strategy) for number, strategy in enumerate(strategies) if isinstance(strategy, Plan)
        }
        reader = _Reader(text)
        for (_, production), shape_numbers in _steps(grammars):
            reader.read(np.flatnonzero(np.isin(shape, shape_numbers)), production, flat)
        row_by_row = ~np.isin(shape, list(grammars)) | has_further_fields(messages, tools)
        return pl.Series("parses_back", reader.results()).set(pl.Series(row_by_row), None)


@dataclass(frozen=True)
class _Production:
    """One step of a grammar: a block, and the constant that ends it ("": it ends with the text).

    `block` is None for the constant at the start of the text.
    """

    block: tuple[str | Slot, ...] | None
    constant: str
    is_last: bool


def _grammar(plan: Plan) -> list[_Production]:
    """The productions of a plan in order; a block is one slot, or several with white space between them."""
    pieces = plan.annotated.layout.pieces
    runs = [
        (separates, tuple(run))
        for separates, run in groupby(pieces, lambda piece: isinstance(piece, str) and bool(piece.strip()))
    ]
    blocks = [run for separates, run in runs if not separates]
    constants = ["".join(map(str, run)) for separates, run in runs if separates]
    if runs and not runs[0][0]:
        constants.insert(0, "")
    if len(constants) == len(blocks):
        constants.append("")
    last = len(blocks) - 1
    productions = [_Production(block, constants[index + 1], index == last) for index, block in enumerate(blocks)]
    return [_Production(None, constants[0], False), *productions]


def _steps(grammars: dict[int, list[_Production]]) -> list[tuple[tuple[int, _Production], list[int]]]:
    """The distinct (position, production) pairs by position, each with the shapes that have that production there.

    Conversations of different lengths share most of their productions, so there are about as many steps as the longest
    conversation has, and not as many as all shapes have together.
    """
    steps: dict[tuple[int, _Production], list[int]] = {}
    for number, productions in grammars.items():
        for position, production in enumerate(productions):
            steps.setdefault((position, production), []).append(number)
    return sorted(steps.items(), key=lambda step: step[0][0])


class _Reader:
    """The texts as bytes, the occurrences of each constant in them, and how far each text has been read."""

    def __init__(self, text: pa.StringArray) -> None:
        self._column = pl.Series(text, dtype=pl.String)
        _, offsets, self._data = text.buffers()
        borders = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1].astype(np.int64)
        self._position, self._starts, self._ends = borders[:-1].copy(), borders[:-1], borders[1:]
        self._matches = np.ones(len(text), bool)  # whether everything read so far is what was rendered
        self._occurrences: dict[str, ByteOffsets] = {}

    def read(self, rows: RowIndices, production: _Production, messages: FlatMessages) -> None:
        """Read one production in the texts `rows`."""
        position, ends, size = self._position[rows], self._ends[rows], len(production.constant.encode())
        if production.block is None:
            if production.constant:
                self._matches[rows] = self._next(production.constant, position) == position
                self._position[rows] = np.minimum(position + size, ends)
            return
        stop = self._next(production.constant, position) if production.constant else ends
        matches = self._matches[rows] & ((stop + size == ends) if production.is_last else (stop + size <= ends))
        stop = np.where(matches, stop, position)  # after a mismatch, the rest of a text is read as empty
        matches &= (self._between(position, stop) == _expected(production.block, rows, messages)).to_numpy()
        self._matches[rows], self._position[rows] = matches, np.where(matches, stop + size, position)

    def results(self) -> npt.NDArray[np.bool_]:
        """Whether each text was read to its end and matches."""
        results: npt.NDArray[np.bool_] = self._matches & (self._position == self._ends)
        return results

    def _next(self, constant: str, positions: ByteOffsets) -> ByteOffsets:
        """The first occurrence of `constant` at or after each position, in bytes of all texts together."""
        if constant not in self._occurrences:
            lists = self._column.str.find_many([constant])
            counts = lists.list.len().to_numpy()
            in_text = lists.explode(empty_as_null=False, keep_nulls=False).to_numpy().astype(np.int64)
            never = np.iinfo(np.int64).max // 2
            self._occurrences[constant] = np.append(in_text + np.repeat(self._starts, counts), never)
        occurrences = self._occurrences[constant]
        return occurrences[np.searchsorted(occurrences, positions)]

    def _between(self, start: ByteOffsets, end: ByteOffsets) -> pl.Series:
        """The texts between pairs of positions, which ascend and do not overlap."""
        borders = np.stack([start, end], axis=1).ravel().astype(np.int32)
        view = pa.StringArray.from_buffers(len(borders) - 1, pa.py_buffer(borders), self._data)
        return pl.Series(view, dtype=pl.String).gather_every(2)  # copies no text


def _expected(block: tuple[str | Slot, ...], rows: RowIndices, messages: FlatMessages) -> pl.Series:
    """The text that a block should contain: the contents, stripped as the plan strips them."""
    parts = []
    for piece in block:
        if isinstance(piece, Slot):
            parts.append(_stripped(messages, messages.offsets[:-1][rows] + piece.ordinal, piece.strip_sides))
        else:
            parts.append(pl.Series([piece]).new_from_index(0, len(rows)))
    if len(parts) == 1:
        return parts[0]
    return pl.select(pl.concat_str(part.alias(str(index)) for index, part in enumerate(parts))).to_series()


def _stripped(messages: FlatMessages, indices: npt.NDArray[np.int64], sides: int) -> pl.Series:
    """The contents with those indices, stripped on the given sides; few have anything to strip."""
    contents = messages.contents.gather(pl.Series(indices))
    padded = np.flatnonzero(messages.stripped_bytes[indices] != messages.bytes[indices]) if sides else np.array([])
    return replace_at(contents, padded, messages.stripped(sides, indices[padded])) if len(padded) else contents
