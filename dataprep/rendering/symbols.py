"""Runs a template on placeholders instead of contents, once for all conversations of a shape.

A `SymbolicText` takes the place of each content. It can be joined, stripped, tested for being empty, and written out.
It is not a `str`, so not even C code can read it. Every other operation raises `ContentInspected`, and the template is
then rendered row by row.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, NoReturn

from jinja2 import Template as Program
from jinja2.runtime import Context, Macro, Undefined

from dataprep.rendering.layout import LEFT, RIGHT, ContentKind, Layout, Mark, Part, Slot, build_layout
from dataprep.rendering.sandbox import TemplateNamespace, TrackingEnvironment
from dataprep.rendering.spans import Turn
from dataprep.rendering.template import Conversation, Template, template_inputs


class MessageShape(NamedTuple):
    """A message without its content."""

    role: str
    kind: ContentKind
    trained: bool = True

    @property
    def turn(self) -> Turn:
        return Turn(self.role, self.trained)


Shape = tuple[MessageShape, ...]  # a conversation without its contents


class ContentInspected(Exception):
    """The template needs to know a content; the message names the operation."""


class SymbolicText:
    """Text with unknown parts: constants, slots for contents, and marks."""

    __slots__ = ("parts",)

    def __init__(self, parts: Iterable[Part]) -> None:
        self.parts = tuple(parts)

    def __bool__(self) -> bool:
        return any(_has_text(part) for part in self.parts)

    def __add__(self, other: Any) -> SymbolicText:
        return SymbolicText((*self.parts, *_parts(other))) if isinstance(other, str | SymbolicText) else NotImplemented

    def __radd__(self, other: Any) -> SymbolicText:
        return SymbolicText((other, *self.parts)) if isinstance(other, str) else NotImplemented

    def __eq__(self, other: object) -> bool:
        # Two answers are known: text never equals another type (`content != false`), and emptiness (`content == ""`).
        if not isinstance(other, str | SymbolicText):
            return NotImplemented
        if self and other:
            raise ContentInspected("uses `==` on a content")
        return bool(self) == bool(other)

    def strip(self, chars: Any = None) -> SymbolicText:
        return self.lstrip(chars).rstrip(chars)

    def lstrip(self, chars: Any = None) -> SymbolicText:
        _refuse_characters(chars)
        return SymbolicText(_stripped(self.parts, LEFT))

    def rstrip(self, chars: Any = None) -> SymbolicText:
        _refuse_characters(chars)
        return SymbolicText(reversed(_stripped(self.parts[::-1], RIGHT)))


def _parts(value: str | SymbolicText) -> tuple[Part, ...]:
    return value.parts if isinstance(value, SymbolicText) else (value,)


def _has_text(part: Part) -> bool:
    return bool(part) if isinstance(part, str) else isinstance(part, Slot) and not part.is_empty


def _refuse_characters(chars: Any) -> None:
    if chars is not None:
        raise ContentInspected("strips characters other than white space from a content")


def _stripped(parts: Sequence[Part], side: int) -> list[Part]:
    """Remove white space on one side of `parts`, the first of which is the outermost.

    A slot that becomes empty stays in its place, because an answer without text is trained, too.
    """
    stripped: list[Part] = []
    for index, part in enumerate(parts):
        if isinstance(part, str):
            part = part.lstrip() if side == LEFT else part.rstrip()
        elif isinstance(part, Slot):
            part = Slot(part.ordinal, part.kind, part.strip_sides | side)
        stripped.append(part)
        if _has_text(part):
            return stripped + list(parts[index + 1 :])
    return stripped


def _refuse_operation(name: str) -> Callable[..., NoReturn]:
    def refuse(*_: Any) -> NoReturn:
        raise ContentInspected(f"uses {_OPERATIONS.get(name, name)} on a content")

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
    setattr(SymbolicText, _name, _refuse_operation(_name))

# Jinja's tests that have the same answer for every string.
_TESTS: dict[str, bool] = {
    **dict.fromkeys(("string", "defined", "iterable", "sequence"), True),
    **dict.fromkeys(("undefined", "none", "mapping", "number", "integer", "float", "boolean"), False),
    **dict.fromkeys(("true", "false", "callable"), False),
}


class SymbolicEnvironment(TrackingEnvironment):
    """The Jinja dialect of chat templates, evaluated on symbolic texts."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = {name: _guarded(f"the filter `{name}`", apply) for name, apply in self.filters.items()}
        comparisons = ("eq", "equalto", "==", "ne", "!=")  # SymbolicText answers or refuses these itself
        tests: dict[str, Any] = {name: test for name, test in self.tests.items() if name not in comparisons}
        self.tests |= {name: _guarded(f"the test `{name}`", test, _TESTS.get(name)) for name, test in tests.items()}
        self.filters |= {"trim": _trim, "string": self.keep, "default": _default, "d": _default}

    def keep(self, value: Any) -> str | SymbolicText:
        return value if isinstance(value, SymbolicText) else str(value)

    def _concat(self, values: Iterable[Any]) -> str | SymbolicText:
        texts = list(values)
        if any(isinstance(text, SymbolicText) for text in texts):
            return SymbolicText(part for text in texts for part in _parts(text))
        return "".join(texts)

    def generation(self, text: Any) -> SymbolicText:
        return SymbolicText((Mark.START, *_parts(text), Mark.END))

    def getattr(self, obj: Any, attribute: str) -> Any:
        if not isinstance(obj, SymbolicText):
            return super().getattr(obj, attribute)
        if attribute in ("strip", "lstrip", "rstrip"):
            return getattr(obj, attribute)
        if hasattr(str, attribute):
            raise ContentInspected(f"uses .{attribute} of a content")
        return self.undefined(obj="", name=attribute)  # as for any string

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(obj, SymbolicText) and isinstance(argument, str):
            return self.getattr(obj, argument)
        if isinstance(obj, SymbolicText) or isinstance(argument, SymbolicText):
            raise ContentInspected("uses indexing on a content")
        return super().getitem(obj, argument)

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        passes_arguments_on = isinstance(__obj, Macro) or __obj is TemplateNamespace or __obj is dict
        if not passes_arguments_on and not isinstance(getattr(__obj, "__self__", None), SymbolicText):
            _refuse_symbols(f"the function `{getattr(__obj, '__name__', __obj)}`", (*args, *kwargs.values()))
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _refuse_symbols(f"`{operator}`", (left, right))
        return super().call_binop(context, operator, left, right)


def _refuse_symbols(operation: str, values: Iterable[Any]) -> None:
    if any(isinstance(value, SymbolicText) for value in values):
        raise ContentInspected(f"uses {operation} on a content")


def _guarded(operation: str, function: Callable[..., Any], answer: bool | None = None) -> Callable[..., Any]:
    """Wrap `function` to return `answer` for a symbolic text, or to refuse it if there is no answer."""

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if answer is not None and len(args) == 1 and isinstance(args[0], SymbolicText):
            return answer
        _refuse_symbols(operation, (*args, *kwargs.values()))
        return function(*args, **kwargs)

    return guarded


def _trim(value: Any, chars: Any = None) -> str | SymbolicText:
    text = value if isinstance(value, SymbolicText) else str(value)
    return text.strip(chars)


def _default(value: Any, default_value: Any = "", boolean: bool = False) -> Any:
    return default_value if isinstance(value, Undefined) or (boolean and not value) else value


@functools.lru_cache(maxsize=64)
def _program(source: str) -> Program:
    return SymbolicEnvironment().from_string(source)


def render_symbolically(template: Template, shape: Shape, add_generation_prompt: bool) -> Layout:
    """The layout that the template writes for every conversation of `shape`.

    Raises:
        ContentInspected: the layout depends on the contents.
        Exception: anything that Jinja raises; a refusal by the template is a `jinja2.TemplateError`.
    """
    program = _program(template.source)
    messages = [
        {"role": message.role, "content": SymbolicText([Slot(ordinal, message.kind)])}
        for ordinal, message in enumerate(shape)
    ]
    context = program.new_context(template_inputs(template, Conversation(messages), add_generation_prompt))
    written = list(program.root_render_func(context))
    return build_layout(part for text in written for part in _parts(text))
