"""One-permutation MinHash over byte shingles, in NumPy over Arrow's buffers: 25 bands of 5 rows.

Each shingle (9 bytes of the normal form) has one 32-bit hash. Its upper 7 bits choose one of 128 bins, and a bin keeps
its least hash (Li, Owen, Zhang, "One Permutation Hashing", 2012). An empty bin borrows from another one, chosen by a
fixed random walk (Shrivastava, "Optimal Densification for Fast and Accurate Minwise Hashing", 2017). Two texts agree
in a bin with the probability of their Jaccard similarity J, so in at least one band with 1 - (1 - J^5)^25.

All constants are fixed here: signatures are the same on every machine and with every version of a library.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.dedup.buffers import Texts
from dataprep.dedup.normal_form import Part, Rows, each_form

SHINGLE = 9  # bytes
BINS = 128  # the last three only lend
BANDS = 25
ROWS = 5
ALGORITHM = f"one-permutation MinHash, optimal densification, {SHINGLE}-byte shingles, {BANDS} bands of {ROWS} rows"

# Odd 64-bit constants: the golden ratio, and the two of MurmurHash3's finaliser.
FIRST, SECOND, LAST = (np.uint64(c) for c in (0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53))
EMPTY = np.uint32(0xFFFFFFFF)
HALF, ALL = np.uint64(32), np.uint64(0xFFFFFFFFFFFFFFFF)
PIECE = 1 << 18  # bytes of text hashed at a time
PAIRS = 1 << 16  # pairs estimated at a time
WALK = 32  # random steps of an empty bin; after them it takes its next full neighbour

Hashes = npt.NDArray[np.uint32]


class Sketches(NamedTuple):
    """What is held of each document: 232 bytes."""

    keys: Hashes  # [documents, 25] a key for each band; documents with an equal key in a band are candidates
    tails: npt.NDArray[np.uint8]  # [documents, 128] the last 8 bits of each bin's hash, for an estimate of similarity
    shingles: npt.NDArray[np.int32]  # [documents] how many there are, the same ones counted again

    def promising(self, left: Rows, right: Rows, threshold: float) -> npt.NDArray[np.bool_]:
        """Which pairs are worth a proof: those whose estimated similarity is not far below the threshold.

        The estimate is the share of equal bins, less those of 256 that are equal by chance (Li, König, "b-Bit Minwise
        Hashing", 2010); far is four standard errors. Texts that share a template are mostly told apart by it.
        """
        promising = np.zeros(len(left), bool)
        for start in range(0, len(left), PAIRS):
            some = slice(start, start + PAIRS)
            one, other = left[some], right[some]
            equal = (self.tails[one] == self.tails[other]).mean(1)
            estimate = (equal - 1 / 256) * (256 / 255)
            samples = np.clip(np.minimum(self.shingles[one], self.shingles[other]), 1, BINS)
            promising[some] = estimate >= threshold - 4 * np.sqrt(threshold * (1 - threshold) / samples) - 0.01
        return promising

    def joined(self, more: Sketches) -> Sketches:
        """Those of two columns as one."""
        keys, tails = np.concatenate([self.keys, more.keys]), np.concatenate([self.tails, more.tails])
        return Sketches(keys, tails, np.concatenate([self.shingles, more.shingles]))

    def put(self, start: int, part: Sketches) -> None:
        """`part` in place of as many from `start` on."""
        place = slice(start, start + len(part.keys))
        self.keys[place], self.tails[place], self.shingles[place] = part

    @staticmethod
    def empty(documents: int) -> Sketches:
        """Of documents without any visible character: all the same."""
        bins = np.zeros((documents, BINS), np.uint8)
        return Sketches(np.zeros((documents, BANDS), np.uint32), bins, np.zeros(documents, np.int32))


def sketches(documents: pl.Series) -> Sketches:
    """The sketches of texts that end with a line feed (`normal.documents`)."""
    made = Sketches.empty(len(documents))

    def work(part: Part) -> None:
        signature = signatures(part.texts)
        made.keys[part.rows] = _band_keys(signature)
        made.tails[part.rows] = signature.astype(np.uint8)
        made.shingles[part.rows] = np.diff(part.texts.offsets)

    each_form(documents, work)
    return made


def signatures(forms: Texts) -> Hashes:
    """[texts, 128] The least hash of each bin; empty bins filled. No text may be empty."""
    starts = forms.offsets - forms.offsets[0]
    text = np.append(forms.data[forms.offsets[0] : forms.offsets[-1]], np.zeros(SHINGLE, np.uint8))
    least = np.full((len(starts) - 1) * BINS, EMPTY, np.uint32)
    for begin in range(0, int(starts[-1]), PIECE):  # a long text needs no more memory than many short ones
        end = min(begin + PIECE, int(starts[-1]))
        hashes = _shingle_hashes(text[begin : end + SHINGLE])
        inside = np.clip(starts, begin, end) - begin
        _close_borders(hashes, starts[1:] - begin)
        bins = np.repeat(np.arange(len(inside) - 1, dtype=np.intp) * BINS, np.diff(inside))
        bins += hashes >> np.uint32(25)
        np.minimum.at(least, bins, hashes)
    _add_short(least, text, starts)
    return _densified(least.reshape(-1, BINS))


def _shingle_hashes(text: npt.NDArray[np.uint8]) -> Hashes:
    """The hash of the 9 bytes that begin at each byte (the last 9 bytes of `text` are padding)."""
    count = len(text) - SHINGLE
    eight = np.ndarray((count,), "<u8", text, strides=(1,))  # overlapping views, one for each byte
    return _mixed(eight * FIRST + text[8 : 8 + count] * SECOND)


def _mixed(values: npt.NDArray[np.uint64]) -> Hashes:
    """The upper half of a product with each bit in it (one round of MurmurHash3's finaliser)."""
    values ^= values >> HALF
    values *= LAST
    return (values >> HALF).astype(np.uint32)


def _close_borders(hashes: Hashes, ends: npt.NDArray[np.int64]) -> None:
    """Shingles that reach beyond the end of a text do not count."""
    for back in range(1, SHINGLE):
        at = ends - back
        hashes[at[(at >= 0) & (at < len(hashes))]] = EMPTY


def _add_short(least: Hashes, text: npt.NDArray[np.uint8], starts: npt.NDArray[np.int64]) -> None:
    """A text shorter than a shingle counts as a whole: its one hash goes where it belongs."""
    lengths = np.diff(starts)
    short = np.flatnonzero(lengths < SHINGLE)
    eight = np.ndarray((len(text) - SHINGLE + 1,), "<u8", text, strides=(1,))[starts[short]]
    hashes = _mixed((eight & ALL >> (np.uint64(8) * (8 - lengths[short]).astype(np.uint64))) * FIRST)
    least[short * BINS + (hashes >> np.uint32(25))] = hashes


def _densified(least: Hashes) -> Hashes:
    """Empty bins filled from full ones, each along its own fixed walk, the same for every text."""
    some = np.flatnonzero((least == EMPTY).any(1))
    full = least[some]
    filled = full.copy()
    for step in _walks():
        empty = filled == EMPTY
        open_rows = np.flatnonzero(empty.any(1))
        if not len(open_rows):
            break
        some_empty = empty[open_rows]
        borrowed = filled[open_rows]
        borrowed[some_empty] = full[open_rows][:, step][some_empty]
        filled[open_rows] = borrowed
    least[some] = filled
    return least


@cache
def _walks() -> npt.NDArray[np.intp]:
    """[steps, 128] Where each bin looks in each step: random steps first, then once around, so that all end full."""
    steps = np.arange(WALK * BINS, dtype=np.uint64) + np.uint64(1)
    random = (_mixed(steps * FIRST) >> np.uint32(25)).reshape(WALK, BINS)
    around = (np.arange(1, BINS)[:, None] + np.arange(BINS)) % BINS
    return np.concatenate([random, around]).astype(np.intp)


def _band_keys(signature: Hashes) -> Hashes:
    """[texts, 25] 32 bits of each band of 5 bins."""
    rows = signature[:, : BANDS * ROWS].reshape(-1, BANDS, ROWS).astype(np.uint64)
    keys = np.zeros(rows.shape[:2], np.uint64)
    for row in range(ROWS):
        keys = (keys + rows[:, :, row] + np.uint64(1)) * FIRST
        keys ^= keys >> HALF
    return _mixed(keys)
