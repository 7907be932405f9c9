"""Generate candidate pairs from LSH buckets, as stars around the first document of each bucket.

A bucket holds the documents with the same key in the same band. Documents are numbered best first, so the first document
of a bucket, its *head*, is the one that would survive the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from dataprep.dedup.buffers import offsets_from_sizes, packed, sorted_numbers, sorted_unique, unpacked
from dataprep.dedup.normal_form import RowIndices

BandKeys = Iterable[npt.NDArray[np.uint32]]  # for each band, the key of each document


class Buckets(NamedTuple):
    """The buckets of one band with two or more documents: one entry for each document, by bucket, then by document."""

    member: RowIndices  # [entries]
    bucket: RowIndices  # [entries] number of its bucket, from 0
    head: RowIndices  # [entries] the first member of its bucket


class Groups(NamedTuple):
    """Groups of documents, one after the other; a document can be in several of them."""

    member: RowIndices  # [entries] ascending in each group
    size: RowIndices  # [groups]

    def count_pairs(self) -> int:
        """Return how many pairs there are within groups; a pair counts once for each group that it is in."""
        return int((self.size * (self.size - 1) // 2).sum())

    def pairs(self) -> tuple[RowIndices, RowIndices]:
        """Return the pairs within groups, each once, sorted: left < right."""
        ends = np.repeat(np.cumsum(self.size), self.size)
        after = ends - np.arange(len(self.member)) - 1  # members of the same group that come after each entry
        first = np.repeat(np.arange(len(self.member)), after)
        second = np.arange(len(first)) - offsets_from_sizes(after)[first] + first + 1
        return unpacked(sorted_unique(packed(self.member[first], self.member[second])))


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
        pairs = sorted_unique(np.concatenate([pairs, packed(buckets.head[others], buckets.member[others])]))
    return unpacked(pairs)


def uncompared_survivors(bands: BandKeys, survives: npt.NDArray[np.bool_], is_new: npt.NDArray[np.bool_]) -> Groups:
    """Return, for each bucket, its survivors without its head, if they are two or more and one of them `is_new`.

    Star pairs say nothing about the similarity of such survivors.
    """
    members, sizes = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    for member, bucket, head in _buckets(bands):
        others = np.flatnonzero(survives[member] & (member != head))
        member, bucket = member[others], bucket[others]
        size = np.bincount(bucket)
        chosen = (size > 1) & (np.bincount(bucket, is_new[member]) > 0)
        members.append(member[chosen[bucket]])
        sizes.append(size[chosen])
    return Groups(np.concatenate(members), np.concatenate(sizes))


def _buckets(bands: BandKeys) -> Iterator[Buckets]:
    """Yield the buckets of each band that have two documents or more."""
    for keys in bands:
        entries = sorted_numbers(packed(keys, np.arange(len(keys))))
        as_next = np.diff(entries >> np.uint64(32)) == 0
        key, member = unpacked(entries[(np.append(as_next, False) | np.append(False, as_next))[: len(entries)]])
        starts_bucket = np.append(True, key[1:] != key[:-1])[: len(key)]
        bucket = np.cumsum(starts_bucket) - 1
        yield Buckets(member, bucket, member[starts_bucket][bucket])
