"""Prompts for a trained model, rendered with the build's own template and encoded as its rows were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.errors import DataError
from training.model.tokenizer import ChatTokenizer

Messages = Sequence[Mapping[str, str]]

PRIVATE = 0xF0000  # where Unicode's private plane begins: stands in for what must not be mistaken for a control


def render(template: str, messages: Messages, marks: Mapping[str, Any], *, answer: bool) -> str:
    """`messages` through a chat template; `answer`: with what comes before the model's answer.

    Raises:
        DataError: the template refuses them.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    render_all: Any = render_jinja_template  # its types say less than it takes
    known = {key: marks.get(key) or "" for key in ("bos_token", "eos_token")}
    try:
        rendered, _ = render_all(
            conversations=[list(messages)], chat_template=template, add_generation_prompt=answer, **known
        )
    except Exception as fault:  # whatever a template's author raises
        raise DataError(f"The chat template refuses this conversation ({fault}).") from None
    return str(rendered[0])


def prompt_ids(template: str, messages: Messages, facts: Mapping[str, Any], vocabulary: ChatTokenizer) -> list[int]:
    """The ids of a prompt, up to where the answer begins.

    `facts`: the manifest's `template`. Special tokens that somebody typed stay text: they are hidden while the template
    is rendered, so that every special token found in the result was written by the template.
    """
    special = sorted(facts["special_tokens"], key=len, reverse=True)
    hidden = {token: chr(PRIVATE + number) for number, token in enumerate(special)}
    safe = [{**message, "content": _swap(message["content"], hidden)} for message in messages]
    text = render(template, safe, facts, answer=True)
    shown = {stand_in: token for token, stand_in in hidden.items()}
    ids: list[int] = []
    for part, control in _parts(text, special):
        if control:
            ids.append(vocabulary.id_of(part))
        else:
            ids += vocabulary.backend.encode(_swap(part, shown), add_special_tokens=False).ids
    return ids


def _swap(text: str, pairs: Mapping[str, str]) -> str:
    for old, new in pairs.items():
        text = text.replace(old, new)
    return text


def _parts(text: str, special: Sequence[str]) -> list[tuple[str, bool]]:
    """`text` in pieces, each with whether it is a special token."""
    import re

    if not special:
        return [(text, False)]
    pieces = re.split("(" + "|".join(map(re.escape, special)) + ")", text)
    return [(piece, place % 2 == 1) for place, piece in enumerate(pieces) if piece]
