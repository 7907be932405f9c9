"""Runs a template on tainted strings: the same text as plain Jinja, plus the author of each of its characters."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jinja2 import Template as Program
from jinja2.runtime import Context

from dataprep.rendering.layout import Field, Layout, Mark, build_layout
from dataprep.rendering.sandbox import TrackingEnvironment, to_json
from dataprep.rendering.tainted_str import (
    TOOLS,
    TaintedStr,
    message_origin,
    parts_of,
    strings_in,
    taint,
    taint_json,
)
from dataprep.rendering.template import Conversation, Template, template_inputs

# Filters that return their input's elements unchanged, or that call methods which `TaintedStr` implements.
_TRACKED_FILTERS = {
    *("trim", "upper", "lower", "capitalize", "default", "d", "first", "last", "list", "attr", "map", "items"),
    *("select", "selectattr", "reject", "rejectattr", "groupby", "unique", "sort", "dictsort", "batch", "slice"),
    *("reverse", "min", "max", "sum"),
}


class TaintEnvironment(TrackingEnvironment):
    """The Jinja dialect of chat templates, evaluated on tainted strings."""

    def __init__(self) -> None:
        super().__init__()
        self.filters = {
            name: apply if name in _TRACKED_FILTERS else _untracked(apply) for name, apply in self.filters.items()
        }
        self.filters |= {"string": self.keep, "join": self._join, "replace": _replace, "format": _format}
        self.filters["tojson"] = _to_json

    def keep(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        text = str(value)
        return _tainted_result(text, [value]) if isinstance(value, list | tuple | dict) else text

    def _concat(self, values: Iterable[Any]) -> TaintedStr:
        return TaintedStr.concat(values)

    def generation(self, text: str) -> TaintedStr:
        start, end = TaintedStr("", "", [(0, Mark.START)]), TaintedStr("", "", [(0, Mark.END)])
        return TaintedStr.concat((start, text, end))

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        # A method of one of the template's own strings that is passed contents: call it on a tainted copy instead.
        receiver = getattr(__obj, "__self__", None)
        if type(receiver) is str and any(
            isinstance(text, TaintedStr) for text in strings_in((*args, *kwargs.values()))
        ):
            __obj = getattr(TaintedStr.of(receiver), __obj.__name__)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        return super().call_binop(context, operator, TaintedStr.of(left) if isinstance(left, str) else left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        receiver = getattr(value, "__self__", None)
        if not isinstance(receiver, str) or getattr(value, "__name__", "") not in ("format", "format_map"):
            return None
        plain_format = super().wrap_str_format(getattr(str(receiver), value.__name__))
        assert plain_format is not None

        def formatted(*args: Any, **kwargs: Any) -> TaintedStr:
            text = plain_format(*args, **kwargs)
            mapping = dict(args[0]) if value.__name__ == "format_map" else None
            return TaintedStr.of(receiver).formatted(() if mapping else args, mapping or kwargs, text)

        return formatted

    def _join(self, value: Iterable[Any], d: str = "", attribute: Any = None) -> TaintedStr:
        """The filter `join`; Jinja's own converts everything to plain strings."""
        if attribute is not None:
            value = (self.getitem(item, attribute) for item in value)
        return TaintedStr.of(d).join([self.keep(item) for item in value])


def _untracked(apply: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a filter so that its text has an unknown author if contents were passed to it."""

    @functools.wraps(apply)
    def untracked(*args: Any, **kwargs: Any) -> Any:
        result = apply(*args, **kwargs)
        return _tainted_result(result, (*args, *kwargs.values())) if isinstance(result, str) else result

    return untracked


def _tainted_result(text: str, arguments: Sequence[Any]) -> str:
    inputs = list(strings_in(arguments))
    if any(text is source for source in inputs) or not any(isinstance(source, TaintedStr) for source in inputs):
        return text
    return TaintedStr(str(text), "").derived_from(arguments)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    text = to_json(value, ensure_ascii, **options)
    return taint_json(value, text, bool(options.get("sort_keys")))


def _replace(value: Any, old: Any, new: Any, count: int | None = None) -> TaintedStr:
    text = value if isinstance(value, str) else str(value)
    new = new if isinstance(new, str) else str(new)
    return TaintedStr.of(text).replace(str(old), new, -1 if count is None else count)


def _format(value: Any, *args: Any, **kwargs: Any) -> TaintedStr:
    return TaintedStr.of(value if isinstance(value, str) else str(value)) % (kwargs or args)


@functools.lru_cache(maxsize=64)
def _program(source: str) -> Program:
    return TaintEnvironment().from_string(source)


def render_tainted(template: Template, conversation: Conversation, add_generation_prompt: bool) -> tuple[str, Layout]:
    """The text of one conversation, and its layout.

    Raises:
        Exception: anything that Jinja raises.
    """
    program = _program(template.source)
    messages = [_tainted_message(message, ordinal) for ordinal, message in enumerate(conversation.messages)]
    tainted = Conversation(messages, taint(conversation.tools, TOOLS))
    context = program.new_context(template_inputs(template, tainted, add_generation_prompt))
    text = TaintedStr.concat(program.root_render_func(context))
    return str(text), build_layout(parts_of(text))


_FIELDS = {"reasoning_content": Field.REASONING, "tool_calls": Field.TOOL_CALLS}


def _tainted_message(message: Mapping[str, Any], ordinal: int) -> dict[str, Any]:
    """A message whose strings are tainted, except for its role, which no message may use to write a special token."""
    tainted = {}
    for key, value in message.items():
        if key == "content" and isinstance(value, str):
            tainted[key] = TaintedStr.content(value, ordinal)
        elif key == "content":
            tainted[key] = taint(value, message_origin(ordinal))
        else:
            field = _FIELDS.get(key, Field.OTHER)
            tainted[key] = value if key == "role" else taint(value, message_origin(ordinal, field))
    return tainted
