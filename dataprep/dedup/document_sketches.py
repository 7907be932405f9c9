"""Number the documents of a comparison, and look up their sketches by these numbers without copying the sketches."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.dedup.minhash import BANDS, BINS, Hashes, Sketches
from dataprep.dedup.normal_form import RowIndices

PAIRS = 1 << 16  # pairs estimated at a time


class DocumentSketches(NamedTuple):
    """The sketches of documents that are numbered in another order than their sketches are stored in."""

    stored: Sketches  # may be memory-mapped, and may hold sketches of other documents as well
    place: RowIndices  # [documents] where the sketch of each document is stored

    @staticmethod
    def in_order(sketches: Sketches) -> DocumentSketches:
        """Return documents that are numbered as their sketches are stored."""
        return DocumentSketches(sketches, np.arange(len(sketches.shingles)))

    def band(self, band: int) -> Hashes:
        """[documents] Return the key of each document in a band, from 0 to BANDS - 1."""
        return np.ascontiguousarray(self.stored.band_keys[:, band])[self.place]

    def band_keys(self, documents: RowIndices) -> list[Hashes]:
        """Return, for each band, the keys of these documents."""
        keys = self.stored.band_keys[self.place[documents]]
        return [np.ascontiguousarray(keys[:, band]) for band in range(BANDS)]

    def may_be_similar(
        self, left: RowIndices, right: RowIndices, threshold: float, others: DocumentSketches | None = None
    ) -> npt.NDArray[np.bool_]:
        """Return which pairs have an estimated similarity that is not far below the threshold.

        The estimate is the share of equal bins, corrected for the 1 in 256 that are equal by chance (Li, König, "b-Bit
        Minwise Hashing", 2010). Far below is four standard errors. Most texts that only share a template fail this test.

        Args:
            left: documents.
            right: documents; of `others`, if given.
            threshold: minimum similarity.
            others: documents numbered separately.
        """
        others = others or self
        passed = np.zeros(len(left), bool)
        for start in range(0, len(left), PAIRS):
            chunk = slice(start, start + PAIRS)
            a, b = self.place[left[chunk]], others.place[right[chunk]]
            equal = (self.stored.low_bits[a] == others.stored.low_bits[b]).mean(1)
            estimate = (equal - 1 / 256) * (256 / 255)
            samples = np.clip(np.minimum(self.stored.shingles[a], others.stored.shingles[b]), 1, BINS)
            passed[chunk] = estimate >= threshold - 4 * np.sqrt(threshold * (1 - threshold) / samples) - 0.01
        return passed
