"""Pairs of documents worth a proof: those that share a band, as stars around the best of each bucket.

A bucket holds the documents with the same key in the same band; its head is the first, which is the best.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.dedup.normal_form import Rows

Keys = npt.NDArray[np.uint32]


class Buckets(NamedTuple):
    """The buckets of one band, and in each its members, ascending."""

    member: Rows  # [entries]
    bucket: Rows  # [entries] number of its bucket, from 0
    head: Rows  # [entries] the first member of its bucket


def star_pairs(keys: Keys) -> tuple[Rows, Rows]:
    """Each bucket's head with each other member of the bucket, every pair once.

    So a bucket of `n` gives n - 1 pairs, never all n (n - 1) / 2: what is common to a large share of documents costs no
    more than anything else.

    Args:
        keys: [documents, bands].

    Returns:
        heads and members (places in `keys`), heads first, both ascending; head < member.
    """
    pairs = np.zeros(0, np.uint64)
    for found in _buckets(keys):
        rest = found.member != found.head
        head, member = found.head[rest].astype(np.uint64), found.member[rest].astype(np.uint64)
        pairs = np.union1d(pairs, head << np.uint64(32) | member)
    return (pairs >> np.uint64(32)).astype(np.intp), (pairs & np.uint64(0xFFFFFFFF)).astype(np.intp)


def crowded(keys: Keys, standing: npt.NDArray[np.bool_], new: npt.NDArray[np.bool_]) -> Rows:
    """Those of the `standing` documents that stars have not told apart: two or more in one bucket, neither its head, and
    at least one of them `new`."""
    found = np.zeros(len(keys), bool)
    for member, bucket, head in _buckets(keys):
        rest = np.flatnonzero(standing[member] & (member != head))
        member, bucket = member[rest], bucket[rest]
        several = (np.bincount(bucket)[bucket] > 1) & (np.bincount(bucket, new[member])[bucket] > 0)
        found[member[several]] = True
    return np.flatnonzero(found)


def _buckets(keys: Keys) -> Iterator[Buckets]:
    """Of each band."""
    places = np.arange(len(keys), dtype=np.uint64)
    for band in range(keys.shape[1]):
        entries = np.sort(keys[:, band].astype(np.uint64) << np.uint64(32) | places)
        key, member = entries >> np.uint64(32), (entries & np.uint64(0xFFFFFFFF)).astype(np.intp)
        first = np.append(True, key[1:] != key[:-1])[: len(key)]
        bucket = np.cumsum(first) - 1
        yield Buckets(member, bucket, member[first][bucket])
