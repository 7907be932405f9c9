"""A rendered conversation in pieces: what the template wrote, and what stood in the messages.

Both ways of running a template (`symbols`: once a shape; `traces`: once a row) end in the same list of parts; here
they become a `Layout`, in which `places` finds what is trained and which tokens are the template's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, IntEnum

Position = tuple[int, int]  # a piece, and code points into it; (k, length of piece k) is the same place as (k + 1, 0)


class Kind(IntEnum):
    """What there is to strip of a content: part of a conversation's shape."""

    NORMAL = 0
    BLANK = 1  # white space only
    EMPTY = 2
    MISSING = 3  # null, or of a message without a role


class Mark(Enum):
    """The borders of a `{% generation %}` block."""

    START = "start"
    END = "end"


LEFT, RIGHT = 1, 2  # bits of Slot.cut


@dataclass(frozen=True, slots=True)
class Slot:
    """A place where (part of) a message's content stands.

    `ordinal` counts the messages from 0 (-1: of unknown origin); `cut` says on which sides white space is stripped;
    `length` is in code points where it is known, that is, row by row.
    """

    ordinal: int
    kind: Kind = Kind.NORMAL
    cut: int = 0
    length: int = 0

    @property
    def empty(self) -> bool:
        return self.kind is Kind.EMPTY or (self.kind is Kind.BLANK and self.cut != 0)


Part = str | Slot | Mark


@dataclass(frozen=True)
class Layout:
    """`pieces`: constants and non-empty slots, no two constants side by side.

    `slots` has every slot's ordinal, start and end, empty ones too; `marks` the borders of generation blocks.
    """

    pieces: tuple[str | Slot, ...]
    slots: tuple[tuple[int, Position, Position], ...]
    marks: tuple[tuple[Mark, Position], ...]

    @property
    def end(self) -> Position:
        return len(self.pieces), 0

    def constant(self, start: Position, end: Position) -> str:
        """What the template wrote between two places, the second being no later than the next slot's start."""
        piece = self.pieces[start[0]] if start < end else ""
        if not isinstance(piece, str):
            return ""
        return piece[start[1] : end[1] if start[0] == end[0] else None]

    def before(self, slot: int) -> Position:
        """Where the constant before the slot of that index begins."""
        return self.slots[slot - 1][2] if slot else (0, 0)

    def after(self, slot: int) -> Position:
        """Where the constant after the slot of that index ends."""
        return self.slots[slot + 1][1] if slot + 1 < len(self.slots) else self.end


def lay_out(parts: Iterable[Part]) -> Layout:
    """The layout of `parts`."""
    pieces: list[str | Slot] = []
    slots: list[tuple[int, Position, Position]] = []
    marks: list[tuple[Mark, Position]] = []
    constant: list[str] = []  # of the piece that is being written
    length = 0

    def close() -> None:
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
        elif part.empty:
            slots.append((part.ordinal, (len(pieces), length), (len(pieces), length)))
        else:
            close()
            slots.append((part.ordinal, (len(pieces), 0), (len(pieces) + 1, 0)))
            pieces.append(part)
    close()
    return Layout(tuple(pieces), tuple(slots), tuple(marks))
