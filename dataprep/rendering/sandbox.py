"""Jinja as chat templates know it: the immutable sandbox with transformers' settings.

Settings and helpers follow `transformers.utils.chat_template_utils` (5.23), with three things left out on
purpose, since a build must come out the same every day: `strftime_now`, `lipsum` and the filter `random`.
`TrackingEnvironment` is the same language for contents that are more than a plain string: no generated code
turns them into one behind our back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from jinja2 import meta, nodes, pass_context
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace


def raise_exception(message: str) -> NoReturn:
    """What a template calls to refuse a conversation."""
    raise TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Plain JSON; Jinja's own filter escapes it for HTML."""
    allowed = {key: options[key] for key in ("indent", "separators", "sort_keys") if key in options}
    return json.dumps(value, ensure_ascii=ensure_ascii, **allowed)


class TemplateNamespace(Namespace):
    """Jinja's namespace without names that begin with an underscore: none of Python's inner workings."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: N805  (a template may well store a `self`)
        values = dict(*args[1:], **kwargs)
        for name in values:
            _refuse_private(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"it stores {name!r} in a namespace, and names there may not begin with an underscore")


class Generation(Extension):
    """`{% generation %}…{% endgeneration %}`: what is written inside is what a model is trained on."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

    def mark(self, caller: Callable[[], Any]) -> Any:
        return self.environment.generation(caller())  # type: ignore[attr-defined]


# Bounds on time, not on memory: a template that doubles a text forty times still fills the machine.
STEPS = 300_000  # rounds of loops in one rendering, of which a conversation of 1,000 messages takes up to 11,000
CALL = 10  # steps that a call counts for, as it takes about as long
LENGTH = 1_000_000  # characters, items or bits that a product or a power may have

COUNTED = " counted"  # a filter whose name no template can write


class Endless(SecurityError):
    """A rendering that takes too long."""


class _Counting(Context):
    """The context of one rendering, which knows how much has been done in it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps = [0]

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        context = super().derived(locals)
        assert isinstance(context, _Counting)
        context.steps = self.steps
        return context

    def step(self, count: int = 1) -> None:
        """Count what has been done.

        Raises:
            Endless: it is too much: ranges inside ranges would keep a build busy for ever.
        """
        self.steps[0] += count
        if self.steps[0] > STEPS:
            raise Endless(f"it takes more than {STEPS:,} steps")


@pass_context
def counted(context: _Counting, items: Iterable[Any]) -> Iterator[Any]:
    """`items`, each of which is a step."""
    for item in items:
        context.step()
        yield item


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The language of chat templates."""

    context_class = _Counting
    intercepted_binops = frozenset(["*", "**"])

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
        self.filters |= {"tojson": _to_json, COUNTED: counted}
        del self.filters["random"]
        del self.globals["lipsum"]
        self.globals.update(raise_exception=raise_exception, namespace=TemplateNamespace)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        # Jinja would only raise when the result is used, and print it as nothing.
        raise SecurityError(f"it reaches for {attribute!r} of a {type(obj).__name__}, which the sandbox does not allow")

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, COUNTED, [], [], None, None, lineno=loop.lineno, environment=self)
        return tree

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        assert isinstance(__context, _Counting)
        __context.step(CALL)
        if isinstance(__obj, LoopContext) and args:  # `loop(…)` in a recursive loop
            args = (counted(__context, args[0]), *args[1:])
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if _length(operator, left, right) > LENGTH:
            raise Endless(f"it makes something longer than {LENGTH:,} with `{operator}`")
        return super().call_binop(context, operator, left, right)

    def generation(self, text: Any) -> Any:
        """The text of a `{% generation %}` block, on its way out."""
        return text


def _length(operator: str, left: Any, right: Any) -> int:
    """Characters, items or bits of what `*` or `**` would make; 0 of anything else, which cannot be long."""
    number, thing = (left, right) if isinstance(left, int) else (right, left)
    if not isinstance(number, int) or operator not in ("*", "**"):
        return 0
    if operator == "*" and isinstance(thing, str | bytes | list | tuple):
        return number * len(thing)
    if not isinstance(thing, int):
        return 0
    bits = (int(left).bit_length(), int(right).bit_length())
    return sum(bits) if operator == "*" else bits[0] * int(right)


class _TrackingGenerator(CodeGenerator):
    """Writes `environment.keep(x)` where Jinja writes `str(x)`, and `environment.join` for `~`."""

    def _output_child_pre(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write("environment.keep(")

    def _output_child_post(self, node: nodes.Expr, frame: Frame, finalize: Any) -> None:
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:
        self.write("environment.join((")
        for operand in node.nodes:
            self.visit(operand, frame)
            self.write(", ")
        self.write("))")


class TrackingEnvironment(ChatEnvironment):
    """Base of the environments whose contents are not plain strings: `keep` and `concat` say what becomes of them."""

    code_generator_class = _TrackingGenerator
    # "%s" % content asks the left side first, which knows nothing
    intercepted_binops = ChatEnvironment.intercepted_binops | {"%"}

    def __init__(self) -> None:
        super().__init__()
        # Jinja's `concat` is an attribute that generated code looks up: macros, set blocks and filters end in it.
        self.concat = self._concat  # type: ignore[method-assign]

    def keep(self, value: Any) -> Any:
        """`value` as it is written out."""
        raise NotImplementedError

    def _concat(self, values: Iterable[Any]) -> Any:
        raise NotImplementedError

    def join(self, values: Iterable[Any]) -> Any:
        """`a ~ b ~ …`"""
        return self._concat([self.keep(value) for value in values])


def has_generation_tags(source: str) -> bool:
    """Whether the template says itself what is trained."""
    tree = ChatEnvironment().parse(source)
    return any(node.identifier.endswith(".Generation") for node in tree.find_all(nodes.ExtensionAttribute))


def uses_autoescape(source: str) -> bool:
    """Whether the template switches HTML escaping on: chat formats never want it."""
    tree = ChatEnvironment().parse(source)
    return any(True for _ in tree.find_all((nodes.ScopedEvalContextModifier, nodes.EvalContextModifier)))


def asks_for_the_date(source: str) -> bool:
    """Whether the template names `strftime_now`, which is not there: with the date in it, a build changes every day."""
    return "strftime_now" in meta.find_undeclared_variables(ChatEnvironment().parse(source))
