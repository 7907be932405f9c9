"""Pairs of documents worth a proof: those that share a band, as stars around the best of each bucket."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dataprep.dedup.normal import Rows


def star_pairs(keys: npt.NDArray[np.uint32], members: Rows) -> tuple[Rows, Rows]:
    """Each bucket's head with each other member of the bucket, every pair once.

    A bucket holds the documents with the same key in the same band; its head is the first. So a bucket of `n` gives
    n - 1 pairs, never all n (n - 1) / 2: what is common to a large share of documents costs no more than anything else.

    Args:
        keys: [documents, bands].
        members: places in `keys`, ascending; only these are looked at.

    Returns:
        heads and members (places in `keys`), heads first, both ascending; head < member.
    """
    pairs = np.zeros(0, np.uint64)
    for band in range(keys.shape[1]):
        entries = np.sort(keys[members, band].astype(np.uint64) << np.uint64(32) | members.astype(np.uint64))
        key, member = entries >> np.uint64(32), entries & np.uint64(0xFFFFFFFF)
        first = np.append(True, key[1:] != key[:-1])[: len(key)]
        head = member[np.maximum.accumulate(np.where(first, np.arange(len(key)), 0))]
        pairs = np.union1d(pairs, (head << np.uint64(32) | member)[~first])
    return (pairs >> np.uint64(32)).astype(np.intp), (pairs & np.uint64(0xFFFFFFFF)).astype(np.intp)
