"""How texts of strangers get onto a page: made visible, masked, and cut to what the page still holds."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import escape

from dataprep.common.personal_data import masked
from dataprep.common.terminal import visible

PAGE_BYTES = 4_300_000  # of all texts, escaped: with what is around them the page stays below 5 MB
AROUND = 80  # bytes of markup around a text
_BEYOND = 1_000  # code points beyond a cut that are read: a key that lies across it is found
_MORE = " …"


class Room:
    """The bytes of HTML that are left for texts on one page."""

    def __init__(self, mask: bool, size: int = PAGE_BYTES) -> None:
        """`mask`: hide e-mail addresses, keys, card and phone numbers."""
        self.left = size
        self._mask = mask

    def clean(self, texts: Sequence[str | None], most: int) -> list[str]:
        """The beginnings of `texts`, at least `most` code points of each, visible and masked: not yet cut."""
        far = most + _BEYOND
        seen = [visible((text or "")[:far])[:far] for text in texts]
        return masked(seen) if self._mask and seen else seen

    def fit(self, text: str, most: int) -> str:
        """`text`, which is clean, or as much of it as fits `most` bytes and the room that is left, which it takes."""
        fitting = _beginning(text, max(min(most, self.left), 0))
        self.left -= _bytes(fitting) + AROUND
        return fitting

    def texts(self, texts: Sequence[str | None], most: int) -> list[str]:
        """Clean texts of at most `most` bytes; one that is cut ends with an ellipsis."""
        fitted = [(text, self.fit(text, most)) for text in self.clean(texts, most)]
        return [fitting if fitting == text else fitting + _MORE for text, fitting in fitted]

    def fill(self, records: Iterable[dict[str, Any]], **most: int) -> None:
        """Put `texts` in the place of what strangers wrote: of each of `records`, the fields named, of `most` bytes each."""
        records = list(records)
        for name, limit in most.items():
            for record, text in zip(records, self.texts([record[name] for record in records], limit), strict=True):
                record[name] = text


def _bytes(text: str) -> int:
    return len(escape(text).encode())


def _beginning(text: str, room: int) -> str:
    """As much of `text` as takes no more than `room` bytes as HTML."""
    if len(text) <= room and _bytes(text) <= room:
        return text
    lengths = range(min(len(text), room) + 1)
    return text[: bisect_right(lengths, room, key=lambda length: _bytes(text[:length])) - 1]
