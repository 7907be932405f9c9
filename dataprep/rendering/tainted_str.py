"""A string type that records the author of each character: the template, or one of the messages.

A template that inspects contents receives them as `TaintedStr`. These are real strings, so the template finds what it
looks for, and their origins survive the operations that templates use. The result of any other operation has an
unknown origin (`UNKNOWN`); a special token in such text is refused instead of being attributed by guesswork.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from string import Formatter
from typing import Any, SupportsIndex

from dataprep.rendering.layout import TOOLS_ORIGIN, UNKNOWN_ORIGIN, ContentKind, Field, Mark, Part, Slot

TEMPLATE, UNKNOWN, TOOLS = "\0", "\1", "\2"  # origins, one character each; those of messages follow
_FIRST_MESSAGE = 3
# A marker between two characters, at an index: the origin of a content that is empty there, or a mark.
Hole = tuple[int, str | Mark]


def message_origin(ordinal: int, field: Field = Field.CONTENT) -> str:
    """The origin of text that stands in a field of the message with that index."""
    return chr(_FIRST_MESSAGE + ordinal * len(Field) + field)


class TaintedStr(str):
    """A string with the origin of each character, and with holes between characters."""

    origin: str  # as long as the string
    holes: tuple[Hole, ...]

    def __new__(cls, text: str, origin: str, holes: Iterable[Hole] = ()) -> TaintedStr:
        new = super().__new__(cls, text)
        new.origin = origin
        new.holes = tuple(holes)
        return new

    @classmethod
    def content(cls, text: str, ordinal: int) -> TaintedStr:
        """The content of the message with that index."""
        origin = message_origin(ordinal)
        return cls(text, origin * len(text), () if text else ((0, origin),))

    @classmethod
    def of(cls, text: str) -> TaintedStr:
        """`text` itself if it is tainted, otherwise a copy with the template as its author."""
        return text if isinstance(text, TaintedStr) else cls(text, TEMPLATE * len(text))

    @classmethod
    def concat(cls, texts: Iterable[str]) -> TaintedStr:
        """The concatenation of `texts`."""
        tainted = [cls.of(text) for text in texts]
        holes: list[Hole] = []
        length = 0
        for text in tainted:
            holes += ((index + length, hole) for index, hole in text.holes)
            length += len(text)
        return cls("".join(tainted), "".join(text.origin for text in tainted), holes)

    def origins(self) -> list[str]:
        """The distinct origins of the characters and holes."""
        return list(dict.fromkeys((*self.origin, *(hole for _, hole in self.holes if isinstance(hole, str)))))

    def part(self, start: int, end: int) -> TaintedStr:
        """The characters from `start` to `end`; an empty part keeps a hole for each content of the whole string."""
        holes = [(index - start, hole) for index, hole in self.holes if start <= index <= end]
        if start == end:
            holes = [(0, hole) for _, hole in self.holes] + [(0, origin) for origin in _contents(self.origin)]
        return TaintedStr(str.__getitem__(self, slice(start, end)), self.origin[start:end], holes)

    def stripped(self, start: int, end: int) -> TaintedStr:
        """Like `part`, but marks and contents that are cut off completely leave holes at the edge."""
        if start == end:
            return self.part(start, end)
        kept = self.origin[start:end]
        holes: list[Hole] = [(0, origin) for origin in _contents(self.origin[:start]) if origin not in kept]
        holes += [(min(max(index, start), end) - start, hole) for index, hole in self.holes]
        holes += [(end - start, origin) for origin in _contents(self.origin[end:]) if origin not in kept]
        return TaintedStr(str.__getitem__(self, slice(start, end)), kept, holes)

    def __getitem__(self, key: SupportsIndex | slice) -> TaintedStr:
        if isinstance(key, slice) and key.step in (None, 1):
            start, end, _ = key.indices(len(self))
            return self.part(start, max(start, end))
        return TaintedStr(str.__getitem__(self, key), self.origin[key], () if self else self.holes)

    def __iter__(self) -> Iterator[TaintedStr]:
        return (self[index] for index in range(len(self)))

    def __add__(self, other: Any) -> TaintedStr:
        return TaintedStr.concat((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: Any) -> TaintedStr:
        return TaintedStr.concat((other, self)) if isinstance(other, str) else NotImplemented

    def __mul__(self, count: SupportsIndex) -> TaintedStr:
        return TaintedStr.concat([self] * count.__index__())

    __rmul__ = __mul__

    def strip(self, chars: str | None = None) -> TaintedStr:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: str | None = None) -> TaintedStr:
        return self.stripped(len(self) - len(str.lstrip(self, chars)), len(self))

    def rstrip(self, chars: str | None = None) -> TaintedStr:
        return self.stripped(0, len(str.rstrip(self, chars)))

    def removeprefix(self, prefix: str) -> TaintedStr:
        return self.stripped(len(self) - len(str.removeprefix(self, prefix)), len(self))

    def removesuffix(self, suffix: str) -> TaintedStr:
        return self.stripped(0, len(str.removesuffix(self, suffix)))

    def _find_parts(self, texts: Sequence[str]) -> list[TaintedStr]:
        """The parts equal to `texts`, in order, each at its first occurrence after the one before."""
        parts, index = [], 0
        for text in texts:
            index = str.index(self, text, index)
            parts.append(self.part(index, index + len(text)))
            index += len(text)
        return parts

    def _cut_parts(self, texts: Sequence[str], gap: int) -> list[TaintedStr]:
        """The parts equal to `texts`, which lie here in order with `gap` characters between them."""
        parts, index = [], 0
        for text in texts:
            parts.append(self.part(index, index + len(text)))
            index += len(text) + gap
        return parts

    def split(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[TaintedStr]:  # type: ignore[override]
        texts = str.split(self, sep, maxsplit)
        return self._find_parts(texts) if sep is None else self._cut_parts(texts, len(sep))

    def rsplit(self, sep: str | None = None, maxsplit: SupportsIndex = -1) -> list[TaintedStr]:  # type: ignore[override]
        texts = str.rsplit(self, sep, maxsplit)
        return self._find_parts(texts) if sep is None else self._cut_parts(texts, len(sep))

    def splitlines(self, keepends: bool = False) -> list[TaintedStr]:  # type: ignore[override]
        lines = self._cut_parts(str.splitlines(self, True), 0)
        return [line.part(0, len(text)) for line, text in zip(lines, str.splitlines(self, keepends), strict=True)]

    def partition(self, sep: str) -> tuple[TaintedStr, TaintedStr, TaintedStr]:
        return tuple(self._cut_parts(str.partition(self, sep), 0))  # type: ignore[return-value]

    def rpartition(self, sep: str) -> tuple[TaintedStr, TaintedStr, TaintedStr]:
        return tuple(self._cut_parts(str.rpartition(self, sep), 0))  # type: ignore[return-value]

    def join(self, items: Iterable[str]) -> TaintedStr:
        texts = list(items)
        str.join(self, texts)  # raises the errors of a plain string
        return TaintedStr.concat(
            part for index, text in enumerate(texts) for part in ((self, text) if index else (text,))
        )

    def replace(self, old: str, new: str, count: SupportsIndex = -1) -> TaintedStr:
        if not old:
            return TaintedStr(str.replace(self, old, new, count), "").derived_from((self, new))
        return TaintedStr.of(new).join(self.split(old, count))

    def formatted(self, args: Sequence[Any], kwargs: Mapping[str, Any], text: str) -> TaintedStr:
        """Add origins to `text`, the result of `format`; they are exact for bare fields: `{}`, `{0}`, `{name}`."""
        parts: list[str] = []
        positional = iter(args)
        for literal, field, spec, conversion in Formatter().parse(self):
            parts.append(literal)
            if spec or conversion or not re.fullmatch(r"\w*", field or "") or _contents(self.origin):
                return TaintedStr(text, "").derived_from((self, *args, *kwargs.values()))
            if field is not None:
                value = next(positional) if not field else args[int(field)] if field.isdigit() else kwargs[field]
                parts.append(value if isinstance(value, str) else str(value))
        return TaintedStr.concat(parts)

    def __mod__(self, values: Any) -> TaintedStr:
        """Format with `%`; the origins are exact for `%s`."""
        text = str.__mod__(self, values)
        literals = re.split("%s", self)
        arguments = values if isinstance(values, tuple) else (values,)
        only_s = not any("%" in literal for literal in literals) and len(literals) == len(arguments) + 1
        if not only_s or _contents(self.origin):
            return TaintedStr(text, "").derived_from((self, *arguments))
        texts = [value if isinstance(value, str) else str(value) for value in arguments]
        return TaintedStr.concat(part for pair in zip(literals, (*texts, ""), strict=True) for part in pair)

    def derived_from(self, sources: Iterable[Any]) -> TaintedStr:
        """Attribute this text, which an untracked operation computed from `sources`.

        It belongs to a message if all tainted sources belong to that message and no other source is longer than one
        character, so that no special token can come from elsewhere. Otherwise its origin is unknown.
        """
        texts = list(strings_in(sources))
        origins = {origin for text in texts if isinstance(text, TaintedStr) for origin in text.origins()}
        has_other_text = any(len(text) > 1 for text in texts if not isinstance(text, TaintedStr))
        origin = origins.pop() if len(origins) == 1 and not has_other_text else UNKNOWN
        return TaintedStr(str(self), origin * len(self), [(0, origin) for origin in _contents(origin) if not self])


def _contents(origins: str) -> list[str]:
    """The distinct origins in `origins` other than the template, in order."""
    return [origin for origin in dict.fromkeys(origins) if origin != TEMPLATE]


def strings_in(values: Iterable[Any]) -> Iterator[str]:
    """All strings in `values` and in the lists, tuples and mappings (keys and values) among them."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            yield from strings_in(value.keys())
            yield from strings_in(value.values())
        elif isinstance(value, list | tuple):
            yield from strings_in(value)


def _derived(method: Callable[..., str]) -> Callable[[TaintedStr], TaintedStr]:
    """Wrap a string method whose result has the origin of the whole string."""

    def derived(self: TaintedStr, *args: Any, **kwargs: Any) -> TaintedStr:
        return TaintedStr(method(self, *args, **kwargs), "").derived_from((self, *args, *kwargs.values()))

    return derived


for _name in (
    *("upper", "lower", "title", "capitalize", "casefold", "swapcase", "expandtabs", "translate"),
    *("center", "ljust", "rjust", "zfill"),
):
    setattr(TaintedStr, _name, _derived(getattr(str, _name)))


def parts_of(text: TaintedStr) -> list[Part]:
    """The parts of a layout: the template's text as strings, other text as slots of known length, and marks."""
    holes = deque(sorted(text.holes, key=lambda hole: hole[0]))
    borders = sorted({index for index, _ in holes})
    parts: list[Part] = []
    for run in re.finditer(r"(.)\1*", text.origin, re.DOTALL):
        inside = borders[bisect_right(borders, run.start()) : bisect_left(borders, run.end())]
        cuts = [run.start(), *inside, run.end()]
        for start, end in zip(cuts, cuts[1:], strict=False):
            while holes and holes[0][0] <= start:
                parts.append(_part_of_hole(holes.popleft()[1]))
            parts.append(str.__getitem__(text, slice(start, end)) if run[1] == TEMPLATE else _slot(run[1], end - start))
    return parts + [_part_of_hole(hole) for _, hole in holes]


def _slot(origin: str, length: int, kind: ContentKind = ContentKind.NORMAL) -> Slot:
    if origin in (UNKNOWN, TOOLS):
        return Slot(UNKNOWN_ORIGIN if origin == UNKNOWN else TOOLS_ORIGIN, kind, length=length)
    ordinal, field = divmod(ord(origin) - _FIRST_MESSAGE, len(Field))
    return Slot(ordinal, kind, length=length, field=Field(field))


def _part_of_hole(hole: str | Mark) -> Part:
    return hole if isinstance(hole, Mark) else _slot(hole, 0, ContentKind.EMPTY)


def taint(value: Any, origin: str) -> Any:
    """Mark all strings in a JSON value, including keys, as written by `origin`."""
    if isinstance(value, str):
        return TaintedStr(value, origin * len(value))
    if isinstance(value, Mapping):
        return {taint(key, origin): taint(item, origin) for key, item in value.items()}
    return [taint(item, origin) for item in value] if isinstance(value, list | tuple) else value


def taint_json(value: Any, text: str, sort_keys: bool) -> TaintedStr:
    """Add origins to `text`, the JSON of `value`: each string literal has the origin of its string."""
    origin = [TEMPLATE] * len(text)
    position = 0
    for string in _strings_in_json(value, sort_keys):
        start = text.index('"', position)  # only punctuation, numbers and names come before the next literal
        position = _literal_end(text, start)
        origins = string.origins() if isinstance(string, TaintedStr) else [TEMPLATE]
        author = origins[0] if len(origins) == 1 else UNKNOWN if origins else TEMPLATE
        origin[start:position] = author * (position - start)
    return TaintedStr(text, "".join(origin))


def _strings_in_json(value: Any, sort_keys: bool) -> Iterator[str]:
    """The strings of a JSON value in the order in which `json.dumps` writes them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, item in sorted(value.items()) if sort_keys else value.items():
            yield key if isinstance(key, str) else ""  # other keys become literals, too
            yield from _strings_in_json(item, sort_keys)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _strings_in_json(item, sort_keys)


_LITERAL = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)


def _literal_end(text: str, start: int) -> int:
    match = _LITERAL.match(text, start)
    assert match is not None
    return match.end()
