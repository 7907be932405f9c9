"""The Jinja environments of chat templates: transformers' settings inside the immutable sandbox.

Settings and helpers follow `transformers.utils.chat_template_utils` (5.23). Two are missing on purpose, because a build
must be reproducible: `lipsum` and the filter `random`; `template.template_inputs` passes a `strftime_now` without a clock.
`TrackingEnvironment` is the base for contents that are more than plain strings; no generated code converts them to plain
strings.
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
    """The function that a template calls to refuse a conversation."""
    raise TemplateError(message)


def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """The filter `tojson` without the HTML escaping of Jinja's own."""
    allowed = {key: options[key] for key in ("indent", "separators", "sort_keys") if key in options}
    return json.dumps(value, ensure_ascii=ensure_ascii, **allowed)


class TemplateNamespace(Namespace):
    """Jinja's namespace without names that start with an underscore, so that Python's internals stay out of reach."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # noqa: N805  (a template may store a variable named `self`)
        values = dict(*args[1:], **kwargs)
        for name in values:
            _refuse_private(name)
        Namespace.__init__(args[0], values)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: Any) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"it stores {name!r} in a namespace, and names there must not start with an underscore")


class Generation(Extension):
    """The tags `{% generation %}…{% endgeneration %}`, which enclose the text that a model is trained on."""

    tags = {"generation"}  # noqa: RUF012  (as Jinja declares it)

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

    def mark(self, caller: Callable[[], Any]) -> Any:
        return self.environment.generation(caller())  # type: ignore[attr-defined]


# Limits on time, not on memory: a template that doubles a text forty times still exhausts the machine.
MAX_STEPS = 300_000  # loop iterations of one rendering; a conversation of 1,000 messages takes up to 11,000
STEPS_PER_CALL = 10  # a call takes about as long as this many iterations
MAX_LENGTH = 1_000_000  # characters, items or bits of the result of `*` or `**`

COUNTED = " counted"  # the name of a filter that no template can write


class StepLimitExceeded(SecurityError):
    """A rendering takes too long."""


class _CountingContext(Context):
    """The context of one rendering; counts its steps."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.steps = [0]

    def derived(self, locals: dict[str, Any] | None = None) -> Context:
        context = super().derived(locals)
        assert isinstance(context, _CountingContext)
        context.steps = self.steps
        return context

    def count(self, steps: int = 1) -> None:
        """Add to the number of steps.

        Raises:
            StepLimitExceeded: the rendering has taken too many, as nested ranges would.
        """
        self.steps[0] += steps
        if self.steps[0] > MAX_STEPS:
            raise StepLimitExceeded(f"it takes more than {MAX_STEPS:,} steps")


@pass_context
def counted(context: _CountingContext, items: Iterable[Any]) -> Iterator[Any]:
    """Iterate over `items` and count each as a step."""
    for item in items:
        context.count()
        yield item


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The Jinja dialect of chat templates."""

    context_class = _CountingContext
    intercepted_binops = frozenset(["*", "**"])

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
        self.filters |= {"tojson": to_json, COUNTED: counted}
        del self.filters["random"]
        del self.globals["lipsum"]
        self.globals.update(raise_exception=raise_exception, namespace=TemplateNamespace)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        # Jinja raises only when the result is used, and prints it as an empty string.
        raise SecurityError(f"it accesses {attribute!r} of a {type(obj).__name__}, which the sandbox forbids")

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, COUNTED, [], [], None, None, lineno=loop.lineno, environment=self)
        return tree

    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: B902, N805
        assert isinstance(__context, _CountingContext)
        __context.count(STEPS_PER_CALL)
        if isinstance(__obj, LoopContext) and args:  # `loop(…)` in a recursive loop
            args = (counted(__context, args[0]), *args[1:])
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if _result_length(operator, left, right) > MAX_LENGTH:
            raise StepLimitExceeded(f"it computes a value longer than {MAX_LENGTH:,} with `{operator}`")
        return super().call_binop(context, operator, left, right)

    def generation(self, text: Any) -> Any:
        """Called with the text of each `{% generation %}` block; returns what is written."""
        return text


def _result_length(operator: str, left: Any, right: Any) -> int:
    """The length of the result of `*` or `**` in characters, items or bits; 0 for operands whose result is short."""
    number, other = (left, right) if isinstance(left, int) else (right, left)
    if not isinstance(number, int) or operator not in ("*", "**"):
        return 0
    if operator == "*" and isinstance(other, str | bytes | list | tuple):
        return number * len(other)
    if not isinstance(other, int):
        return 0
    bits = (int(left).bit_length(), int(right).bit_length())
    return sum(bits) if operator == "*" else bits[0] * int(right)


class _TrackingGenerator(CodeGenerator):
    """Generates `environment.keep(x)` where Jinja generates `str(x)`, and `environment.join` for `~`."""

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
    """Base class of environments whose contents are not plain strings; `keep` and `_concat` define how they combine."""

    code_generator_class = _TrackingGenerator
    # `"%s" % content` would call the method of the plain string on the left.
    intercepted_binops = ChatEnvironment.intercepted_binops | {"%"}

    def __init__(self) -> None:
        super().__init__()
        # Generated code looks `concat` up as an attribute: macros, set blocks and filter blocks end with it.
        self.concat = self._concat  # type: ignore[method-assign]

    def keep(self, value: Any) -> Any:
        """Convert a value to the text that is written out for it."""
        raise NotImplementedError

    def _concat(self, values: Iterable[Any]) -> Any:
        raise NotImplementedError

    def join(self, values: Iterable[Any]) -> Any:
        """Evaluate `a ~ b ~ …`."""
        return self._concat([self.keep(value) for value in values])


def has_generation_tags(source: str) -> bool:
    """Whether a template marks what is trained with `{% generation %}` blocks."""
    tree = ChatEnvironment().parse(source)
    return any(node.identifier.endswith(".Generation") for node in tree.find_all(nodes.ExtensionAttribute))


def uses_autoescape(source: str) -> bool:
    """Whether a template enables HTML escaping, which no chat format wants."""
    tree = ChatEnvironment().parse(source)
    return any(True for _ in tree.find_all((nodes.ScopedEvalContextModifier, nodes.EvalContextModifier)))


def undeclared_variables(source: str) -> set[str]:
    """The names of variables and functions that a template uses and does not define."""
    return meta.find_undeclared_variables(ChatEnvironment().parse(source))
