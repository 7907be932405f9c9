"""Running a template on symbols: contents that are not there yet.

A `Rope` stands where a content would; it can be joined, stripped, asked whether it is empty, and written out, and
nothing else. It is no `str`, so that not even C code can look into it: whatever else a template asks of its words
raises `LooksInside`, and the template is then rendered row by row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

from jinja2 import Template as Program
from jinja2.runtime import Context, Macro, Undefined

from dataprep.rendering.layout import LEFT, RIGHT, Kind, Layout, Mark, Part, Slot, lay_out
from dataprep.rendering.sandbox import COUNTED, TemplateNamespace, TrackingEnvironment, counted

Shape = tuple[tuple[str, Kind], ...]  # a conversation without its words: each message's role and kind of content


class LooksInside(Exception):
    """The template asks for something that only a real content can answer; the message says what."""


class Rope:
    """Text with holes: constants, slots for contents, and marks."""

    __slots__ = ("parts",)

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = tuple(parts)

    def __bool__(self) -> bool:
        return any(_has_text(part) for part in self.parts)

    def __add__(self, other: Any) -> Rope:
        return Rope((*self.parts, *_parts(other))) if isinstance(other, str | Rope) else NotImplemented

    def __radd__(self, other: Any) -> Rope:
        return Rope((other, *self.parts)) if isinstance(other, str) else NotImplemented

    def __eq__(self, other: object) -> bool:
        # What is no text is never equal, and what is empty is known: `content != false`, `content == ""`.
        if not isinstance(other, str | Rope):
            return NotImplemented
        if self and other:
            raise LooksInside("uses `==` on a content")
        return bool(self) == bool(other)

    def strip(self, chars: Any = None) -> Rope:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: Any = None) -> Rope:
        _refuse_characters(chars)
        return Rope(_stripped(self.parts, LEFT))

    def rstrip(self, chars: Any = None) -> Rope:
        _refuse_characters(chars)
        return Rope(reversed(_stripped(self.parts[::-1], RIGHT)))


def _parts(value: str | Rope) -> tuple[Part, ...]:
    return value.parts if isinstance(value, Rope) else (value,)


def _has_text(part: Part) -> bool:
    return bool(part) if isinstance(part, str) else isinstance(part, Slot) and not part.empty


def _refuse_characters(chars: Any) -> None:
    if chars is not None:
        raise LooksInside("strips other characters than white space from a content")


def _stripped(parts: Sequence[Part], side: int) -> list[Part]:
    """`parts`, of which the first is the outermost, without white space on that side.

    What comes out empty stays in its place, as a slot without text: an answer without words is trained, too.
    """
    left: list[Part] = []
    for at, part in enumerate(parts):
        if isinstance(part, str):
            part = part.lstrip() if side == LEFT else part.rstrip()
        elif isinstance(part, Slot):
            part = Slot(part.ordinal, part.kind, part.cut | side)
        left.append(part)
        if _has_text(part):
            return left + list(parts[at + 1 :])
    return left


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any) -> NoReturn:
        raise LooksInside(f"uses {_OPERATIONS.get(name, name)} on a content")

    return refuse


_OPERATIONS = {
    "__str__": "a function that reads text",
    "__repr__": "a function that reads text",
    "__format__": "formatting",
    "__len__": "length",
    "__iter__": "a loop over characters",
    "__contains__": "`in`",
    "__getitem__": "indexing",
    "__lt__": "`<`",
    "__le__": "`<=`",
    "__gt__": "`>`",
    "__ge__": "`>=`",
    "__hash__": "a look-up",
    "__mul__": "`*`",
    "__rmul__": "`*`",
}
for _name in _OPERATIONS:
    setattr(Rope, _name, _refusing(_name))

# What every string answers to these tests.
_TESTS: dict[str, bool] = {
    **dict.fromkeys(("string", "defined", "iterable", "sequence"), True),
    **dict.fromkeys(("undefined", "none", "mapping", "number", "integer", "float", "boolean"), False),
    **dict.fromkeys(("true", "false", "callable"), False),
}


class SymbolicEnvironment(TrackingEnvironment):
    """The language of chat templates over ropes."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = {name: _guarded(f"the filter `{name}`", apply) for name, apply in self.filters.items()}
        comparisons = ("eq", "equalto", "==", "ne", "!=")  # a rope answers them itself, or refuses
        tests: dict[str, Any] = {name: test for name, test in self.tests.items() if name not in comparisons}
        self.tests |= {name: _guarded(f"the test `{name}`", test, _TESTS.get(name)) for name, test in tests.items()}
        self.filters |= {"trim": _trim, "string": self.keep, "default": _default, "d": _default, COUNTED: counted}

    def keep(self, value: Any) -> str | Rope:
        return value if isinstance(value, Rope) else str(value)

    def _concat(self, values: Iterable[Any]) -> str | Rope:
        pieces = list(values)
        if any(isinstance(piece, Rope) for piece in pieces):
            return Rope(part for piece in pieces for part in _parts(piece))
        return "".join(pieces)

    def generation(self, text: Any) -> Rope:
        return Rope((Mark.START, *_parts(text), Mark.END))

    def getattr(self, obj: Any, attribute: str) -> Any:
        if not isinstance(obj, Rope):
            return super().getattr(obj, attribute)
        if attribute in ("strip", "lstrip", "rstrip"):
            return getattr(obj, attribute)
        if hasattr(str, attribute):
            raise LooksInside(f"uses .{attribute} of a content")
        return self.undefined(obj="", name=attribute)  # as of any string

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, Rope) and isinstance(argument, str):
            return self.getattr(obj, argument)
        if isinstance(obj, Rope) or isinstance(argument, Rope):
            raise LooksInside("uses indexing on a content")
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        passes_on = isinstance(__obj, Macro) or __obj is TemplateNamespace or __obj is dict
        if not passes_on and not isinstance(getattr(__obj, "__self__", None), Rope):
            _refuse_ropes(f"the function `{getattr(__obj, '__name__', __obj)}`", (*args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _refuse_ropes(f"`{operator}`", (left, right))
        return super().call_binop(context, operator, left, right)


def _refuse_ropes(what: str, values: Iterable[Any]) -> None:
    if any(isinstance(value, Rope) for value in values):
        raise LooksInside(f"uses {what} on a content")


def _guarded(what: str, function: Callable[..., Any], answer: bool | None = None) -> Callable[..., Any]:
    """`function`, which gives `answer`, or refuses where there is none, when a rope is handed to it."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if answer is not None and len(args) == 1 and isinstance(args[0], Rope):
            return answer
        _refuse_ropes(what, (*args, *kwargs.values()))
        return function(*args, **kwargs)

    return guarded


def _trim(value: Any, chars: Any = None) -> str | Rope:
    text = value if isinstance(value, Rope) else str(value)
    return text.strip(chars)


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    return default_value if isinstance(value, Undefined) or (boolean and not value) else value


@functools.lru_cache(maxsize=64)
def _program(source: str) -> Program:
    return SymbolicEnvironment().from_string(source)


def run_symbolically(source: str, shape: Shape, variables: Mapping[str, Any]) -> Layout:
    """What the template writes for every conversation of `shape`.

    Raises:
        LooksInside: that depends on the words.
        Exception: whatever Jinja raises; a refusal is a `jinja2.TemplateError`.
    """
    program = _program(source)
    messages = [{"role": role, "content": Rope([Slot(ordinal, kind)])} for ordinal, (role, kind) in enumerate(shape)]
    written = list(program.root_render_func(program.new_context({"messages": messages, **variables})))
    return lay_out(part for piece in written for part in _parts(piece))
