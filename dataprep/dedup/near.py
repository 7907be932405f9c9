"""Near-duplicates: candidates by MinHash, each proven by exact Jaccard; one of those that are alike stays."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import polars as pl

from dataprep import conversations as words
from dataprep.dedup.buffers import BATCH, blocks, offsets_of
from dataprep.dedup.clusters import Settled, settle
from dataprep.dedup.minhash import ALGORITHM, Sketches, sketches
from dataprep.dedup.normal import On, Rows, content_bytes, documents
from dataprep.dedup.plant import Budget, budget, plant
from dataprep.dedup.proof import Similarities, jaccard, prove
from dataprep.errors import RecipeError

RULE = "near_duplicate"
SKETCH = 350  # bytes that a conversation needs: its sketch, and places and pairs while they are sorted


@dataclass(frozen=True)
class NearReport:
    """What near-duplicate removal did, for the manifest and the report."""

    algorithm: str
    threshold: float
    on: str
    candidates: int  # pairs that share a band
    proven: int  # of them, those whose estimate is not far below the threshold
    alike: int  # of them, at the threshold or above
    dropped: int
    max_memory: int  # bytes it was allowed above the text itself
    error_budget: Budget


def drop_near_duplicates(
    conversations: pl.DataFrame,
    threshold: float = 0.8,
    on: On = "thread",
    max_memory: int | None = None,
    siblings: bool = False,
) -> tuple[pl.DataFrame, pl.DataFrame, NearReport]:
    """One of each group of conversations that are alike, in the order of the input, and the fates of the others.

    Alike: an exact Jaccard similarity of `threshold` or more on the word 5-grams of what they say (`on`). The best rank
    survives (null counts as 0), then the best quality label, the most reviews, the longest, the smallest id.

    Args:
        conversations: CONVERSATIONS.
        threshold: 0..1, exclusive of 0.
        on: the whole thread, only the user's messages, or only the answers.
        max_memory: bytes above the text itself (default: half of what the machine has).
        siblings: also compare threads of one tree, each by what follows their common beginning.

    Returns:
        kept (CONVERSATIONS), fates (FATES; rule `near_duplicate`, stage `dedup`), and what was done.

    Raises:
        RecipeError: `max_memory` is too little for the signatures, or `threshold` is none.
    """
    if not 0 < threshold <= 1:
        raise RecipeError(f"A near-duplicate threshold of {threshold} is no similarity; give one above 0 and up to 1.")
    corpus = Corpus(best_first(conversations), on, max_memory or half_of_memory(), siblings)
    made = corpus.sketches()
    settled, compared = settle(made, threshold, corpus.prove)
    lost = _lost(corpus.ranked, settled)
    kept = conversations.join(lost, on="row", how="anti", maintain_order="left")
    gone = conversations.join(lost, on="row", how="inner", maintain_order="left")
    fates = words.dropped(gone, "conversation", "dedup", RULE)
    report = NearReport(
        algorithm=ALGORITHM,
        threshold=threshold,
        on=on,
        candidates=len(compared.left),
        proven=int(np.isfinite(compared.similarity).sum()),
        alike=int((compared.similarity >= threshold).sum()),
        dropped=len(fates),
        max_memory=corpus.max_memory,
        error_budget=budget(plant(len(corpus.ranked), corpus.documents), made, corpus.documents, threshold),
    )
    return kept, fates, report


def best_first(conversations: pl.DataFrame) -> pl.DataFrame:
    """By rank, quality label, reviews, length and id: of those that are alike, the first survives."""
    sized = conversations.with_columns(pl.Series("size", content_bytes(conversations)))
    return sized.sort([by for _, by in _merits()]).drop("size")


class Corpus(NamedTuple):
    """Conversations, best first, and how they are compared."""

    ranked: pl.DataFrame
    on: On
    max_memory: int
    siblings: bool = False

    def documents(self, at: Rows) -> pl.Series:
        """What is compared of the conversations at these places."""
        return documents(self.ranked[at], self.on)

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


def _merits() -> list[tuple[str, pl.Expr]]:
    """What makes a conversation stay, in this order: a name, and a column of which less is better."""
    return [
        ("rank", pl.col("rank").fill_null(0)),
        ("quality label", -pl.col("quality").fill_null(-1.0)),
        ("number of reviews", -pl.col("review_count").fill_null(-1)),
        ("length", -pl.col("size")),
        ("id", pl.col("id")),
    ]


def _lost(ranked: pl.DataFrame, settled: Settled) -> pl.DataFrame:
    """row, survivor, similarity, detail of those that do not stay."""
    at = np.flatnonzero(settled.survivor >= 0)
    merits = ranked.with_columns(pl.Series("size", content_bytes(ranked))).select(
        "row", "id", *(by.alias(name) for name, by in _merits()[:-1])
    )
    pairs = merits[at].with_columns(pl.Series("similarity", settled.similarity[at]))
    pairs = pairs.hstack(merits[settled.survivor[at]].select(pl.all().name.suffix(" kept")))
    reason = pl.coalesce(pl.when(pl.col(name) != pl.col(f"{name} kept")).then(pl.lit(name)) for name, _ in _merits())
    return pairs.select(
        "row",
        "similarity",
        survivor="id kept",
        detail=pl.format(
            "Alike to '{}' ({} of their word 5-grams), which stays for its {}.",
            "id kept",
            pl.col("similarity").round(3),
            reason,
        ),
    )
