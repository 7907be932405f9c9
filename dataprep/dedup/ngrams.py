"""Hashes of word n-grams (64 bits), for proofs, leaks and contamination.

Two different grams of one pair of texts get the same hash with a probability near 10^-14: what is computed from these
sets is called exact.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from dataprep.dedup.buffers import Texts
from dataprep.dedup.normal_form import SPACE, Part, Rows, each_form

Hashes = npt.NDArray[np.uint64]

PROOF_WORDS = 5
SIEVE = np.uint64(42)
LONG = 256  # bytes of a word from which it is hashed on its own
STEP, MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC4CEB9FE1A85EC53)


class Words(NamedTuple):
    """The words of some texts, in order."""

    text: Rows  # [words] place of the text it is in
    place: Rows  # [words] its place in the text
    left: Rows  # [words] words from here to the end of the text, itself counted
    hash: Hashes  # [words]


class Grams(NamedTuple):
    """The grams of some documents; those of one document lie together, in the order of the text."""

    document: Rows  # [grams]
    gram: Hashes  # [grams]
    place: Rows  # [grams] of its first word in its document

    def at(self, places: Rows) -> Grams:
        """Only those at these places."""
        return Grams(self.document[places], self.gram[places], self.place[places])


def grams(documents: pl.Series, words: int = PROOF_WORDS, among: Hashes | None = None) -> Grams:
    """All n-grams of `words` words of each document (a document's whole form where it has fewer).

    Args:
        documents: texts that end with a line feed (`normal.documents`).
        words: n.
        among: only grams with these hashes.
    """
    parts = [Grams(np.zeros(0, np.intp), np.zeros(0, np.uint64), np.zeros(0, np.intp))]
    chosen = None if among is None else np.unique(among)
    sieve = None if chosen is None else _sieve(chosen)

    def work(part: Part) -> None:
        found = ngrams(words_of(part.texts), words)
        if chosen is not None and sieve is not None:
            maybe = np.flatnonzero(sieve[found.gram >> SIEVE])
            found = found.at(maybe[_within(chosen, found.gram[maybe])])
        parts.append(found._replace(document=part.rows[found.document]))

    each_form(documents, work)
    return Grams(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _sieve(chosen: Hashes) -> npt.NDArray[np.bool_]:
    """Which upper 22 bits occur: most grams are told apart by them, much faster than by a search."""
    sieve = np.zeros(1 << 22, bool)
    sieve[chosen >> SIEVE] = True
    return sieve


def _within(chosen: Hashes, gram: Hashes) -> npt.NDArray[np.bool_]:
    """Which of `gram` are among `chosen` (ascending)."""
    at = np.searchsorted(chosen, gram)
    within: npt.NDArray[np.bool_] = np.append(chosen, 0)[at] == gram
    return within & (at < len(chosen))


def words_of(forms: Texts) -> Words:
    """The words of texts in normal form."""
    text, bounds = forms.data[forms.offsets[0] : forms.offsets[-1]], forms.offsets - forms.offsets[0]
    ends = np.flatnonzero(text == SPACE)
    first = np.searchsorted(ends, bounds)  # each text's first word
    owner = np.repeat(np.arange(len(bounds) - 1), np.diff(first))
    order = np.arange(len(ends))
    starts = np.append(0, ends[:-1] + 1)[: len(ends)]
    return Words(owner, order - first[owner], first[owner + 1] - order, _word_hashes(text, starts, ends))


def ngrams(words: Words, count: int) -> Grams:
    """The grams of `count` words; of a text with fewer, all its words as one."""
    whole = np.flatnonzero((words.left >= count) | (words.place == 0))
    return Grams(words.text[whole], gram_hashes(words, count)[whole], words.place[whole])


def gram_hashes(words: Words, count: int) -> Hashes:
    """[words] The hash of the gram that begins with each word; it ends with its text."""
    gram = np.zeros(len(words.hash), np.uint64)
    for ahead in range(count):
        shifted = np.append(words.hash[ahead:], np.zeros(min(ahead, len(gram)), np.uint64))
        gram = (gram + shifted * (words.left > ahead)) * STEP
        gram ^= gram >> np.uint64(29)
    return gram


def _word_hashes(text: npt.NDArray[np.uint8], starts: Rows, ends: Rows) -> Hashes:
    """A hash of each word's bytes, eight at a time."""
    padded = np.append(text, np.zeros(8, np.uint8))
    eight = np.ndarray((len(text) + 1,), "<u8", padded, strides=(1,))  # overlapping views, one for each byte
    lengths = ends - starts
    hashes = lengths.astype(np.uint64)
    for at in range(0, LONG, 8):
        longer = np.flatnonzero(lengths > at)
        if not len(longer):
            break
        rest = np.minimum(lengths[longer] - at, 8).astype(np.uint64)
        bytes_ = eight[starts[longer] + at] & (np.uint64(0xFFFFFFFFFFFFFFFF) >> (np.uint64(64) - np.uint64(8) * rest))
        mixed = (hashes[longer] ^ bytes_ * MIX) * STEP
        hashes[longer] = mixed ^ mixed >> np.uint64(32)
    for word in np.flatnonzero(lengths > LONG).tolist():  # few: no word of a language is that long
        hashes[word] = xxhash.xxh3_64_intdigest(text[starts[word] : ends[word]].tobytes())
    return hashes * MIX
