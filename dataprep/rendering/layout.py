"""The layout of a rendered conversation: constants that the template wrote, and slots that hold the messages' contents.

Both ways of running a template (`symbols`, once for each shape of conversation, and `taint`, once for each row) produce
a flat list of parts. This module turns that list into a `Layout`, in which `spans` finds what is trained and which
special tokens the template itself wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import NamedTuple

# An index into Layout.pieces, and code points into that piece; (k, length of piece k) is the same place as (k + 1, 0).
Position = tuple[int, int]


class ContentKind(IntEnum):
    """Which white space a content has to strip; part of a conversation's shape."""

    NORMAL = 0
    BLANK = 1  # white space only
    EMPTY = 2
    MISSING = 3  # null, or the content of a message without a role


class Mark(Enum):
    """The start or the end of a `{% generation %}` block."""

    START = "start"
    END = "end"


class Field(IntEnum):
    """The part of a message that a slot holds."""

    CONTENT = 0
    REASONING = 1
    TOOL_CALLS = 2
    OTHER = 3  # the name, or the id of a tool call


LEFT, RIGHT = 1, 2  # bits of Slot.strip_sides
UNKNOWN_ORIGIN, TOOLS_ORIGIN = -1, -2  # Slot.ordinal of text by an unknown author, and of the conversation's tools


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that holds a message's content, or a part of it.

    `ordinal` is the message's index in the conversation, `UNKNOWN_ORIGIN` or `TOOLS_ORIGIN`; `strip_sides` says on which
    sides white space is stripped; `length` is in code points and is set only where the content is known (row by row).
    """

    ordinal: int
    kind: ContentKind = ContentKind.NORMAL
    strip_sides: int = 0
    length: int = 0
    field: Field = Field.CONTENT

    @property
    def is_empty(self) -> bool:
        return self.kind is ContentKind.EMPTY or (self.kind is ContentKind.BLANK and self.strip_sides != 0)


Part = str | Slot | Mark


class PlacedSlot(NamedTuple):
    """A slot and its position in a layout."""

    ordinal: int
    start: Position
    end: Position
    field: Field = Field.CONTENT

    @property
    def is_empty(self) -> bool:
        return self.start == self.end


@dataclass(frozen=True)
class Layout:
    """A rendered conversation in pieces.

    `pieces` holds constants and non-empty slots, never two constants in a row. `slots` holds every slot, including
    empty ones. `marks` holds the borders of the generation blocks.
    """

    pieces: tuple[str | Slot, ...]
    slots: tuple[PlacedSlot, ...]
    marks: tuple[tuple[Mark, Position], ...]

    @property
    def end(self) -> Position:
        return len(self.pieces), 0

    def constant(self, start: Position, end: Position) -> str:
        """The template's text between two positions; `end` must not lie behind the start of the next slot."""
        piece = self.pieces[start[0]] if start < end else ""
        if not isinstance(piece, str):
            return ""
        return piece[start[1] : end[1] if start[0] == end[0] else None]

    def start_of_constant_before(self, slot_index: int) -> Position:
        """Where the constant before a slot starts."""
        return self.slots[slot_index - 1].end if slot_index else (0, 0)

    def end_of_constant_after(self, slot_index: int) -> Position:
        """Where the constant after a slot ends."""
        return self.slots[slot_index + 1].start if slot_index + 1 < len(self.slots) else self.end

    def normalised(self, position: Position) -> Position:
        """The canonical form of a position: the end of a constant is the start of the next piece."""
        piece = self.pieces[position[0]] if position[0] < len(self.pieces) else None
        return (position[0] + 1, 0) if isinstance(piece, str) and position[1] == len(piece) else position

    def constants(self) -> list[str]:
        """The template's text before, between and after the slots: one more entry than there are slots."""
        borders = [(0, 0), *(slot.end for slot in self.slots)]
        starts = [*(slot.start for slot in self.slots), self.end]
        return [self.constant(start, end) for start, end in zip(borders, starts, strict=True)]


def build_layout(parts: Iterable[Part]) -> Layout:
    """Combine the parts that a template wrote, in order, into a layout."""
    pieces: list[str | Slot] = []
    slots: list[PlacedSlot] = []
    marks: list[tuple[Mark, Position]] = []
    constant: list[str] = []  # the texts of the piece in progress
    length = 0

    def close_constant() -> None:
        nonlocal length
        if length:
            pieces.append("".join(constant))
            constant.clear()
            length = 0

    for part in parts:
        if isinstance(part, str):
            constant.append(part)
            length += len(part)
        elif isinstance(part, Mark):
            marks.append((part, (len(pieces), length)))
        elif part.is_empty:
            slots.append(PlacedSlot(part.ordinal, (len(pieces), length), (len(pieces), length), part.field))
        else:
            close_constant()
            slots.append(PlacedSlot(part.ordinal, (len(pieces), 0), (len(pieces) + 1, 0), part.field))
            pieces.append(part)
    close_constant()
    return Layout(tuple(pieces), tuple(slots), tuple(marks))
