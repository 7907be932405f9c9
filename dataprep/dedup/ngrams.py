"""Hash the word n-grams of texts to 64 bits, for exact similarities, leaks and contamination.

Two different n-grams of one pair of texts collide with a probability near 10^-14, or 10^-11 by the 52 bits that sets are
compared by (see `jaccard`), so results computed from them are called exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from dataprep.dedup.buffers import TextBuffer
from dataprep.dedup.normal_form import SPACE, NormalisedBlock, RowIndices, for_each_normalised_block

Hashes = npt.NDArray[np.uint64]

JACCARD_WORDS = 5  # words of the n-grams that similarities are defined on
BITMAP_SHIFT = np.uint64(42)  # leaves the upper 22 bits of a hash
LONG_WORD = 256  # bytes from which a word is hashed by itself
STEP, MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC4CEB9FE1A85EC53)


class Words(NamedTuple):
    """The words of some texts, in order."""

    text: RowIndices  # [words] index of the text that the word belongs to
    position: RowIndices  # [words] in the text
    remaining: RowIndices  # [words] from this word to the end of the text, including this word
    hash: Hashes  # [words]


class NGrams(NamedTuple):
    """The n-grams of some documents; those of one document are adjacent and in text order."""

    document: RowIndices  # [ngrams]
    hash: Hashes  # [ngrams]
    position: RowIndices  # [ngrams] of the first word in its document

    def take(self, indices: RowIndices) -> NGrams:
        """Return only the n-grams at these indices."""
        return NGrams(self.document[indices], self.hash[indices], self.position[indices])


def document_ngrams(documents: pl.Series, words: int = JACCARD_WORDS, among: Hashes | None = None) -> NGrams:
    """Return all n-grams of `words` words of each document (of a document with fewer words, the whole form as one).

    Args:
        documents: texts that end with a line feed (see `normal_form.documents`).
        words: n.
        among: return only n-grams with these hashes.
    """
    parts = [NGrams(np.zeros(0, np.intp), np.zeros(0, np.uint64), np.zeros(0, np.intp))]
    wanted = None if among is None else np.unique(among)
    bitmap = None if wanted is None else _upper_bits(wanted)

    def process(block: NormalisedBlock) -> None:
        ngrams = ngrams_of(words_of(block.texts), words)
        if wanted is not None and bitmap is not None:
            candidates = np.flatnonzero(bitmap[ngrams.hash >> BITMAP_SHIFT])
            ngrams = ngrams.take(candidates[_is_in_sorted(ngrams.hash[candidates], wanted)])
        parts.append(ngrams._replace(document=block.rows[ngrams.document]))

    for_each_normalised_block(documents, process)
    return NGrams(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def words_of(forms: TextBuffer) -> Words:
    """Return the words of texts in normal form."""
    text, bounds = forms.data[forms.offsets[0] : forms.offsets[-1]], forms.offsets - forms.offsets[0]
    ends = np.flatnonzero(text == SPACE)
    first_word = np.searchsorted(ends, bounds)
    owner = np.repeat(np.arange(len(bounds) - 1), np.diff(first_word))
    order = np.arange(len(ends))
    starts = np.append(0, ends[:-1] + 1)[: len(ends)]
    return Words(owner, order - first_word[owner], first_word[owner + 1] - order, span_hashes(text, starts, ends))


def ngrams_of(words: Words, count: int) -> NGrams:
    """Return the n-grams of `count` words; of a text with fewer words, all of them as one."""
    starts = np.flatnonzero((words.remaining >= count) | (words.position == 0))
    return NGrams(words.text[starts], ngram_hashes(words, count)[starts], words.position[starts])


def ngram_hashes(words: Words, count: int) -> Hashes:
    """[words] Return the hash of the n-gram that begins with each word; it is shorter where its text ends."""
    hashes = np.zeros(len(words.hash), np.uint64)
    for ahead in range(count):
        shifted = np.append(words.hash[ahead:], np.zeros(min(ahead, len(hashes)), np.uint64))
        hashes = (hashes + shifted * (words.remaining > ahead)) * STEP
        hashes ^= hashes >> np.uint64(29)
    return hashes


def _upper_bits(hashes: Hashes) -> npt.NDArray[np.bool_]:
    """[2^22] Mark which upper 22 bits occur: this rejects most n-grams much faster than a binary search."""
    bitmap = np.zeros(1 << 22, bool)
    bitmap[hashes >> BITMAP_SHIFT] = True
    return bitmap


def _is_in_sorted(hashes: Hashes, wanted: Hashes) -> npt.NDArray[np.bool_]:
    """Return which of `hashes` are among `wanted` (ascending)."""
    at = np.searchsorted(wanted, hashes)
    equal: npt.NDArray[np.bool_] = np.append(wanted, 0)[at] == hashes
    return equal & (at < len(wanted))


def span_hashes(text: npt.NDArray[np.uint8], starts: RowIndices, ends: RowIndices) -> Hashes:
    """Return a hash of the bytes of each span `text[starts[i]:ends[i]]`, computed eight bytes at a time."""
    padded = np.append(text, np.zeros(8, np.uint8))
    eight = np.ndarray((len(text) + 1,), "<u8", padded, strides=(1,))  # overlapping views, one for each byte
    lengths = ends - starts
    hashes = lengths.astype(np.uint64)
    for at in range(0, LONG_WORD, 8):
        longer = np.flatnonzero(lengths > at)
        if not len(longer):
            break
        rest = np.minimum(lengths[longer] - at, 8).astype(np.uint64)
        chunk = eight[starts[longer] + at] & (np.uint64(0xFFFFFFFFFFFFFFFF) >> (np.uint64(64) - np.uint64(8) * rest))
        mixed = (hashes[longer] ^ chunk * MIX) * STEP
        hashes[longer] = mixed ^ mixed >> np.uint64(32)
    for word in np.flatnonzero(lengths > LONG_WORD).tolist():  # few: natural languages have no such words
        hashes[word] = xxhash.xxh3_64_intdigest(text[starts[word] : ends[word]].tobytes())
    return hashes * MIX
