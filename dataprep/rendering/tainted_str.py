"""Strings that remember who wrote each of their characters: the template, or which message.

A template that looks into its contents gets them as `Traced`: real strings, so that it finds there what it looks for,
whose pieces keep their origin through everything a template commonly does. Where an operation is not known here,
its result is of unknown origin (`UNSURE`), and a special token found in such text is refused rather than guessed at.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any, SupportsIndex

from dataprep.rendering.layout import Kind, Mark, Part, Slot

TEMPLATE, UNSURE = "\0", "\1"  # origins; message n is chr(n + 2)
Hole = tuple[int, str | Mark]  # a place between characters: of an empty content (its origin), or of a mark


def message_origin(ordinal: int) -> str:
    return chr(ordinal + 2)


class Traced(str):
    """A string with the origin of each character, and with holes."""

    origin: str  # as long as the string
    holes: tuple[Hole, ...]

    def __new__(cls, text: str, origin: str, holes: Iterable[Hole] = ()) -> Traced:
        new = super().__new__(cls, text)
        new.origin = origin
        new.holes = tuple(holes)
        return new

    @classmethod
    def content(cls, text: str, ordinal: int) -> Traced:
        """A message's content."""
        origin = message_origin(ordinal)
        return cls(text, origin * len(text), () if text else ((0, origin),))

    @classmethod
    def of(cls, text: str) -> Traced:
        """`text` itself where it is traced, else as the template's own."""
        return text if isinstance(text, Traced) else cls(text, TEMPLATE * len(text))

    @classmethod
    def concat(cls, pieces: Iterable[str]) -> Traced:
        """All `pieces`, one after the other."""
        traced = [cls.of(piece) for piece in pieces]
        holes: list[Hole] = []
        length = 0
        for piece in traced:
            holes += ((place + length, hole) for place, hole in piece.holes)
            length += len(piece)
        return cls("".join(traced), "".join(piece.origin for piece in traced), holes)

    def origins(self) -> list[str]:
        """Every origin in the string or its holes, once."""
        return list(dict.fromkeys((*self.origin, *(hole for _, hole in self.holes if isinstance(hole, str)))))

    def part(self, start: int, end: int) -> Traced:
        """Characters from `start` to `end`; where none are left, a hole for each content that stood here."""
        holes = [(place - start, hole) for place, hole in self.holes if start <= place <= end]
        if start == end:
            holes = [(0, hole) for _, hole in self.holes] + [(0, origin) for origin in _messages(self.origin)]
        return Traced(str.__getitem__(self, slice(start, end)), self.origin[start:end], holes)

    def stripped(self, start: int, end: int) -> Traced:
        """Like `part`, but marks and contents that are cut off whole leave holes at the edge."""
        if start == end:
            return self.part(start, end)
        kept = self.origin[start:end]
        holes: list[Hole] = [(0, origin) for origin in _messages(self.origin[:start]) if origin not in kept]
        holes += [(min(max(place, start), end) - start, hole) for place, hole in self.holes]
        holes += [(end - start, origin) for origin in _messages(self.origin[end:]) if origin not in kept]
        return Traced(str.__getitem__(self, slice(start, end)), kept, holes)

    def __getitem__(self, key: SupportsIndex | slice) -> Traced:
        if isinstance(key, slice) and key.step in (None, 1):
            start, end, _ = key.indices(len(self))
            return self.part(start, max(start, end))
        return Traced(str.__getitem__(self, key), self.origin[key], () if self else self.holes)

    def __iter__(self) -> Iterator[Traced]:
        return (self[place] for place in range(len(self)))

    def __add__(self, other: Any) -> Traced:
        return Traced.concat((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any) -> Traced:
        return Traced.concat((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, count: SupportsIndex) -> Traced:
        return Traced.concat([self] * count.__index__())

    __rmul__ = __mul__

    def strip(self, chars: str | None = None) -> Traced:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> Traced:
        return self.stripped(len(self) - len(str.lstrip(self, chars)), len(self))

    def rstrip(self, chars: str | None = None) -> Traced:
        return self.stripped(0, len(str.rstrip(self, chars)))

    def removeprefix(self, prefix: str) -> Traced:
        return self.stripped(len(self) - len(str.removeprefix(self, prefix)), len(self))

    def removesuffix(self, suffix: str) -> Traced:
        return self.stripped(0, len(str.removesuffix(self, suffix)))

    def _parts(self, texts: Sequence[str]) -> list[Traced]:
        """`texts`, found here in their order, each as early as can be."""
        found, place = [], 0
        for text in texts:
            place = str.index(self, text, place)
            found.append(self.part(place, place + len(text)))
            place += len(text)
        return found

    def _parted(self, texts: Sequence[str], gap: int) -> list[Traced]:
        """`texts`, found here in their order with `gap` characters between them."""
        found, place = [], 0
        for text in texts:
            found.append(self.part(place, place + len(text)))
            place += len(text) + gap
        return found

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Traced]:  # type: ignore[override]
        texts = str.split(self, sep, maxsplit)
        return self._parts(texts) if sep is None else self._parted(texts, len(sep))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[Traced]:  # type: ignore[override]
        texts = str.rsplit(self, sep, maxsplit)
        return self._parts(texts) if sep is None else self._parted(texts, len(sep))

    def splitlines(self, keepends: bool = False) -> list[Traced]:  # type: ignore[override]
        lines = self._parted(str.splitlines(self, True), 0)
        return [line.part(0, len(text)) for line, text in zip(lines, str.splitlines(self, keepends), strict=True)]

    def partition(self, sep: str) -> tuple[Traced, Traced, Traced]:
        return tuple(self._parted(str.partition(self, sep), 0))  # type: ignore[return-value]

    def rpartition(self, sep: str) -> tuple[Traced, Traced, Traced]:
        return tuple(self._parted(str.rpartition(self, sep), 0))  # type: ignore[return-value]

    def join(self, items: Iterable[str]) -> Traced:
        listed = list(items)
        str.join(self, listed)  # raises what a string raises
        return Traced.concat(text for at, item in enumerate(listed) for text in ((self, item) if at else (item,)))

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> Traced:
        if not old:
            return Traced(str.replace(self, old, new, count), "").made_from((self, new))
        return Traced.of(new).join(self.split(old, count))

    def formatted(self, args: Sequence[Any], kwargs: Mapping[str, Any], text: str) -> Traced:
        """`text`, which `format` made of this; exact for bare fields: `{}`, `{0}`, `{name}`."""
        pieces: list[str] = []
        counted = iter(args)
        for literal, field, spec, conversion in Formatter().parse(self):
            pieces.append(literal)
            if spec or conversion or not re.fullmatch(r"\w*", field or "") or _messages(self.origin):
                return Traced(text, "").made_from((self, *args, *kwargs.values()))
            if field is not None:
                value = next(counted) if not field else args[int(field)] if field.isdigit() else kwargs[field]
                pieces.append(value if isinstance(value, str) else str(value))
        return Traced.concat(pieces)

    def __mod__(self, values: Any) -> Traced:
        """Exact for `%s`."""
        text = str.__mod__(self, values)
        literals = re.split("%s", self)
        given = values if isinstance(values, tuple) else (values,)
        if any("%" in literal for literal in literals) or len(literals) != len(given) + 1 or _messages(self.origin):
            return Traced(text, "").made_from((self, *given))
        texts = [value if isinstance(value, str) else str(value) for value in given]
        return Traced.concat(text for pair in zip(literals, (*texts, ""), strict=True) for text in pair)

    def made_from(self, sources: Iterable[Any]) -> Traced:
        """This text, made from `sources` in a way not known here.

        It is a message's own where all that was traced is of that message and nothing longer than a character was
        given besides, so that no special token can have come from elsewhere.
        """
        texts = list(strings(sources))
        origins = {origin for text in texts if isinstance(text, Traced) for origin in text.origins()}
        given = any(len(text) > 1 for text in texts if not isinstance(text, Traced))
        origin = origins.pop() if len(origins) == 1 and not given else UNSURE
        return Traced(str(self), origin * len(self), [(0, origin) for origin in _messages(origin) if not self])


def _messages(origin: str) -> list[str]:
    """The messages' (and unsure) origins in `origin`, each once, in their order."""
    return [one for one in dict.fromkeys(origin) if one != TEMPLATE]


def strings(values: Iterable[Any]) -> Iterator[str]:
    """All strings in `values`, and in the lists, tuples and mappings among them."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from strings(value.values())
        elif isinstance(value, list | tuple):
            yield from strings(value)


def _case(method: Callable[..., str]) -> Callable[[Traced], Traced]:
    """A method without arguments whose result is all of this string's origin."""

    def changed(self: Traced, *args: Any, **kwargs: Any) -> Traced:
        return Traced(method(self, *args, **kwargs), "").made_from((self, *args, *kwargs.values()))

    return changed


for _name in (
    *("upper", "lower", "title", "capitalize", "casefold", "swapcase", "expandtabs", "translate"),
    *("center", "ljust", "rjust", "zfill"),
):
    setattr(Traced, _name, _case(getattr(str, _name)))


def parts_of(text: Traced) -> list[Part]:
    """What the template wrote as strings, the rest as slots of known length, and marks."""
    holes = deque(sorted(text.holes, key=lambda hole: hole[0]))
    borders = sorted({place for place, _ in holes})
    parts: list[Part] = []
    for run in re.finditer(r"(.)\1*", text.origin, re.DOTALL):
        inside = borders[bisect_right(borders, run.start()) : bisect_left(borders, run.end())]
        cuts = [run.start(), *inside, run.end()]
        for start, end in zip(cuts, cuts[1:], strict=False):
            while holes and holes[0][0] <= start:
                parts.append(_hole(holes.popleft()[1]))
            parts.append(str.__getitem__(text, slice(start, end)) if run[1] == TEMPLATE else _slot(run[1], end - start))
    return parts + [_hole(hole) for _, hole in holes]


def _slot(origin: str, length: int) -> Slot:
    return Slot(ord(origin) - 2, length=length)


def _hole(hole: str | Mark) -> Part:
    return hole if isinstance(hole, Mark) else Slot(ord(hole) - 2, Kind.EMPTY)
