"""Hold the conversations best first, and compare them within a memory bound."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from dataprep.common.errors import RecipeError
from dataprep.dedup.buffers import BATCH_BYTES, offsets_from_sizes, ranges_of_size
from dataprep.dedup.jaccard import Similarities, jaccard, pair_similarities
from dataprep.dedup.normal_form import ComparedText, RowIndices, documents
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


def best_first(conversations: pl.DataFrame, sizes: npt.NDArray[np.int64]) -> RowIndices:
    """Return the order by rank, quality label, reviews, length and id: of similar conversations, the first survives.

    Args:
        conversations: columns of `tables.CONVERSATIONS`.
        sizes: bytes of the texts of each (see `normal_form.content_bytes`).
    """
    criteria = conversations.select(pl.col("rank", "quality", "review_count", "id"), size=pl.Series(sizes))
    order = criteria.select(pl.arg_sort_by([column for _, column in survival_order()]))
    return order.to_series().to_numpy().astype(np.intp)


@dataclass(frozen=True)
class Corpus:
    """Conversations, numbered best first, and how they are compared.

    The frame itself stays in its order, because sorting it would copy what it holds of each conversation.
    """

    conversations: pl.DataFrame  # CONVERSATIONS
    order: RowIndices  # [documents] where each is in the frame
    sizes: npt.NDArray[np.int64]  # [documents] bytes of its texts
    compared: ComparedText
    max_memory: int  # bytes above the text itself
    alternative: str  # what else to do if that is too little
    siblings: bool = False  # whether threads of one tree are compared
    contexts: npt.NDArray[np.uint64] | None = None  # [documents] those with different ones are not similar

    @property
    def count(self) -> int:
        """Number of conversations."""
        return len(self.order)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """[documents] The `row` of each conversation."""
        return self.conversations["row"].to_numpy()[self.order]

    @property
    def free_memory(self) -> int:
        """Bytes left beside the sketches."""
        return self.max_memory - self.count * DOCUMENT_BYTES

    @property
    def batch_bytes(self) -> int:
        """Bytes of text processed at a time."""
        return max(MIN_BATCH_BYTES, min(BATCH_BYTES, self.free_memory // (2 * NGRAM_FACTOR)))

    def messages(self, rows: RowIndices) -> pl.DataFrame:
        """Return the column `messages` of these documents."""
        return self.conversations.select("messages")[self.order[rows]]

    def documents(self, rows: RowIndices) -> pl.Series:
        """Return the compared text of these documents."""
        return documents(self.messages(rows), self.compared)

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
            for begin, stop in ranges_of_size(offsets_from_sizes(self.sizes[chunk]), self.batch_bytes):
                yield chunk[begin:stop]

    def check_memory(self) -> None:
        """Check that `max_memory` allows sketches, and the comparison of the two longest conversations.

        Raises:
            RecipeError: it does not.
        """
        sizes = self.sizes
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
            f"Comparing {self.count:,} conversations that share much of their text, or at a similarity of {threshold:g}, "
            f"needs more than the {self.max_memory // 2**20:,} MiB that --max-memory allows. Allow more, or {self.alternative}."
        )
        return PrefixIndex(threshold, self.free_memory // (2 * ENTRY_BYTES), full)

    def similarities(self, left: RowIndices, right: RowIndices) -> Similarities:
        """Return the exact similarity of each pair; of threads of one tree, of what follows their common beginning.

        It is 0 for threads of one tree unless `siblings` are compared, and for pairs with different `contexts`.
        """
        trees, result = self.conversations["tree_id"], np.zeros(len(left))
        same_tree = trees.gather(self.order[left]) == trees.gather(self.order[right])
        is_sibling, comparable = same_tree.fill_null(False).to_numpy(), np.ones(len(left), bool)
        if self.contexts is not None:
            comparable = self.contexts[left] == self.contexts[right]
        others, siblings = np.flatnonzero(comparable & ~is_sibling), np.flatnonzero(comparable & is_sibling)
        result[others] = self.text_similarities(left[others], right[others])
        if self.siblings:
            pair_sizes = offsets_from_sizes(self.sizes[left[siblings]] + self.sizes[right[siblings]])
            for start, stop in ranges_of_size(pair_sizes, self.batch_bytes):
                pairs = siblings[start:stop]
                result[pairs] = self._sibling_similarities(left[pairs], right[pairs])
        return result

    def text_similarities(self, left: RowIndices, right: RowIndices) -> Similarities:
        """Return the exact similarity of the texts of each pair."""
        return pair_similarities(self.documents, self.sizes, left, right, self.batch_bytes)

    def _sibling_similarities(self, left: RowIndices, right: RowIndices) -> Similarities:
        """Return the similarity of what follows the common beginning of each pair."""
        sides = [self.messages(side).with_columns(pair=pl.int_range(pl.len())) for side in (left, right)]
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
