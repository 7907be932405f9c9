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
from datetime import datetime
from typing import Any

import jinja2

from dataprep.common.errors import TemplateError
from dataprep.common.text import excerpt
from dataprep.rendering.isolation import MEMORY_BYTES, TemplateStopped, isolated
from dataprep.rendering.sandbox import (
    ChatEnvironment,
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
    inner_end_token: str | None = None  # ends an answer that is not the last message, if that is another token
    forbidden: tuple[str, ...] = ()  # further strings that a content must not contain
    format_source: str = ""  # where the format is documented
    date: str | None = None  # YYYY-MM-DD: what `strftime_now` formats; None: the function is not available
    guessed_tokens: bool = False  # nothing states the special tokens: they were recognised by their spelling
    content_parts: bool = False  # the template takes contents as [{"type": "text", "text": …}] only

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
        inputs: list[Any] = [self.source, dict(self.variables), self.special_tokens, self.end_token, self.forbidden]
        inputs += [self.inner_end_token] if self.inner_end_token else []
        inputs += [self.date] if self.date else []
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
            **({"date": self.date} if self.date else {}),
            **({"content_parts": True} if self.content_parts else {}),
        }


@dataclass(frozen=True)
class Conversation:
    """The messages of a conversation, with the keys that transformers passes to a template, and its tools."""

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Any] | None = None
    context_only: frozenset[int] = frozenset()  # indices of answers that are not trained

    @classmethod
    def of(cls, messages: Sequence[Mapping[str, Any]], tools: str | Sequence[Any] | None = None) -> Conversation:
        """A conversation as a build stores it: fields may be null, and tool calls and tools are JSON."""
        present = [
            {
                key: json.loads(value) if key == "tool_calls" and isinstance(value, str) else value
                for key, value in message.items()
                if value is not None and key != "trained"
            }
            for message in messages
        ]
        context_only = frozenset(index for index, message in enumerate(messages) if message.get("trained") is False)
        return cls(present, json.loads(tools) if isinstance(tools, str) else tools, context_only)

    def subset(self, indices: Sequence[int]) -> Conversation:
        """The messages with those indices, and all tools."""
        return Conversation([self.messages[index] for index in indices], self.tools)


def template_inputs(template: Template, conversation: Conversation, add_generation_prompt: bool) -> dict[str, Any]:
    """The variables that transformers passes to a template."""
    inputs: dict[str, Any] = {
        "messages": [_as_template_reads(template, message) for message in conversation.messages],
        "tools": conversation.tools,
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **template.variables,
    }
    if template.date:
        inputs["strftime_now"] = datetime.fromisoformat(template.date).strftime
    return inputs


def _as_template_reads(template: Template, message: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message with its content in the form that the template takes, and with transformers' aliases of reasoning."""
    content = message.get("content")
    if template.content_parts and content is not None and not isinstance(content, list):
        message = {**message, "content": [{"type": "text", "text": content}]}
    reasoning = next((message[key] for key in _REASONING_KEYS if message.get(key) is not None), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


_REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")


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
        raise TemplateError(f"{name}, line {error.lineno}: {excerpt(error.message or '')}") from None
    except SyntaxError as error:  # of the Python code that Jinja generates, such as 25 nested loops
        raise TemplateError(f"{name} cannot be compiled: {excerpt(error.msg)}.") from None
    except RecursionError:
        raise TemplateError(f"{name} is nested too deeply to be parsed as a template.") from None
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # Jinja computes constants while it compiles
        raise TemplateError(f"{name} cannot be compiled: {excerpt(str(error))}.") from None
    if escapes:
        raise TemplateError(f"{name} enables HTML escaping, which would change the contents: remove `autoescape`.")
    return program


@isolated
def require_valid(template: Template, file: str) -> None:
    """Raises:
    TemplateError: the template cannot be compiled; names the file.
    """
    compile_template(template.source, file)


@isolated
def render(
    template: Template,
    messages: Sequence[Mapping[str, Any]],
    add_generation_prompt: bool = False,
    bos_token: str | None = None,
    eos_token: str | None = None,
    tools: Sequence[Any] | None = None,
) -> str:
    """Render one conversation to text, exactly as `transformers` would.

    Args:
        template: any template, usable for training or not.
        messages: each with `role` and `content`, and optionally `reasoning_content`, `tool_calls` (parsed), `name` and
            `tool_call_id`.
        add_generation_prompt: append the text that prompts a model for an answer.
        bos_token: replaces the template's own; likewise `eos_token`.
        tools: the tools that the model may call, as JSON schemas.
    Raises:
        TemplateError: the template refuses the conversation, fails on it, or tries to leave the sandbox.
    """
    overrides = {"bos_token": bos_token, "eos_token": eos_token}
    inputs = template_inputs(template, Conversation(messages, tools), add_generation_prompt)
    inputs |= {name: token for name, token in overrides.items() if token is not None}
    try:
        return compile_template(template.source, template.name).render(inputs)
    except TemplateError:
        raise
    except Exception as error:
        raise rendering_error(template, error) from None


def rendering_error(template: Template, error: Exception) -> TemplateError:
    """Describe an exception that Jinja raised while it rendered a conversation, in one sentence."""
    reason = excerpt(str(error)).rstrip(".") or type(error).__name__
    if type(error) is jinja2.TemplateError:
        return TemplateError(f"The template {template.name} refuses this conversation: {reason}.")
    if isinstance(error, MemoryError):
        return TemplateStopped(
            f"The template {template.name} was stopped: it needs more than {MEMORY_BYTES >> 20} MiB of memory."
        )
    if isinstance(error, jinja2.exceptions.SecurityError):
        return TemplateError(f"The template {template.name} tries to leave its sandbox: {reason}.")
    if isinstance(error, jinja2.UndefinedError) and "'strftime_now'" in reason:
        return TemplateError(
            f"The template {template.name} asks for the current date ({reason}, because a build must not depend on the "
            "day it is made): give a date with --template-date YYYY-MM-DD."
        )
    return TemplateError(f"The template {template.name} fails on this conversation: {reason} ({type(error).__name__}).")
