"""Normalise the edges of texts: equal conversations begin and end equally, which few others do."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.buffers import text_buffer
from dataprep.dedup.folding import TEXT, apply_where, fold
from dataprep.dedup.ngrams import STEP, span_hashes

# Marks, and Kirat Rai's vowels, which compose without being marks.
_COMPOSING = r"[\p{M}\x{16d63}\x{16d67}-\x{16d6a}]"

EDGE_CHARS = 20  # characters compared at each edge
CUT_CHARS = 40  # characters normalised to get them
MARGIN_CHARS = 8  # characters at the inner end of the cut that the rest of the text might change


def opening_keys(conversations: pl.DataFrame) -> npt.NDArray[np.uint64]:
    """[n] Return a hash of the number of messages and the opening of the first one: equal in exact duplicates."""
    contents = conversations.select(pl.col("messages").list.first().struct.field("content").fill_null("")).to_series()
    texts = text_buffer(opening(contents))
    starts = texts.offsets - texts.offsets[0]
    hashes = span_hashes(texts.data[texts.offsets[0] : texts.offsets[-1]], starts[:-1], starts[1:])
    return (hashes + message_counts(conversations).astype(np.uint64)) * STEP


def message_counts(conversations: pl.DataFrame) -> npt.NDArray[np.int64]:
    """[n] Return the number of messages of each conversation."""
    return conversations["messages"].list.len().fill_null(0).cast(pl.Int64).to_numpy()


def opening(contents: pl.Series) -> pl.Series:
    """Return the first `EDGE_CHARS` characters of each text's exact form, without white space."""
    return _edge(contents, contents.str.head(CUT_CHARS)).str.head(EDGE_CHARS)


def ending(contents: pl.Series) -> pl.Series:
    """Return the last `EDGE_CHARS` characters of each text's exact form, without white space."""
    return _edge(contents, contents.str.tail(CUT_CHARS)).str.tail(EDGE_CHARS)


def _edge(contents: pl.Series, cut: pl.Series) -> pl.Series:
    """Return the exact form, without white space, of each text's `cut` at one end, or of the whole text if that is too short.

    What folding does to a character depends on its neighbours only through composing characters, and otherwise reaches
    one character beyond the cut. So a cut without composing characters that leaves `MARGIN_CHARS` to spare suffices.
    """
    bare = _without_spaces(cut)
    is_whole = cut.str.len_bytes() == contents.str.len_bytes()
    suffices = (bare.str.len_chars() >= EDGE_CHARS + MARGIN_CHARS) & ~bare.str.contains(_COMPOSING)
    unsure = np.flatnonzero(~(is_whole | suffices).to_numpy())
    return bare.scatter(unsure, _without_spaces(contents.gather(unsure))) if len(unsure) else bare


def _without_spaces(text: pl.Series) -> pl.Series:
    without_blanks = fold(text).str.replace_all(" ", "", literal=True)
    return apply_where(without_blanks, TEXT.str.contains(r"\s"), TEXT.str.replace_all(r"\s", ""))
