"""Near-duplicates: candidates by MinHash, each proven by exact Jaccard; one of those that are alike stays."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from dataprep import tables as words
from dataprep.common.errors import RecipeError
from dataprep.dedup.corpus import Corpus, best_first, half_of_memory, merits
from dataprep.dedup.minhash import ALGORITHM
from dataprep.dedup.normal_form import On, content_bytes
from dataprep.dedup.recall import Budget, budget, plant
from dataprep.dedup.survivors import Settled, settle
from dataprep.recipe import Recipe

RULE = "near_duplicate"


@dataclass(frozen=True)
class NearReport:
    """What near-duplicate removal did, for the manifest and the report."""

    algorithm: str
    threshold: float
    on: str
    candidates: int  # pairs of documents that share a band or rare grams
    proven: int  # of them, those whose estimate is not far below the threshold
    alike: int  # of them, at the threshold or above
    dropped: int
    max_memory: int  # bytes it was allowed above the text itself
    error_budget: Budget


def remove_near_duplicates(
    conversations: pl.DataFrame, recipe: Recipe, max_memory: int | None
) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any] | None]:
    """Drop near-duplicates as `recipe` asks: (kept, fates, manifest entry); the entry is None if the step is off."""
    threshold = recipe.near_threshold
    if threshold is None or conversations.is_empty():
        return conversations, words.no_fates(), None
    kept, fates, report = drop_near_duplicates(
        conversations, threshold, recipe.near_dup_on, max_memory, recipe.near_dup_siblings
    )
    return kept, fates, asdict(report)


def duplicate_pairs(conversations: pl.DataFrame, fates: pl.DataFrame) -> pl.DataFrame:
    """Return the messages of each near-duplicate beside those of its survivor.

    Columns: id, survivor, similarity, detail, messages, survivor_messages.
    """
    texts = conversations.select("id", "messages")
    survivor_texts = texts.rename({"id": "survivor", "messages": "survivor_messages"})
    pairs = fates.select("id", "survivor", "similarity", "detail").join(texts, on="id", maintain_order="left")
    return pairs.join(survivor_texts, on="survivor", maintain_order="left")


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
    corpus = Corpus(best_first(conversations), on, max_memory or half_of_memory(), "give --near-dup off", siblings)
    made = corpus.sketches()
    settled, proven, candidates = settle(corpus, made, threshold)
    lost = _lost(corpus.ranked, settled)
    kept = conversations.join(lost, on="row", how="anti", maintain_order="left")
    gone = conversations.join(lost, on="row", how="inner", maintain_order="left")
    fates = words.dropped(gone, "conversation", "dedup", RULE)
    report = NearReport(
        algorithm=ALGORITHM,
        threshold=threshold,
        on=on,
        candidates=candidates,
        proven=proven.pairs,
        alike=len(proven.left),
        dropped=len(fates),
        max_memory=corpus.max_memory,
        error_budget=budget(plant(len(corpus.ranked), corpus.documents), made, corpus.documents, threshold),
    )
    return kept, fates, report


def _lost(ranked: pl.DataFrame, settled: Settled) -> pl.DataFrame:
    """row, survivor, similarity, detail of those that do not stay."""
    at = np.flatnonzero(settled.survivor >= 0)
    judged = ranked.with_columns(pl.Series("size", content_bytes(ranked))).select(
        "row", "id", *(by.alias(name) for name, by in merits()[:-1])
    )
    pairs = judged[at].with_columns(pl.Series("similarity", settled.similarity[at]))
    pairs = pairs.hstack(judged[settled.survivor[at]].select(pl.all().name.suffix(" kept")))
    reason = pl.coalesce(pl.when(pl.col(name) != pl.col(f"{name} kept")).then(pl.lit(name)) for name, _ in merits())
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
