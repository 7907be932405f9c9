"""The layout of a rendered conversation: constants that the template wrote, and slots that hold the messages' contents.

Both ways of running a template (`symbols`, once for each shape of conversation, and `taint`, once for each row) produce
a flat list of parts. This module turns that list into a `Layout`, in which `spans` finds what is trained and which
special tokens the template itself wrote.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum

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


LEFT, RIGHT = 1, 2  # bits of Slot.strip_sides
UNKNOWN_ORIGIN = -1  # Slot.ordinal of text whose author is unknown


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that holds a message's content, or a part of it.

    `ordinal` is the message's index in the conversation, or `UNKNOWN_ORIGIN`; `strip_sides` says on which sides white
    space is stripped; `length` is in code points and is set only where the content is known (row by row).
    """

    ordinal: int
    kind: ContentKind = ContentKind.NORMAL
    strip_sides: int = 0
    length: int = 0

    @property
    def is_empty(self) -> bool:
        return self.kind is ContentKind.EMPTY or (self.kind is ContentKind.BLANK and self.strip_sides != 0)


Part = str | Slot | Mark


@dataclass(frozen=True)
class Layout:
    """A rendered conversation in pieces.

    `pieces` holds constants and non-empty slots, never two constants in a row. `slots` holds the ordinal, start and end
    of every slot, including empty ones. `marks` holds the borders of the generation blocks.
    """

    pieces: tuple[str | Slot, ...]
    slots: tuple[tuple[int, Position, Position], ...]
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
        return self.slots[slot_index - 1][2] if slot_index else (0, 0)

    def end_of_constant_after(self, slot_index: int) -> Position:
        """Where the constant after a slot ends."""
        return self.slots[slot_index + 1][1] if slot_index + 1 < len(self.slots) else self.end

    def constants(self) -> list[str]:
        """The template's text before, between and after the slots: one more entry than there are slots."""
        borders = [(0, 0), *(end for _, _, end in self.slots)]
        starts = [*(start for _, start, _ in self.slots), self.end]
        return [self.constant(start, end) for start, end in zip(borders, starts, strict=True)]


def build_layout(parts: Iterable[Part]) -> Layout:
    """Combine the parts that a template wrote, in order, into a layout."""
    pieces: list[str | Slot] = []
    slots: list[tuple[int, Position, Position]] = []
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
            slots.append((part.ordinal, (len(pieces), length), (len(pieces), length)))
        else:
            close_constant()
            slots.append((part.ordinal, (len(pieces), 0), (len(pieces) + 1, 0)))
            pieces.append(part)
    close_constant()
    return Layout(tuple(pieces), tuple(slots), tuple(marks))
