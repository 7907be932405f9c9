"""Conversations in the order in which they stay, and how they are compared within a bound of memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import polars as pl

from dataprep.dedup.buffers import BATCH, blocks, offsets_of
from dataprep.dedup.minhash import Sketches, sketches
from dataprep.dedup.normal import On, Rows, content_bytes, documents
from dataprep.dedup.proof import Similarities, jaccard, prove
from dataprep.dedup.rare import MOST
from dataprep.errors import RecipeError

SKETCH = 350  # bytes that a conversation needs: its sketch, and places and pairs while they are sorted


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
    max_memory: int
    siblings: bool = False

    def documents(self, at: Rows) -> pl.Series:
        """What is compared of the conversations at these places."""
        return documents(self.ranked[at], self.on)

    def batches(self, at: Rows, most: int = MOST) -> Iterator[Rows]:
        """These places, at most `most` and `BATCH` bytes at a time."""
        for start in range(0, len(at), most):
            some = at[start : start + most]
            for begin, stop in blocks(offsets_of(content_bytes(self.ranked[some])), BATCH):
                yield some[begin:stop]

    def sketches(self) -> Sketches:
        """Of all conversations, made a batch of documents at a time.

        Raises:
            RecipeError: `max_memory` is too little for them.
        """
        count = len(self.ranked)
        least = count * SKETCH + 30 * BATCH
        if least > self.max_memory:
            raise RecipeError(
                f"{count:,} conversations need {-(-least // 2**20):,} MiB to be searched for near-duplicates, but "
                f"--max-memory allows {self.max_memory // 2**20:,} MiB; allow more, or give --near-dup off."
            )
        made = Sketches.empty(count)
        for start, stop in blocks(offsets_of(content_bytes(self.ranked)), BATCH):
            made.put(start, sketches(documents(self.ranked[start:stop], self.on)))
        return made

    def prove(self, left: Rows, right: Rows) -> Similarities:
        """Exact similarities; threads of one tree by what follows their common beginning, or 0 where siblings are not
        compared."""
        trees = self.ranked["tree_id"]
        kin = (trees.gather(left) == trees.gather(right)).fill_null(False).to_numpy()
        found = np.zeros(len(left))
        found[~kin] = prove(self.ranked, self.on, left[~kin], right[~kin])
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
    """Half of the machine's memory, in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
