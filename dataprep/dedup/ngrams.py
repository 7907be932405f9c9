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

from dataprep.dedup.buffers import TextBuffer, true_positions
from dataprep.dedup.normal_form import SPACE, NormalisedBlock, RowIndices, for_each_normalised_block

Hashes = npt.NDArray[np.uint64]

JACCARD_WORDS = 5  # words of the n-grams that similarities are defined on
BITMAP_SHIFT = np.uint64(42)  # leaves the upper 22 bits of a hash
LONG_WORD = 256  # bytes from which a word is hashed by itself
LOW_BYTES = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)  # masks of 0 to 8 bytes
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
    ends = true_positions(text == SPACE)
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
        hashes[: max(len(hashes) - ahead, 0)] += words.hash[ahead:]
        hashes *= STEP
        hashes ^= hashes >> np.uint64(29)
    short = np.flatnonzero(words.remaining < count)  # few, in which words of the next text must not count
    hashes[short] = 0
    for ahead in range(count):
        following = words.hash[np.minimum(short + ahead, len(hashes) - 1)]
        mixed = (hashes[short] + following * (words.remaining[short] > ahead)) * STEP
        hashes[short] = mixed ^ mixed >> np.uint64(29)
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
    # Views that overlap, one for each byte; a copy, because NumPy is slow in gathering from numbers that are not aligned.
    eight = np.ascontiguousarray(np.ndarray((len(text) + 1,), "<u8", padded, strides=(1,)))
    lengths = ends - starts
    hashes = _mixed(lengths.astype(np.uint64), eight[starts] & LOW_BYTES[np.minimum(lengths, 8)])
    longer, at = np.flatnonzero((lengths > 8) & (lengths <= LONG_WORD)), 8
    while len(longer):
        chunk = eight[starts[longer] + at] & LOW_BYTES[np.minimum(lengths[longer] - at, 8)]
        hashes[longer] = _mixed(hashes[longer], chunk)
        at += 8
        longer = longer[lengths[longer] > at]
    for word in np.flatnonzero(lengths > LONG_WORD).tolist():  # few: natural languages have no such words
        hashes[word] = xxhash.xxh3_64_intdigest(text[starts[word] : ends[word]].tobytes())
    return hashes * MIX


def _mixed(hashes: Hashes, chunk: Hashes) -> Hashes:
    """Return hashes that cover eight bytes more each."""
    mixed = (hashes ^ chunk * MIX) * STEP
    mixed ^= mixed >> np.uint64(32)
    return mixed
