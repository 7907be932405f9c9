"""Reduce each conversation to a few numbers of fixed width, from which duplicates, groups and leaks are searched.

A fingerprint depends on its conversation alone, so that a corpus can be fingerprinted in any partition and order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from dataprep.dedup.buffers import offsets_from_sizes, ranges_of_size
from dataprep.dedup.document_sketches import DocumentSketches
from dataprep.dedup.edges import opening_keys
from dataprep.dedup.minhash import MIN_THRESHOLD, Sketches, sketch
from dataprep.dedup.normal_form import ComparedText, RowIndices, content_bytes, contexts, documents
from dataprep.recipe import Recipe

BATCH_BYTES = 1 << 25  # text fingerprinted at a time: that of a partition, because each call of Polars costs 0.2 ms


class Fingerprints(NamedTuple):
    """The fingerprints of some conversations: 256 bytes each, or 28 without sketches."""

    size: npt.NDArray[np.int64]  # [n] bytes of all compared texts
    context: npt.NDArray[np.uint64]  # [n] hash of what must be equal beside the texts; 0: nothing
    opening: npt.NDArray[np.uint64]  # [n] equal in exact duplicates (see `edges.opening_keys`)
    band_keys: npt.NDArray[np.uint32]  # [n, 25] these three: the sketch; if none was asked for, [n, 0] or zero
    low_bits: npt.NDArray[np.uint8]  # [n, 128]
    shingles: npt.NDArray[np.int32]  # [n]

    def take(self, chosen: npt.NDArray[np.generic]) -> Fingerprints:
        """Return only the fingerprints at these indices, or of this mask."""
        return Fingerprints(*(column[chosen] for column in self))

    @staticmethod
    def concatenated(parts: Sequence[Fingerprints]) -> Fingerprints:
        """Return the fingerprints of all parts, one after the other; there must be one part at least."""
        return Fingerprints(*(np.concatenate(columns) for columns in zip(*map(tuple, parts), strict=True)))


def sketched_text(recipe: Recipe) -> ComparedText | None:
    """Return which text of each conversation a build with this recipe has to sketch; None: it needs no sketches."""
    threshold = recipe.near_threshold
    if threshold is not None and threshold >= MIN_THRESHOLD:
        return recipe.near_dup_on
    return "thread" if recipe.split else None


def fingerprint(conversations: pl.DataFrame, compared: ComparedText | None) -> Fingerprints:
    """Fingerprint conversations.

    Args:
        conversations: `messages`, and `tools` if any has some.
        compared: the text that is sketched; None: no sketches.
    """
    sizes = content_bytes(conversations)
    ranges = ranges_of_size(offsets_from_sizes(sizes), BATCH_BYTES)
    parts = [_fingerprint(conversations[start:stop], sizes[start:stop], compared) for start, stop in ranges]
    return Fingerprints.concatenated(parts or [_fingerprint(conversations, sizes, compared)])


class FingerprintTable(NamedTuple):
    """The fingerprints of the conversations with these `row` numbers, and perhaps of others."""

    rows: npt.NDArray[np.int64]  # ascending
    fingerprints: Fingerprints  # may be memory-mapped
    compared: ComparedText | None  # the text that is sketched

    @staticmethod
    def of(
        conversations: pl.DataFrame, compared: ComparedText | None, known: FingerprintTable | None = None
    ) -> FingerprintTable:
        """Return `known` if it holds the sketches of `compared`, otherwise a new table of these conversations."""
        if known is not None and compared in (None, known.compared):
            return known
        rows = conversations["row"].to_numpy()
        order = np.argsort(rows, kind="stable")
        if (order[1:] < order[:-1]).any():
            conversations, rows = conversations[order], rows[order]
        return FingerprintTable(rows, fingerprint(conversations, compared), compared)

    def places(self, rows: npt.NDArray[np.int64]) -> RowIndices:
        """Return where the fingerprints of these rows are.

        Raises:
            KeyError: a row has none.
        """
        places = np.searchsorted(self.rows, rows)
        if (places == len(self.rows)).any() or (self.rows[places] != rows).any():
            raise KeyError("a conversation has no fingerprint")
        return places

    def sketches(self, rows: npt.NDArray[np.int64]) -> DocumentSketches:
        """Return the sketches of documents that are numbered in the order of `rows`."""
        known = self.fingerprints
        return DocumentSketches(Sketches(known.band_keys, known.low_bits, known.shingles), self.places(rows))


def _fingerprint(
    conversations: pl.DataFrame, sizes: npt.NDArray[np.int64], compared: ComparedText | None
) -> Fingerprints:
    sketches = sketch(documents(conversations, compared)) if compared else _no_sketches(len(conversations))
    return Fingerprints(sizes, _context_hashes(conversations), opening_keys(conversations), *sketches)


def _no_sketches(documents: int) -> Sketches:
    no_columns = np.zeros((documents, 0), np.uint32)
    return Sketches(no_columns, no_columns.astype(np.uint8), np.zeros(documents, np.int32))


def _context_hashes(conversations: pl.DataFrame) -> npt.NDArray[np.uint64]:
    """Return XXH3-64 of each conversation's context; 0 if it has neither tools nor untrained answers."""
    context = contexts(conversations)
    distinct = context.unique()
    # A loop over distinct contexts: most corpora have few, and xxhash takes one text at a time.
    hashes = [xxhash.xxh3_64_intdigest(text.encode()) if text else 0 for text in distinct]
    if len(distinct) == 1:
        return np.full(len(context), hashes[0], np.uint64)
    hash_of = dict(zip(distinct, hashes, strict=True))
    return np.array([hash_of[text] for text in context], np.uint64)
