"""Remove near-duplicates: MinHash finds candidates, exact Jaccard similarity verifies each, and one of each group survives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from dataprep.common.errors import RecipeError
from dataprep.dedup.corpus import Corpus, SketchCache, best_first, half_of_memory, survival_order
from dataprep.dedup.minhash import ALGORITHM, MIN_THRESHOLD
from dataprep.dedup.normal_form import ComparedText, content_bytes, contexts
from dataprep.dedup.prefix_filter import ALGORITHM as EXACT_ALGORITHM
from dataprep.dedup.recall import RecallEstimate, estimate_recall
from dataprep.dedup.survivors import Survivors, choose_survivors
from dataprep.recipe import Recipe
from dataprep.tables import StageResult, dropped

RULE = "near_duplicate"


@dataclass(frozen=True)
class NearReport:
    """What near-duplicate removal did; the field names are those of the manifest."""

    algorithm: str
    threshold: float
    on: str
    candidates: int  # pairs of documents that share a band or rare n-grams
    proven: int  # candidates that were verified: their estimate is not far below the threshold
    alike: int  # verified pairs at or above the threshold
    dropped: int
    max_memory: int  # bytes that were allowed above the text itself
    error_budget: RecallEstimate


def remove_near_duplicates(
    conversations: pl.DataFrame, recipe: Recipe, max_memory: int | None, cache: SketchCache | None = None
) -> StageResult[dict[str, Any] | None]:
    """Drop near-duplicates as `recipe` asks; the report is the manifest's entry, or None if the step is off."""
    threshold = recipe.near_threshold
    if threshold is None or conversations.is_empty():
        return StageResult(conversations)
    result = drop_near_duplicates(
        conversations, threshold, recipe.near_dup_on, max_memory, recipe.near_dup_siblings, cache
    )
    return StageResult(result.kept, result.fates, report=asdict(result.report))


def drop_near_duplicates(
    conversations: pl.DataFrame,
    threshold: float = 0.8,
    compared: ComparedText = "thread",
    max_memory: int | None = None,
    siblings: bool = False,
    cache: SketchCache | None = None,
) -> StageResult[NearReport]:
    """Keep one conversation of each group of near-duplicates.

    Near-duplicates have an exact Jaccard similarity of `threshold` or more on the word 5-grams of their `compared` text, the
    same tools and the same trained answers. The best rank survives (null counts as 0), then the best quality label, the
    most reviews, the longest, the smallest id. Thresholds from `minhash.MIN_THRESHOLD` on use sketches to find candidates;
    lower ones use an exact search, which is slower.

    Args:
        conversations: CONVERSATIONS.
        threshold: above 0, up to 1.
        compared: the whole thread, only the user's messages, or only the answers.
        max_memory: bytes above the text itself (default: half of the machine's memory).
        siblings: also compare threads of one tree, each by what follows their common beginning.
        cache: is filled with the sketches, for the split.

    Returns:
        kept (CONVERSATIONS, in input order), fates (FATES; rule `near_duplicate`, stage `dedup`), and the report.

    Raises:
        RecipeError: `max_memory` is too little, or `threshold` is out of range.
    """
    if not 0 < threshold <= 1:
        raise RecipeError(f"A near-duplicate threshold of {threshold} is out of range; give one above 0 and up to 1.")
    ranked, memory = best_first(conversations), max_memory or half_of_memory()
    corpus = Corpus(ranked, compared, memory, "give --near-dup off", siblings, contexts(ranked))
    corpus.check_memory()
    sketches = corpus.sketches(cache) if threshold >= MIN_THRESHOLD else None
    survivors, similar, candidates, _ = choose_survivors(corpus, sketches, threshold)
    duplicates = _explain(corpus.ranked, survivors)
    kept = conversations.join(duplicates, on="row", how="anti", maintain_order="left")
    lost = conversations.join(duplicates, on="row", how="inner", maintain_order="left")
    fates = dropped(lost, "conversation", "dedup", RULE)
    report = NearReport(
        algorithm=ALGORITHM if sketches else EXACT_ALGORITHM,
        threshold=threshold,
        on=compared,
        candidates=candidates,
        proven=similar.compared,
        alike=len(similar.left),
        dropped=len(fates),
        max_memory=corpus.max_memory,
        error_budget=estimate_recall(len(corpus.ranked), sketches, corpus.documents, threshold),
    )
    return StageResult(kept, fates, report=report)


def duplicate_pairs(conversations: pl.DataFrame, fates: pl.DataFrame) -> pl.DataFrame:
    """Return the messages of each near-duplicate beside those of its survivor.

    Columns: id, survivor, similarity, detail, messages, survivor_messages.
    """
    texts = conversations.select("id", "messages")
    survivor_texts = texts.rename({"id": "survivor", "messages": "survivor_messages"})
    pairs = fates.select("id", "survivor", "similarity", "detail").join(texts, on="id", maintain_order="left")
    return pairs.join(survivor_texts, on="survivor", maintain_order="left")


def _explain(ranked: pl.DataFrame, survivors: Survivors) -> pl.DataFrame:
    """Return row, survivor, similarity and detail of each near-duplicate; the detail names the criterion that decided."""
    lost = np.flatnonzero(survivors.survivor >= 0)
    criteria = ranked.with_columns(pl.Series("size", content_bytes(ranked))).select(
        "row", "id", *(column.alias(name) for name, column in survival_order()[:-1])
    )
    pairs = criteria[lost].with_columns(pl.Series("similarity", survivors.similarity[lost]))
    pairs = pairs.hstack(criteria[survivors.survivor[lost]].select(pl.all().name.suffix(" kept")))
    reason = pl.coalesce(
        pl.when(pl.col(name) != pl.col(f"{name} kept")).then(pl.lit(name)) for name, _ in survival_order()
    )
    similarity = pl.col("similarity").round(3)
    detail = pl.format(
        "Near-duplicate of '{}' (similarity {} on word 5-grams), which is kept for its {}.",
        "id kept",
        similarity,
        reason,
    )
    return pairs.select("row", "similarity", survivor="id kept", detail=detail)
