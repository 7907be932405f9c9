"""Sketch documents by one-permutation MinHash over byte shingles, in NumPy over Arrow's buffers.

Each shingle (9 bytes of the normal form) has one 32-bit hash. Its upper 7 bits choose one of 128 bins, and each bin keeps
its minimum (Li, Owen, Zhang, "One Permutation Hashing", 2012). An empty bin borrows from another bin that a fixed random
walk chooses (Shrivastava, "Optimal Densification for Fast and Accurate Minwise Hashing", 2017). Two texts agree in a bin
with the probability of their Jaccard similarity J, and so in at least one of 25 bands of 5 bins with 1 - (1 - J^5)^25.

All constants are fixed here, so signatures are the same on every machine and with every version of a library.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.buffers import TextBuffer
from dataprep.dedup.normal_form import NormalisedBlock, for_each_normalised_block

SHINGLE = 9  # bytes
BINS = 128  # 125 bins are banded; the last 3 serve densification and the similarity estimate
BANDS = 25
ROWS = 5  # bins per band
ALGORITHM = f"one-permutation MinHash, optimal densification, {SHINGLE}-byte shingles, {BANDS} bands of {ROWS} rows"
MIN_RECALL = (
    0.999  # expected at the threshold; below the threshold that 25 bands of 5 rows reach it for, sketches are not used
)
MIN_THRESHOLD = (1 - (1 - MIN_RECALL) ** (1 / BANDS)) ** (1 / ROWS)  # 0.753

# Odd 64-bit constants: the golden ratio, and the two of MurmurHash3's finaliser.
GOLDEN, MURMUR_1, MURMUR_2 = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53))
EMPTY = np.uint32(0xFFFFFFFF)
HALF_WORD, ALL_BITS = np.uint64(32), np.uint64(0xFFFFFFFFFFFFFFFF)
PIECE = 1 << 18  # bytes of text hashed at a time
WALK = 32  # random steps of an empty bin; after them it takes its next full neighbour

Hashes = npt.NDArray[np.uint32]


class Sketches(NamedTuple):
    """The sketches of some documents: 232 bytes each."""

    band_keys: Hashes  # [documents, 25] documents with an equal key in a band are candidates
    low_bits: npt.NDArray[np.uint8]  # [documents, 128] the last 8 bits of each bin, for the similarity estimate
    shingles: npt.NDArray[np.int32]  # [documents] number of shingles, repeated ones included

    @staticmethod
    def empty(documents: int) -> Sketches:
        """Return the sketches of documents without any visible character, which are all equal."""
        low_bits = np.zeros((documents, BINS), np.uint8)
        return Sketches(np.zeros((documents, BANDS), np.uint32), low_bits, np.zeros(documents, np.int32))


def sketch(documents: pl.Series) -> Sketches:
    """Return the sketches of texts that end with a line feed (see `normal_form.documents`)."""
    sketches = Sketches.empty(len(documents))

    def process(block: NormalisedBlock) -> None:
        signature = signatures(block.texts)
        sketches.band_keys[block.rows] = band_keys(signature)
        sketches.low_bits[block.rows] = signature.astype(np.uint8)
        sketches.shingles[block.rows] = np.diff(block.texts.offsets)

    for_each_normalised_block(documents, process)
    return sketches


def signatures(forms: TextBuffer) -> Hashes:
    """[texts, 128] Return the minimum hash of each bin, with empty bins filled. No text may be empty."""
    starts = forms.offsets - forms.offsets[0]
    text = np.append(forms.data[forms.offsets[0] : forms.offsets[-1]], np.zeros(SHINGLE, np.uint8))
    minimum = np.full((len(starts) - 1) * BINS, EMPTY, np.uint32)
    for begin in range(0, int(starts[-1]), PIECE):  # a long text needs no more memory than many short ones
        end = min(begin + PIECE, int(starts[-1]))
        hashes = _shingle_hashes(text[begin : end + SHINGLE])
        inside = np.clip(starts, begin, end) - begin
        _exclude_border_shingles(hashes, starts[1:] - begin)
        bins = np.repeat(np.arange(len(inside) - 1, dtype=np.uint32) * np.uint32(BINS), np.diff(inside))
        bins += hashes >> np.uint32(25)
        np.minimum.at(minimum, bins.astype(np.intp), hashes)
    _add_short_texts(minimum, text, starts)
    return _densify(minimum.reshape(-1, BINS))


def band_keys(signature: Hashes) -> Hashes:
    """[texts, 25] Return 32 bits for each band of 5 bins."""
    rows = signature[:, : BANDS * ROWS].reshape(-1, BANDS, ROWS).astype(np.uint64)
    keys = np.zeros(rows.shape[:2], np.uint64)
    for row in range(ROWS):
        keys = (keys + rows[:, :, row] + np.uint64(1)) * GOLDEN
        keys ^= keys >> HALF_WORD
    return _mix(keys)


def _shingle_hashes(text: npt.NDArray[np.uint8]) -> Hashes:
    """Return the hash of the 9 bytes that begin at each byte (the last 9 bytes of `text` are padding)."""
    # Overlapping views, one for each byte; a copy, because NumPy is slow in computing with numbers that are not aligned.
    eight = np.ascontiguousarray(np.ndarray((len(text) - 8,), "<u8", text, strides=(1,)))
    values = eight[:-1] * GOLDEN
    ninth = eight[1:]
    ninth >>= np.uint64(56)
    ninth *= MURMUR_1
    values += ninth
    return _mix(values)


def _mix(values: npt.NDArray[np.uint64]) -> Hashes:
    """Return the upper half of a product that every bit enters (one round of MurmurHash3's finaliser)."""
    values ^= values >> HALF_WORD
    values *= MURMUR_2
    values >>= HALF_WORD
    return values.astype(np.uint32)


def _exclude_border_shingles(hashes: Hashes, ends: npt.NDArray[np.int64]) -> None:
    """Mark shingles that reach beyond the end of a text as EMPTY."""
    for back in range(1, SHINGLE):
        at = ends - back
        hashes[at[(at >= 0) & (at < len(hashes))]] = EMPTY


def _add_short_texts(minimum: Hashes, text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> None:
    """Enter each text that is shorter than a shingle by one hash of the whole text.

    All of its bins get it, as they would from the only full one: finding that takes a hundred steps for each empty bin.
    """
    lengths = np.diff(starts)
    short = np.flatnonzero(lengths < SHINGLE)
    eight = np.ndarray((len(text) - SHINGLE + 1,), "<u8", text, strides=(1,))[starts[short]]
    hashes = _mix((eight & ALL_BITS >> (np.uint64(8) * (8 - lengths[short]).astype(np.uint64))) * GOLDEN)
    minimum.reshape(-1, BINS)[short] = hashes[:, None]


def _densify(minimum: Hashes) -> Hashes:
    """Fill empty bins from full ones, each bin along its own fixed walk, which is the same for every text."""
    filled, (text, empty_bin) = minimum.copy(), np.nonzero(minimum == EMPTY)
    for source_bin in _walks():
        if not len(text):
            break
        borrowed = minimum[text, source_bin[empty_bin]]
        filled[text, empty_bin] = borrowed
        still_empty = np.flatnonzero(borrowed == EMPTY)
        text, empty_bin = text[still_empty], empty_bin[still_empty]
    return filled


@cache
def _walks() -> npt.NDArray[np.intp]:
    """[steps, 128] Return the bin that each bin borrows from at each step: random steps first, then once around all bins,
    so that every bin ends full."""
    steps = np.arange(WALK * BINS, dtype=np.uint64) + np.uint64(1)
    random = (_mix(steps * GOLDEN) >> np.uint32(25)).reshape(WALK, BINS)
    around = (np.arange(1, BINS)[:, None] + np.arange(BINS)) % BINS
    return np.concatenate([random, around]).astype(np.intp)
