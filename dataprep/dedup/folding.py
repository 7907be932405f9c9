"""What folding (NFKC and case) does to single characters, as tables over code points.

A character is *steady* when what becomes of it does not depend on its neighbours: its folded form holds only starters
that never compose with what stands before them. By the quick check of UAX #15 (section 9) a text of steady characters
is folded character by character; only texts with others (combining marks, conjoining jamo, …) need the real thing.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.common.arrow import replaced

Points = npt.NDArray[np.uint32]

BEYOND = 0x20000  # both planes in everyday use have entries; all that lies above shares the entry BEYOND
TEXT = pl.col("text")


class Folds(NamedTuple):
    """Of each character that this Python knows (what becomes of those never changes again), the folded form."""

    known: Points  # [k] the characters
    points: Points  # the code points of all forms, one form after the other
    starts: npt.NDArray[np.int64]  # [k] where each form begins in `points`
    steady: npt.NDArray[np.bool_]  # [k]


def folded(text: pl.Series) -> pl.Series:
    """Compatibility forms and case made one: NFKC, lower case, ß as ss and every sigma the same (Polars has no case
    folding; lower-casing lacks those two). Lower case can bring about new compositions with marks, hence NFKC again."""
    beyond_ascii = TEXT.str.len_bytes() != TEXT.str.len_chars()
    lower = TEXT.str.to_lowercase().str.replace_all("ß", "ss", literal=True).str.replace_all("ς", "σ", literal=True)
    nfkc = where_needed(text, beyond_ascii, TEXT.str.normalize("NFKC"))
    marked = TEXT.str.contains(r"\p{M}")
    return where_needed(nfkc.alias("text").to_frame().select(lower).to_series(), marked, TEXT.str.normalize("NFKC"))


def where_needed(text: pl.Series, needed: pl.Expr, change: pl.Expr) -> pl.Series:
    """`text` with `change` done only where `needed`: for changes that cost much more than to ask for them.

    Both are expressions of the column `text`.
    """
    frame = text.alias("text").to_frame()
    at = frame.select(needed.arg_true()).to_series()
    if at.is_empty():
        return frame.to_series()
    changed = frame[at].lazy().select(change).collect(engine="streaming").to_series()
    return replaced(frame.to_series(), at.to_numpy(), changed)


def beyond_ascii(text: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
    """Where characters of several bytes begin in valid UTF-8, and their code points (BEYOND for all above)."""
    at = np.flatnonzero(text >= 0xC0)
    first = text[at].astype(np.int32)
    points = (first & 0x1F) << 6 | text[at + 1] & 0x3F
    for length, lead in ((3, 0xE0), (4, 0xF0)):
        longer = np.flatnonzero(first >= lead)
        points[longer] = points[longer] << 6 | text[at[longer] + length - 1] & 0x3F
    return at, np.minimum(points & 0x1FFFFF, BEYOND)


@cache
def folds() -> Folds:
    """Made once in a process (0.2 s) with `folded` itself, so that they cannot disagree with it."""
    known = np.array([c for c in range(BEYOND) if unicodedata.category(chr(c)) not in ("Cn", "Cs")], np.uint32)
    forms: list[str] = folded(pl.Series([chr(c) for c in known.tolist()])).to_list()
    points = np.frombuffer("".join(forms).encode("utf-32-le"), np.uint32)
    starts = np.cumsum([0, *map(len, forms)], dtype=np.int64)[:-1]
    return Folds(known, points, starts, ~np.logical_or.reduceat(_moving(known)[points], starts))


def _moving(known: Points) -> npt.NDArray[np.bool_]:
    """[0x110000] What may join or pass the character before it: combining classes, and second parts of composites."""
    moving = np.zeros(0x110000, bool)
    for c in known.tolist():  # 120,000 characters, once in a process: 40 ms
        moving[c] |= unicodedata.combining(chr(c)) != 0
        for part in unicodedata.normalize("NFD", chr(c))[1:]:
            moving[ord(part)] = True
    return moving
