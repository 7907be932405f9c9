"""Prompts for a trained model: rendered with the build's own template, and encoded as the build's rows were.

dataprep tells typed special tokens from the template's own by tracking every character (`dataprep.rendering`), which
training must not import. A prompt needs less: typed special tokens are replaced by private-use characters while the
template is rendered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from dataprep.common.text import excerpt
from training.errors import DataError
from training.model.tokenizer import ChatTokenizer

Messages = Sequence[Mapping[str, str]]

PRIVATE_USE = 0xF0000  # start of a private-use plane of Unicode, whose characters replace typed special tokens


def render(template: str, messages: Messages, tokens: Mapping[str, Any], *, answer: bool) -> str:
    """Render messages with a chat template.

    Args:
        template: Jinja.
        messages: each with `role` and `content`.
        tokens: `bos_token` and `eos_token`; `content_parts` if the template takes contents as lists of parts.
        answer: append the generation prompt.
    Raises:
        DataError: a message is not UTF-8, or the template refuses the messages.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    if any(not _is_text(message["content"]) for message in messages):
        raise DataError("A message holds bytes that are not UTF-8, or half of a surrogate pair: correct its encoding.")
    render_all: Any = render_jinja_template  # its annotations are narrower than what it accepts
    conversation: list[Mapping[str, Any]] = list(messages)
    if tokens.get("content_parts"):
        conversation = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in messages]
    variables = {key: tokens.get(key) or "" for key in ("bos_token", "eos_token")}
    try:
        rendered, _ = render_all(
            conversations=[conversation], chat_template=template, add_generation_prompt=answer, **variables
        )
    except Exception as error:  # a template can raise anything
        raise DataError(f"The chat template refuses this conversation ({excerpt(str(error))}).") from None
    return str(rendered[0])


def _is_text(value: str) -> bool:
    """Whether a text can be encoded: arguments of a command line that are not UTF-8 have lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def prompt_ids(template: str, messages: Messages, manifest: Mapping[str, Any], tokenizer: ChatTokenizer) -> list[int]:
    """The ids of a prompt, including the generation prompt.

    `manifest` is the build's manifest entry of the template. Special tokens that are typed in a message stay text, as
    in the build's rows: they are replaced while the template is rendered, so that every special token in the result
    was written by the template.
    """
    special = sorted(manifest["special_tokens"], key=len, reverse=True)
    replacements = {token: chr(PRIVATE_USE + number) for number, token in enumerate(special)}
    escaped = [{**message, "content": _replace(message["content"], replacements)} for message in messages]
    text = render(template, escaped, manifest, answer=True)
    originals = {replacement: token for token, replacement in replacements.items()}
    if not any(replacement in text for replacement in originals):
        return [*tokenizer.encode_whole([text])[0].ids]  # as the build's rows without typed special tokens
    ids: list[int] = []
    for piece, is_control in _split_at_tokens(text, special):
        if is_control:
            ids.append(tokenizer.id_of(piece))
        else:
            ids += tokenizer.backend.encode(_replace(piece, originals), add_special_tokens=False).ids
    return ids


def _replace(text: str, replacements: Mapping[str, str]) -> str:
    for old, new in replacements.items():
        text = text.replace(old, new)
    return text


def _split_at_tokens(text: str, special: Sequence[str]) -> list[tuple[str, bool]]:
    """The pieces of `text`, each with whether it is a special token."""
    if not special:
        return [(text, False)]
    pieces = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
    return [(piece, index % 2 == 1) for index, piece in enumerate(pieces) if piece]
