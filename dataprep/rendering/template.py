"""A chat template: its text, its tokens, and how one conversation is rendered with it.

`render` is plain Jinja and the reference for everything else in this package.
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
from dataprep.rendering.sandbox import ChatEnvironment, Endless, has_generation_tags, uses_autoescape


@dataclass(frozen=True, eq=False)
class Template:
    """A chat template as it was loaded; plain data, so that it can be sent to other processes."""

    name: str
    source: str  # Jinja
    variables: Mapping[str, str]  # special tokens by the names that the template knows: `bos_token`, `eos_token`, …
    special_tokens: tuple[str, ...]  # with an id of their own
    end_token: str | None = None  # what an answer ends with; None: the template writes none
    forbidden: tuple[str, ...] = ()  # further strings that content must not hold
    format_source: str = ""  # where the format comes from

    @property
    def bos_token(self) -> str | None:
        return self.variables.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        return self.variables.get("eos_token")

    @property
    def forbidden_in_content(self) -> tuple[str, ...]:
        """Special tokens and markers: typed in a message, they would be taken for the template's."""
        return tuple(dict.fromkeys((*self.special_tokens, *self.forbidden)))

    @property
    def sha256(self) -> str:
        """Of all that decides what is rendered and what is let through: the source and the tokens, not the name."""
        facts = [self.source, dict(self.variables), self.special_tokens, self.end_token, self.forbidden]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def has_generation_tags(self) -> bool:
        return has_generation_tags(self.source)

    @functools.cached_property
    def special_pattern(self) -> re.Pattern[str]:
        """Finds special tokens from left to right, the longest first."""
        tokens = sorted(filter(None, self.special_tokens), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, tokens)) or r"(?!)")

    def facts(self) -> dict[str, Any]:
        """What a manifest holds of a template."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "end_token": self.end_token,
            "special_tokens": list(self.special_tokens),
            "forbidden": list(self.forbidden),
        }


def context(variables: Mapping[str, Any], add_generation_prompt: bool) -> dict[str, Any]:
    """What transformers hands to a template, less the messages."""
    return {"tools": None, "documents": None, "add_generation_prompt": add_generation_prompt, **variables}


@functools.lru_cache(maxsize=64)
def compiled(source: str, name: str) -> jinja2.Template:
    """The template as a Jinja program.

    Raises:
        TemplateError: a mistake in its syntax, with file and line.
    """
    try:
        program = ChatEnvironment().from_string(source)
        escapes = uses_autoescape(source)
    except jinja2.TemplateSyntaxError as fault:
        raise TemplateError(f"{name}, line {fault.lineno}: {fault.message}") from None
    except RecursionError:
        raise TemplateError(f"{name} is nested too deeply to be read as a template.") from None
    if escapes:
        raise TemplateError(f"{name} switches HTML escaping on, which would change the contents: remove `autoescape`.")
    return program


def render(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = False,
    bos_token: str | None = None,
    eos_token: str | None = None,
) -> str:
    """The text of one conversation, as `transformers` would render it.

    Args:
        template: any template, sound or not.
        messages: each with `role` and `content`.
        add_generation_prompt: end with what comes before an answer.
        bos_token: instead of the template's own; so with `eos_token`.
    Raises:
        TemplateError: the template refuses the conversation, fails on it, or tries to leave the sandbox.
    """
    given = {"bos_token": bos_token, "eos_token": eos_token}
    variables = {**template.variables, **{name: token for name, token in given.items() if token is not None}}
    try:
        program = compiled(template.source, template.name)
        return program.render(messages=list(messages), **context(variables, add_generation_prompt))
    except TemplateError:
        raise
    except Exception as fault:
        raise refusal(template, fault) from None


def refusal(template: Template, fault: Exception) -> TemplateError:
    """What Jinja raised over a conversation, as one sentence."""
    told = " ".join(str(fault).split()).rstrip(".") or type(fault).__name__
    if type(fault) is jinja2.TemplateError:
        return TemplateError(f"The template {template.name} refuses this conversation: {told}.")
    if isinstance(fault, Endless):
        return TemplateError(f"The template {template.name} is stopped: {told}.")
    if isinstance(fault, jinja2.exceptions.SecurityError):
        return TemplateError(f"The template {template.name} tries to leave its sandbox: {told}.")
    if isinstance(fault, jinja2.UndefinedError) and "'strftime_now'" in told:
        return TemplateError(
            f"The template {template.name} asks for the day's date ({told}: a build must come out the same every day): "
            "write a fixed date in its place."
        )
    return TemplateError(f"The template {template.name} fails on this conversation: {told} ({type(fault).__name__}).")
