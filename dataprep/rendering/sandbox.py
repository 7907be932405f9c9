"""The Jinja environments of chat templates: transformers' settings inside the immutable sandbox.

Settings and helpers follow `transformers.utils.chat_template_utils` (5.23). Two are missing on purpose, because a build
must be reproducible: `lipsum` and the filter `random`; `template.template_inputs` passes a `strftime_now` without a clock.
`TrackingEnvironment` is the base for contents that are more than plain strings; no generated code converts them to plain
strings.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from jinja2 import meta, nodes
from jinja2.compiler import CodeGenerator, Frame
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Undefined
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


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The Jinja dialect of chat templates."""

    def __init__(self) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
        self.filters["tojson"] = to_json
        del self.filters["random"]
        del self.globals["lipsum"]
        self.globals.update(raise_exception=raise_exception, namespace=TemplateNamespace)

    def unsafe_undefined(self, obj: Any, attribute: str) -> Undefined:
        # Jinja raises only when the result is used, and prints it as an empty string.
        raise SecurityError(f"it accesses {attribute!r} of a {type(obj).__name__}, which the sandbox forbids")

    def generation(self, text: Any) -> Any:
        """Called with the text of each `{% generation %}` block; returns what is written."""
        return text


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
    intercepted_binops = frozenset(["*", "**", "%"])

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
