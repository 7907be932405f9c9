"""Remove near-duplicates: MinHash finds candidates, exact Jaccard similarity verifies each, and one of each group survives."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from dataprep.common.errors import RecipeError
from dataprep.dedup.corpus import Corpus, best_first, half_of_memory, survival_order
from dataprep.dedup.fate_frames import divided
from dataprep.dedup.fingerprints import FingerprintTable
from dataprep.dedup.minhash import ALGORITHM, MIN_THRESHOLD
from dataprep.dedup.normal_form import ComparedText, RowIndices
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
    conversations: pl.DataFrame, recipe: Recipe, max_memory: int | None, table: FingerprintTable | None = None
) -> StageResult[dict[str, Any] | None]:
    """Drop near-duplicates as `recipe` asks; the report is the manifest's entry, or None if the step is off."""
    threshold = recipe.near_threshold
    if threshold is None or conversations.is_empty():
        return StageResult(conversations)
    result = drop_near_duplicates(
        conversations, threshold, recipe.near_dup_on, max_memory, recipe.near_dup_siblings, table
    )
    return StageResult(result.kept, result.fates, report=asdict(result.report))


def drop_near_duplicates(
    conversations: pl.DataFrame,
    threshold: float = 0.8,
    compared: ComparedText = "thread",
    max_memory: int | None = None,
    siblings: bool = False,
    table: FingerprintTable | None = None,
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
        table: fingerprints of these conversations, if they are known.

    Returns:
        kept (CONVERSATIONS, in input order), fates (FATES; rule `near_duplicate`, stage `dedup`), and the report.

    Raises:
        RecipeError: `max_memory` is too little, or `threshold` is out of range.
    """
    if not 0 < threshold <= 1:
        raise RecipeError(f"A near-duplicate threshold of {threshold} is out of range; give one above 0 and up to 1.")
    with_sketches = threshold >= MIN_THRESHOLD
    corpus, table = _numbered(conversations, compared, max_memory or half_of_memory(), siblings, with_sketches, table)
    sketches = table.sketches(corpus.rows) if with_sketches else None
    survivors, similar, candidates, _ = choose_survivors(corpus, sketches, threshold)
    kept, lost = divided(conversations, _explain(corpus, survivors))
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
        error_budget=estimate_recall(corpus.count, sketches, corpus.documents, threshold),
    )
    return StageResult(kept, fates, report=report)


def _numbered(
    conversations: pl.DataFrame,
    compared: ComparedText,
    max_memory: int,
    siblings: bool,
    with_sketches: bool,
    table: FingerprintTable | None,
) -> tuple[Corpus, FingerprintTable]:
    """Number the conversations best first; return them with a table of their fingerprints, made if need be.

    Raises:
        RecipeError: `max_memory` is too little.
    """
    table = FingerprintTable.of(conversations, None, table)
    places = table.places(conversations["row"].to_numpy())
    sizes, contexts = table.fingerprints.size[places], table.fingerprints.context[places]
    order = best_first(conversations, sizes)
    corpus = Corpus(
        conversations, order, sizes[order], compared, max_memory, "give --near-dup off", siblings, contexts[order]
    )
    corpus.check_memory()
    return corpus, FingerprintTable.of(conversations, compared, table) if with_sketches else table


def duplicate_pairs(conversations: pl.DataFrame, fates: pl.DataFrame) -> pl.DataFrame:
    """Return the messages of each near-duplicate beside those of its survivor.

    Columns: id, survivor, similarity, detail, messages, survivor_messages.
    """
    texts = conversations.select("id", "messages")
    survivor_texts = texts.rename({"id": "survivor", "messages": "survivor_messages"})
    pairs = fates.select("id", "survivor", "similarity", "detail").join(texts, on="id", maintain_order="left")
    return pairs.join(survivor_texts, on="survivor", maintain_order="left")


def _explain(corpus: Corpus, survivors: Survivors) -> pl.DataFrame:
    """Return row, survivor, similarity and detail of each near-duplicate; the detail names the criterion that decided."""
    lost = np.flatnonzero(survivors.survivor >= 0)
    dropped_criteria, kept_criteria = (_criteria(corpus, rows) for rows in (lost, survivors.survivor[lost]))
    pairs = dropped_criteria.with_columns(pl.Series("similarity", survivors.similarity[lost]))
    pairs = pairs.hstack(kept_criteria.select(pl.all().name.suffix(" kept")))
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


def _criteria(corpus: Corpus, documents: RowIndices) -> pl.DataFrame:
    """Return `row`, `id` and the other criteria of survival of some documents."""
    columns = corpus.conversations.select("row", "id", "rank", "quality", "review_count")[corpus.order[documents]]
    return columns.with_columns(pl.Series("size", corpus.sizes[documents])).select(
        "row", "id", *(column.alias(name) for name, column in survival_order()[:-1])
    )
