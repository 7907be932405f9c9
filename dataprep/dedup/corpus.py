"""Hold the conversations best first, and compare them within a memory bound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.common.errors import RecipeError
from dataprep.dedup.buffers import BATCH_BYTES, offsets_from_sizes, ranges_of_size
from dataprep.dedup.jaccard import Similarities, jaccard, pair_similarities
from dataprep.dedup.minhash import Sketches, sketch
from dataprep.dedup.normal_form import ComparedText, RowIndices, content_bytes, documents
from dataprep.dedup.prefix_filter import ENTRY_BYTES, MAX_DOCUMENTS, PrefixIndex

DOCUMENT_BYTES = 600  # memory per conversation: its sketch, and keys and pairs while they are sorted
NGRAM_FACTOR = 30  # bytes of memory per byte of text while its n-grams are held
MIN_BATCH_BYTES = 1 << 20  # minimum text at a time; with less memory than this needs, the work is refused
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")  # of a container, in bytes


def survival_order() -> list[tuple[str, pl.Expr]]:
    """Return the criteria by which a conversation survives, most important first: a name, and a column (less is better)."""
    return [
        ("rank", pl.col("rank").fill_null(0)),
        ("quality label", -pl.col("quality").fill_null(-1.0)),
        ("number of reviews", -pl.col("review_count").fill_null(-1)),
        ("length", -pl.col("size")),
        ("id", pl.col("id")),
    ]


def best_first(conversations: pl.DataFrame) -> pl.DataFrame:
    """Sort by rank, quality label, reviews, length and id: of similar conversations, the first survives."""
    sized = conversations.with_columns(pl.Series("size", content_bytes(conversations)))
    return sized.sort([column for _, column in survival_order()]).drop("size")


class SketchCache:
    """The sketches of whole threads by `row`, so that a split need not repeat the work of near-duplicate removal."""

    def __init__(self) -> None:
        """Create an empty cache."""
        self.rows = np.zeros(0, np.int64)  # ascending
        self.sketches = Sketches.empty(0)

    def put(self, rows: npt.NDArray[np.int64], sketches: Sketches) -> None:
        """Replace what the cache holds by the sketches of the conversations with these `row` numbers."""
        order = np.argsort(rows)
        self.rows, self.sketches = rows[order], sketches.take(order)

    def get(self, rows: npt.NDArray[np.int64]) -> Sketches | None:
        """Return the sketches of these conversations, or None if one is missing."""
        at = np.searchsorted(self.rows, rows)
        if not len(self.rows) or (at == len(self.rows)).any() or (self.rows[at] != rows).any():
            return None
        return self.sketches.take(at)


class Corpus(NamedTuple):
    """Conversations, best first, and how they are compared."""

    ranked: pl.DataFrame
    compared: ComparedText
    max_memory: int  # bytes above the text itself
    alternative: str  # what else to do if that is too little
    siblings: bool = False  # whether threads of one tree are compared
    contexts: pl.Series | None = None  # conversations with different ones are not similar (see `normal_form.contexts`)

    @property
    def free_memory(self) -> int:
        """Bytes left beside the sketches."""
        return self.max_memory - len(self.ranked) * DOCUMENT_BYTES

    @property
    def batch_bytes(self) -> int:
        """Bytes of text processed at a time."""
        return max(MIN_BATCH_BYTES, min(BATCH_BYTES, self.free_memory // (2 * NGRAM_FACTOR)))

    def documents(self, rows: RowIndices) -> pl.Series:
        """Return the compared text of these conversations."""
        return documents(self.ranked[rows], self.compared)

    def batches(
        self, rows: RowIndices, max_documents: int = MAX_DOCUMENTS, first: int | None = None
    ) -> Iterator[RowIndices]:
        """Divide `rows` into batches of at most `max_documents` and `batch_bytes` of text.

        Batches have `first` documents in the beginning, and double until they have `max_documents`.
        """
        start, size = 0, first or max_documents
        while start < len(rows):
            chunk = rows[start : start + size]
            start, size = start + size, min(2 * size, max_documents)
            for begin, stop in ranges_of_size(offsets_from_sizes(content_bytes(self.ranked[chunk])), self.batch_bytes):
                yield chunk[begin:stop]

    def sketches(self, cache: SketchCache | None = None) -> Sketches:
        """Sketch all conversations, one batch of documents at a time, or take the sketches from `cache`.

        Raises:
            RecipeError: `max_memory` is too little.
        """
        self.check_memory()
        rows, is_cacheable = self.ranked["row"].to_numpy(), cache is not None and self.compared == "thread"
        if cache is not None and is_cacheable and (cached := cache.get(rows)) is not None:
            return cached
        sketches = Sketches.empty(len(rows))
        for start, stop in ranges_of_size(offsets_from_sizes(content_bytes(self.ranked)), self.batch_bytes):
            sketches.write(start, sketch(documents(self.ranked[start:stop], self.compared)))
        if cache is not None and is_cacheable:
            cache.put(rows, sketches)
        return sketches

    def check_memory(self) -> None:
        """Check that `max_memory` allows sketches, and the comparison of the two longest conversations.

        Raises:
            RecipeError: it does not.
        """
        sizes = content_bytes(self.ranked)
        longest_two = int(np.sort(sizes)[-2:].sum())  # they may have to be compared
        minimum = NGRAM_FACTOR * max(2 * MIN_BATCH_BYTES, longest_two)
        if minimum > self.free_memory:
            longest = f" (the longest has {sizes.max() / 1e6:,.0f} MB)" if longest_two > 2 * MIN_BATCH_BYTES else ""
            needed = -(-(len(sizes) * DOCUMENT_BYTES + minimum) // 2**20)
            raise RecipeError(
                f"Comparing {len(sizes):,} conversations{longest} needs {needed:,} MiB, but --max-memory allows "
                f"{self.max_memory // 2**20:,} MiB. Allow more, or {self.alternative}."
            )

    def new_index(self, threshold: float) -> PrefixIndex:
        """Return an empty index that raises a RecipeError if its entries do not fit into the memory bound."""
        full = RecipeError(
            f"Comparing {len(self.ranked):,} conversations that share much of their text, or at a similarity of {threshold:g}, "
            f"needs more than the {self.max_memory // 2**20:,} MiB that --max-memory allows. Allow more, or {self.alternative}."
        )
        return PrefixIndex(threshold, self.free_memory // (2 * ENTRY_BYTES), full)

    def similarities(self, left: RowIndices, right: RowIndices) -> Similarities:
        """Return the exact similarity of each pair; of threads of one tree, of what follows their common beginning.

        It is 0 for threads of one tree unless `siblings` are compared, and for pairs with different `contexts`.
        """
        trees, result = self.ranked["tree_id"], np.zeros(len(left))
        same_tree = (trees.gather(left) == trees.gather(right)).fill_null(False).to_numpy()
        comparable = np.ones(len(left), bool)
        if self.contexts is not None:
            comparable = (self.contexts.gather(left) == self.contexts.gather(right)).to_numpy()
        others, siblings = np.flatnonzero(comparable & ~same_tree), np.flatnonzero(comparable & same_tree)
        result[others] = pair_similarities(
            self.ranked, self.compared, left[others], right[others], 2 * self.batch_bytes
        )
        if self.siblings:
            result[siblings] = self._sibling_similarities(left[siblings], right[siblings])
        return result

    def _sibling_similarities(self, left: RowIndices, right: RowIndices) -> Similarities:
        """Return the similarity of what follows the common beginning of each pair."""
        sides = [self.ranked[side].with_columns(pair=pl.int_range(pl.len())) for side in (left, right)]
        turns = [s.select("pair", "messages", at=pl.int_ranges(pl.col("messages").list.len())) for s in sides]
        left_turns, right_turns = (turn.explode("messages", "at", empty_as_null=False) for turn in turns)
        same = left_turns.join(right_turns, on=["pair", "at", "messages"], how="semi", maintain_order="left")
        # The common beginning: equal turns whose position equals the number of equal turns before them.
        in_prefix = pl.col("at") == pl.int_range(pl.len()).over("pair")
        common = same.filter(in_prefix).group_by("pair").len("common")
        rest = pl.col("messages").list.slice(pl.col("common").fill_null(0))
        ends = [
            documents(side.join(common, on="pair", how="left", maintain_order="left").with_columns(rest), self.compared)
            for side in sides
        ]
        pairs = np.arange(len(left))
        return jaccard(pl.concat(ends), pairs, pairs + len(left))


def half_of_memory() -> int:
    """Return half of the machine's memory, or half of a container's limit if that is lower, in bytes."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in map(Path, CGROUP_LIMITS):
        if file.is_file() and (text := file.read_text().strip()).isdigit():
            limits.append(int(text))
    return min(limits) // 2
