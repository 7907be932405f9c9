"""Conversations in the order in which they stay, and how they are compared within a bound of memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl

from dataprep.common.errors import RecipeError
from dataprep.dedup.buffers import BATCH, blocks, offsets_of
from dataprep.dedup.jaccard import Similarities, jaccard, prove
from dataprep.dedup.minhash import Sketches, sketches
from dataprep.dedup.normal_form import On, Rows, content_bytes, documents
from dataprep.dedup.prefix_filter import ENTRY, MOST, Index

SKETCH = 600  # bytes that a conversation needs: its sketch, and places and pairs while they are sorted
GRAMS = 30  # bytes that a byte of text needs while its grams are at hand
LEAST = 1 << 20  # bytes of text at a time, with which the work is still done
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container, in bytes


def merits() -> list[tuple[str, pl.Expr]]:
    """What makes a conversation stay, in this order: a name, and a column of which less is better."""
    return [
        ("rank", pl.col("rank").fill_null(0)),
        ("quality label", -pl.col("quality").fill_null(-1.0)),
        ("number of reviews", -pl.col("review_count").fill_null(-1)),
        ("length", -pl.col("size")),
        ("id", pl.col("id")),
    ]


def best_first(conversations: pl.DataFrame) -> pl.DataFrame:
    """By rank, quality label, reviews, length and id: of those that are alike, the first survives."""
    sized = conversations.with_columns(pl.Series("size", content_bytes(conversations)))
    return sized.sort([by for _, by in merits()]).drop("size")


class Corpus(NamedTuple):
    """Conversations, best first, and how they are compared."""

    ranked: pl.DataFrame
    on: On
    max_memory: int  # bytes above the text itself
    instead: str  # what to do where that is too little, but for allowing more
    siblings: bool = False

    @property
    def room(self) -> int:
        """Bytes left beside the sketches."""
        return self.max_memory - len(self.ranked) * SKETCH

    @property
    def batch(self) -> int:
        """Bytes of text worked on at a time."""
        return max(LEAST, min(BATCH, self.room // (2 * GRAMS)))

    def documents(self, at: Rows) -> pl.Series:
        """What is compared of the conversations at these places."""
        return documents(self.ranked[at], self.on)

    def batches(self, at: Rows, most: int = MOST) -> Iterator[Rows]:
        """These places, at most `most` and `batch` bytes of text at a time."""
        for start in range(0, len(at), most):
            some = at[start : start + most]
            for begin, stop in blocks(offsets_of(content_bytes(self.ranked[some])), self.batch):
                yield some[begin:stop]

    def sketches(self) -> Sketches:
        """Of all conversations, made a batch of documents at a time.

        Raises:
            RecipeError: `max_memory` is too little for them.
        """
        sizes = content_bytes(self.ranked)
        pair = int(np.sort(sizes)[-2:].sum())  # the two longest may have to be compared
        least = GRAMS * max(2 * LEAST, pair)
        if least > self.room:
            longest = f" (the longest has {sizes.max() / 1e6:,.0f} MB)" if pair > 2 * LEAST else ","
            raise RecipeError(
                f"{len(sizes):,} conversations need {-(-(len(sizes) * SKETCH + least) // 2**20):,} MiB to be compared{longest} "
                f"but --max-memory allows {self.max_memory // 2**20:,} MiB; allow more, or {self.instead}."
            )
        made = Sketches.empty(len(sizes))
        for start, stop in blocks(offsets_of(sizes), self.batch):
            made.put(start, sketches(documents(self.ranked[start:stop], self.on)))
        return made

    def new_index(self, threshold: float) -> Index:
        """An index for the first grams of as many as there is room for; a RecipeError where they are more."""
        full = RecipeError(
            f"So many of {len(self.ranked):,} conversations share much of their text that comparing them takes more than "
            f"the {self.max_memory // 2**20:,} MiB that --max-memory allows; allow more, or {self.instead}."
        )
        return Index(threshold, self.room // (2 * ENTRY), full)

    def prove(self, left: Rows, right: Rows) -> Similarities:
        """Exact similarities; threads of one tree by what follows their common beginning, or 0 where siblings are not
        compared."""
        trees = self.ranked["tree_id"]
        kin = (trees.gather(left) == trees.gather(right)).fill_null(False).to_numpy()
        found = np.zeros(len(left))
        found[~kin] = prove(self.ranked, self.on, left[~kin], right[~kin], 2 * self.batch)
        if self.siblings:
            found[kin] = self._of_kin(left[kin], right[kin])
        return found

    def _of_kin(self, left: Rows, right: Rows) -> Similarities:
        sides = [self.ranked[side].with_columns(pair=pl.int_range(pl.len())) for side in (left, right)]
        turns = [s.select("pair", "messages", at=pl.int_ranges(pl.col("messages").list.len())) for s in sides]
        one, other = (turn.explode("messages", "at", empty_as_null=False) for turn in turns)
        same = one.join(other, on=["pair", "at", "messages"], how="semi", maintain_order="left")
        # The common beginning: equal turns whose place is their number among the equal ones.
        common = same.filter(pl.col("at") == pl.int_range(pl.len()).over("pair")).group_by("pair").len("common")
        tails = [
            documents(
                side.join(common, on="pair", how="left", maintain_order="left").with_columns(
                    pl.col("messages").list.slice(pl.col("common").fill_null(0))
                ),
                self.on,
            )
            for side in sides
        ]
        pairs = np.arange(len(left))
        return jaccard(pl.concat(tails), pairs, pairs + len(left))


def half_of_memory() -> int:
    """Half of the machine's memory, or of what a container may have of it, in bytes."""
    allowed = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in map(Path, LIMITS):
        if limit.is_file() and (told := limit.read_text().strip()).isdigit():
            allowed.append(int(told))
    return min(allowed) // 2
