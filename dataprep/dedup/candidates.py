"""Generate candidate pairs from LSH buckets, as stars around the first document of each bucket.

A bucket holds the documents with the same key in the same band. Documents are numbered best first, so the first document
of a bucket, its *head*, is the one that would survive the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.dedup.buffers import sorted_numbers
from dataprep.dedup.normal_form import RowIndices

BandKeys = Iterable[npt.NDArray[np.uint32]]  # for each band, the key of each document


class Buckets(NamedTuple):
    """The buckets of one band: one entry for each document, sorted by bucket, then by document."""

    member: RowIndices  # [entries]
    bucket: RowIndices  # [entries] number of its bucket, from 0
    head: RowIndices  # [entries] the first member of its bucket


def star_pairs(bands: BandKeys) -> tuple[RowIndices, RowIndices]:
    """Return the pairs of each bucket's head with every other member of the bucket, each pair once.

    A bucket of `n` documents gives n - 1 pairs instead of n (n - 1) / 2, so text that a large share of the documents has
    in common costs no more than any other text.

    Args:
        bands: the key of each document, band by band.

    Returns:
        (heads, members): document numbers, sorted by head, then by member; head < member.
    """
    pairs = np.zeros(0, np.uint64)
    for buckets in _buckets(bands):
        others = buckets.member != buckets.head
        head, member = buckets.head[others].astype(np.uint64), buckets.member[others].astype(np.uint64)
        pairs = np.union1d(pairs, head << np.uint64(32) | member)
    return (pairs >> np.uint64(32)).astype(np.intp), (pairs & np.uint64(0xFFFFFFFF)).astype(np.intp)


def uncompared_survivors(bands: BandKeys, survives: npt.NDArray[np.bool_], is_new: npt.NDArray[np.bool_]) -> RowIndices:
    """Return the surviving documents that share a bucket with another survivor, neither of them its head, and at least
    one of the bucket's survivors `is_new`: star pairs say nothing about their similarity."""
    selected = np.zeros(len(survives), bool)
    for member, bucket, head in _buckets(bands):
        others = np.flatnonzero(survives[member] & (member != head))
        member, bucket = member[others], bucket[others]
        chosen = (np.bincount(bucket)[bucket] > 1) & (np.bincount(bucket, is_new[member])[bucket] > 0)
        selected[member[chosen]] = True
    return np.flatnonzero(selected)


def _buckets(bands: BandKeys) -> Iterator[Buckets]:
    """Yield the buckets of each band."""
    for keys in bands:
        entries = sorted_numbers(keys.astype(np.uint64) << np.uint64(32) | np.arange(len(keys), dtype=np.uint64))
        key, member = entries >> np.uint64(32), (entries & np.uint64(0xFFFFFFFF)).astype(np.intp)
        starts_bucket = np.append(True, key[1:] != key[:-1])[: len(key)]
        bucket = np.cumsum(starts_bucket) - 1
        yield Buckets(member, bucket, member[starts_bucket][bucket])
