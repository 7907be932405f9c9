"""Prepares untrusted texts for an HTML page: unsafe characters made visible, personal data masked, size bounded."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import escape

from dataprep.common.personal_data import masked
from dataprep.common.text import visible

PAGE_BYTES = 4_300_000  # limit for all texts of a page after escaping; with its markup the page stays below 5 MB
MARKUP_BYTES = 80  # estimate of the markup around one text
_LOOK_AHEAD = 1_000  # code points read beyond a cut, so that a secret that lies across the cut is recognised
_CUT_MARK = " …"


def message_text(message: Mapping[str, Any]) -> str:
    """The content of a message with its reasoning and its tool calls (JSON text), each under a heading of its own."""
    reasoning, calls = message.get("reasoning_content"), message.get("tool_calls")
    parts = [
        *([f"[reasoning]\n{reasoning}\n[/reasoning]"] if reasoning else []),
        *([message["content"]] if message["content"] or not (reasoning or calls) else []),
        *([f"[tool calls]\n{calls}"] if calls else []),
    ]
    return "\n".join(parts)


def speaker(message: Mapping[str, Any]) -> str:
    """The role of a message, with the name of a tool and a remark where an answer is not trained."""
    name = f" {message['name']}" if message.get("name") else ""
    return f"{message['role']}{name}" + (", not trained" if message.get("trained") is False else "")


class TextBudget:
    """The bytes of HTML that are still available for texts on one page; each text that is added takes its share."""

    def __init__(self, mask: bool, size: int = PAGE_BYTES) -> None:
        """With `mask`, e-mail addresses, keys, card numbers and phone numbers are hidden."""
        self.left = size
        self._mask = mask

    def clean(self, texts: Sequence[str | None], limit: int) -> list[str]:
        """The first `limit` or more code points of each text, made visible and masked but not yet cut to size."""
        read = limit + _LOOK_AHEAD
        shown = [visible((text or "")[:read])[:read] for text in texts]
        return masked(shown) if self._mask and shown else shown

    def take(self, text: str, limit: int) -> str:
        """The longest prefix of a clean text that fits into `limit` bytes and the budget, which it reduces."""
        prefix = _longest_prefix(text, max(min(limit, self.left), 0))
        self.left -= _html_bytes(prefix) + MARKUP_BYTES
        return prefix

    def texts(self, texts: Sequence[str | None], limit: int) -> list[str]:
        """Cleaned texts of at most `limit` bytes each; a text that was cut ends with an ellipsis."""
        cut = [(text, self.take(text, limit)) for text in self.clean(texts, limit)]
        return [prefix if prefix == text else prefix + _CUT_MARK for text, prefix in cut]

    def clean_fields(self, records: Iterable[dict[str, Any]], **limits: int) -> None:
        """Replace fields of `records` by their cleaned and cut text, in place: `limits` has the bytes for each field."""
        records = list(records)
        for name, limit in limits.items():
            for record, text in zip(records, self.texts([record[name] for record in records], limit), strict=True):
                record[name] = text


def _html_bytes(text: str) -> int:
    return len(escape(text).encode())


def _longest_prefix(text: str, size: int) -> str:
    """The longest prefix of `text` that takes at most `size` bytes as HTML."""
    if len(text) <= size and _html_bytes(text) <= size:
        return text
    lengths = range(min(len(text), size) + 1)
    return text[: bisect_right(lengths, size, key=lambda length: _html_bytes(text[:length])) - 1]
