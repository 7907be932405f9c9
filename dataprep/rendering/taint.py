"""Running a template on traced strings: the same text as plain Jinja gives, and who wrote which part of it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jinja2 import Template as Program
from jinja2.runtime import Context

from dataprep.rendering.layout import Layout, Mark, lay_out
from dataprep.rendering.sandbox import TrackingEnvironment
from dataprep.rendering.tainted_str import Traced, parts_of, strings

# Filters that hand on what they got, or call methods that `Traced` has.
_EXACT = {
    *("trim", "upper", "lower", "capitalize", "default", "d", "first", "last", "list", "attr", "map", "items"),
    *("select", "selectattr", "reject", "rejectattr", "groupby", "unique", "sort", "dictsort", "batch", "slice"),
    *("reverse", "min", "max", "sum"),
}


class TracedEnvironment(TrackingEnvironment):
    """The language of chat templates over traced strings."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = {name: apply if name in _EXACT else _distrusted(apply) for name, apply in self.filters.items()}
        self.filters |= {"string": self.keep, "join": self._join, "replace": _replace, "format": _format}

    def keep(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        text = str(value)
        return _unsure(text, [value]) if isinstance(value, list | tuple | dict) else text

    def _concat(self, values: Iterable[Any]) -> Traced:
        return Traced.concat(values)

    def generation(self, text: str) -> Traced:
        start, end = Traced("", "", [(0, Mark.START)]), Traced("", "", [(0, Mark.END)])
        return Traced.concat((start, text, end))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        # A method of one of the template's own strings, given contents: the same method, traced.
        receiver = getattr(__obj, "__self__", None)
        if type(receiver) is str and any(isinstance(text, Traced) for text in strings((*args, *kwargs.values()))):
            __obj = getattr(Traced.of(receiver), __obj.__name__)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return super().call_binop(context, operator, Traced.of(left) if isinstance(left, str) else left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        receiver = getattr(value, "__self__", None)
        if not isinstance(receiver, str) or getattr(value, "__name__", "") not in ("format", "format_map"):
            return None
        plain = super().wrap_str_format(getattr(str(receiver), value.__name__))
        assert plain is not None

        def formatted(*args: Any, **kwargs: Any) -> Traced:
            text = plain(*args, **kwargs)
            mapped = dict(args[0]) if value.__name__ == "format_map" else None
            return Traced.of(receiver).formatted(() if mapped else args, mapped or kwargs, text)

        return formatted

    def _join(self, value: Iterable[Any], d: str = "", attribute: Any = None) -> Traced:
        """Jinja's `join`, which would turn all it is given into plain strings."""
        if attribute is not None:
            value = (self.getitem(item, attribute) for item in value)
        return Traced.of(d).join([self.keep(item) for item in value])


def _distrusted(apply: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose text is of unsure origin wherever contents went in."""

    @functools.wraps(apply)
    def distrusted(*args: Any, **kwargs: Any) -> Any:
        found = apply(*args, **kwargs)
        return _unsure(found, (*args, *kwargs.values())) if isinstance(found, str) else found

    return distrusted


def _unsure(text: str, sources: Sequence[Any]) -> str:
    made_of = list(strings(sources))
    if any(text is source for source in made_of) or not any(isinstance(source, Traced) for source in made_of):
        return text
    return Traced(str(text), "").made_from(sources)


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> Traced:
    text = value if isinstance(value, str) else str(value)
    new = new if isinstance(new, str) else str(new)
    return Traced.of(text).replace(str(old), new, -1 if count is None else count)


def _format(value: Any, *args: Any, **kwargs: Any) -> Traced:
    return Traced.of(value if isinstance(value, str) else str(value)) % (kwargs or args)


@functools.lru_cache(maxsize=64)
def _program(source: str) -> Program:
    return TracedEnvironment().from_string(source)


def run_traced(source: str, messages: Sequence[Mapping[str, Any]], variables: Mapping[str, Any]) -> tuple[str, Layout]:
    """The text of one conversation, and its layout.

    Raises:
        Exception: whatever Jinja raises.
    """
    program = _program(source)
    traced = [
        {**message, "content": Traced.content(message["content"], ordinal)} for ordinal, message in enumerate(messages)
    ]
    text = Traced.concat(program.root_render_func(program.new_context({"messages": traced, **variables})))
    return str(text), lay_out(parts_of(text))
