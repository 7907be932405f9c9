"""Fold texts (NFKC and case), and tabulate what folding does to single characters.

A character is *context-free* if its folded form does not depend on its neighbours: the form holds only starters that
never compose with a preceding character. By the quick check of UAX #15 (section 9), a text of context-free characters
can be folded character by character. Only texts with other characters (combining marks, conjoining jamo, …) need the
full normalisation.
"""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.common.arrow import replace_at
from dataprep.dedup.buffers import true_positions

CodePoints = npt.NDArray[np.uint32]

# Characters that lower-casing folds: none has a compatibility form, composes with another one, or is ß, ς or Σ. There are
# more of them, but these are all that most texts of many languages have.
_PLAIN = (
    r"\x00-\x7f¡-§©«-®°±¶·»¿À-Þà-ĮıĴ-ľŁ-ňŊ-žΑ-ΡΤ-ρσ-ώЀ-҂Ҋ-ԯא-תؠ-ي"
    r"‐‒-‖‘-‣€₩-₿←-⇿─-➿⠀-⣿、-〩ぁ-ゖァ-ヺー㐀-䶿一-鿿가-힣\x{1f300}-\x{1faff}"
)
NOT_PLAIN = f"[^{_PLAIN}]"

OTHER_PLANES = 0x20000  # tables cover the two planes in everyday use; all code points above share this entry
TEXT = pl.col("text")


class FoldingTable(NamedTuple):
    """The folded form of each character that this Python assigns (forms of assigned characters never change)."""

    characters: CodePoints  # [k]
    forms: CodePoints  # the code points of all forms, one form after the other
    starts: npt.NDArray[np.int64]  # [k] where each form begins in `forms`
    context_free: npt.NDArray[np.bool_]  # [k]


def fold(text: pl.Series) -> pl.Series:
    """Fold compatibility forms and case: NFKC, lower case, ß to ss, and final sigma to sigma."""
    lower = text.str.to_lowercase()
    rows = text.str.contains(NOT_PLAIN).arg_true()
    return replace_at(lower, rows.to_numpy(), _fold_any(text.gather(rows))) if len(rows) else lower


def _fold_any(text: pl.Series) -> pl.Series:
    """Fold texts of any characters.

    Polars has no case folding; lower-casing lacks ß and final sigma. Lower-casing can produce new compositions with marks,
    hence the second NFKC.
    """
    lower = TEXT.str.normalize("NFKC").str.to_lowercase()
    folded = lower.str.replace_all("ß", "ss", literal=True).str.replace_all("ς", "σ", literal=True)
    frame = text.alias("text").to_frame().lazy().select(folded).collect(engine="streaming")
    return apply_where(frame.to_series(), TEXT.str.contains(r"\p{M}"), TEXT.str.normalize("NFKC"))


def apply_where(text: pl.Series, condition: pl.Expr, change: pl.Expr) -> pl.Series:
    """Apply `change` only to the texts for which `condition` holds: for changes that cost much more than the condition.

    Both are expressions of the column `text`.
    """
    frame = text.alias("text").to_frame()
    rows = frame.select(condition.arg_true()).to_series()
    if rows.is_empty():
        return frame.to_series()
    changed = frame[rows].lazy().select(change).collect(engine="streaming").to_series()
    return replace_at(frame.to_series(), rows.to_numpy(), changed)


def non_ascii_characters(text: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]:
    """Return where multi-byte characters begin in valid UTF-8, and their code points (capped at OTHER_PLANES)."""
    at = true_positions(text >= 0xC0)
    first = text[at]
    points = (first & 0x1F).astype(np.int32) << 6 | text[at + 1] & 0x3F
    for length, lead in ((3, 0xE0), (4, 0xF0)):
        longer = np.flatnonzero(first >= lead)
        points[longer] = points[longer] << 6 | text[at[longer] + length - 1] & 0x3F
    return at, np.minimum(points & 0x1FFFFF, OTHER_PLANES)


@cache
def folding_table() -> FoldingTable:
    """Build the table once per process (0.2 s), with `fold` itself, so that the two cannot disagree."""
    characters = np.array(
        [c for c in range(OTHER_PLANES) if unicodedata.category(chr(c)) not in ("Cn", "Cs")], np.uint32
    )
    forms: list[str] = fold(pl.Series([chr(c) for c in characters.tolist()])).to_list()
    points = np.frombuffer("".join(forms).encode("utf-32-le"), np.uint32)
    starts = np.cumsum([0, *map(len, forms)], dtype=np.int64)[:-1]
    return FoldingTable(characters, points, starts, ~np.logical_or.reduceat(_combining(characters)[points], starts))


def _combining(characters: CodePoints) -> npt.NDArray[np.bool_]:
    """[0x110000] Mark characters that may compose with or reorder past the preceding one: those with a combining class,
    and second parts of composites."""
    combining = np.zeros(0x110000, bool)
    for c in characters.tolist():  # 120,000 characters, once per process: 40 ms
        combining[c] |= unicodedata.combining(chr(c)) != 0
        for part in unicodedata.normalize("NFD", chr(c))[1:]:
            combining[ord(part)] = True
    return combining
