"""The `Template` type, and `render`, which renders one conversation with plain Jinja.

`render` is the reference that every other way of rendering in this package must equal.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jinja2

from dataprep.common.errors import TemplateError
from dataprep.rendering.sandbox import (
    ChatEnvironment,
    StepLimitExceeded,
    has_generation_tags,
    uses_autoescape,
)


@dataclass(frozen=True, eq=False)
class Template:
    """A chat template and its tokens, as loaded; plain data, so that it can be sent to other processes."""

    name: str
    source: str  # Jinja
    variables: Mapping[str, str]  # special tokens under the names that the template uses: `bos_token`, `eos_token`, …
    special_tokens: tuple[str, ...]  # tokens with an id of their own
    end_token: str | None = None  # ends each answer; None: the template writes none
    forbidden: tuple[str, ...] = ()  # further strings that a content must not contain
    format_source: str = ""  # where the format is documented

    @property
    def bos_token(self) -> str | None:
        return self.variables.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        return self.variables.get("eos_token")

    @property
    def forbidden_in_content(self) -> tuple[str, ...]:
        """Special tokens and markers; inside a message they would be mistaken for the template's own."""
        return tuple(dict.fromkeys((*self.special_tokens, *self.forbidden)))

    @property
    def sha256(self) -> str:
        """A digest of everything that decides the rendered text and the accepted contents: not of the name."""
        inputs = [self.source, dict(self.variables), self.special_tokens, self.end_token, self.forbidden]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def has_generation_tags(self) -> bool:
        """Whether the template marks what is trained with `{% generation %}` blocks."""
        return has_generation_tags(self.source)

    @functools.cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """Matches special tokens, preferring the longest."""
        tokens = sorted(filter(None, self.special_tokens), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")

    def to_manifest(self) -> dict[str, Any]:
        """The manifest's entry for this template."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "end_token": self.end_token,
            "special_tokens": list(self.special_tokens),
            "forbidden": list(self.forbidden),
        }


def template_variables(variables: Mapping[str, Any], add_generation_prompt: bool) -> dict[str, Any]:
    """The variables that transformers passes to a template, except for the messages."""
    return {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt, **variables}


@functools.lru_cache(maxsize=64)
def compile_template(source: str, name: str) -> jinja2.Template:
    """Compile a template's source; `name` is used in error messages.

    Raises:
        TemplateError: a syntax error (with its line), nesting that is too deep, or HTML escaping.
    """
    try:
        program = ChatEnvironment().from_string(source)
        escapes = uses_autoescape(source)
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(f"{name}, line {error.lineno}: {error.message}") from None
    except RecursionError:
        raise TemplateError(f"{name} is nested too deeply to be parsed as a template.") from None
    if escapes:
        raise TemplateError(f"{name} enables HTML escaping, which would change the contents: remove `autoescape`.")
    return program


def render(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = False,
    bos_token: str | None = None,
    eos_token: str | None = None,
) -> str:
    """Render one conversation to text, exactly as `transformers` would.

    Args:
        template: any template, usable for training or not.
        messages: each with `role` and `content`.
        add_generation_prompt: append the text that prompts a model for an answer.
        bos_token: replaces the template's own; likewise `eos_token`.
    Raises:
        TemplateError: the template refuses the conversation, fails on it, or tries to leave the sandbox.
    """
    overrides = {"bos_token": bos_token, "eos_token": eos_token}
    variables = {**template.variables, **{name: token for name, token in overrides.items() if token is not None}}
    try:
        program = compile_template(template.source, template.name)
        return program.render(messages=list(messages), **template_variables(variables, add_generation_prompt))
    except TemplateError:
        raise
    except Exception as error:
        raise rendering_error(template, error) from None


def rendering_error(template: Template, error: Exception) -> TemplateError:
    """Describe an exception that Jinja raised while it rendered a conversation, in one sentence."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if type(error) is jinja2.TemplateError:
        return TemplateError(f"The template {template.name} refuses this conversation: {reason}.")
    if isinstance(error, StepLimitExceeded):
        return TemplateError(f"The template {template.name} was stopped: {reason}.")
    if isinstance(error, jinja2.exceptions.SecurityError):
        return TemplateError(f"The template {template.name} tries to leave its sandbox: {reason}.")
    if isinstance(error, jinja2.UndefinedError) and "'strftime_now'" in reason:
        return TemplateError(
            f"The template {template.name} asks for the current date ({reason}, because a build must not depend on the "
            "day it is made): write a fixed date into the template instead."
        )
    return TemplateError(f"The template {template.name} fails on this conversation: {reason} ({type(error).__name__}).")
