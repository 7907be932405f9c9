"""Remove conversations that differ from another only in Unicode form, case and white space.

Two steps. Equal conversations begin and end equally. So a few dozen characters at these edges are normalised first, one
edge after the other, each only for conversations that share the edges before with another one. (The first edge is part of
the fingerprint.) A conversation that shares all edges with no other one has no duplicate. The remaining ones, few in
practice, are normalised whole, in batches, and compared by a 128-bit key of their normal form.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
import polars.selectors as cs
import xxhash

from dataprep.dedup.buffers import offsets_from_sizes, on_threads, ranges_of_size, text_buffer
from dataprep.dedup.edges import ending, message_counts, opening
from dataprep.dedup.fate_frames import divided
from dataprep.dedup.fingerprints import FingerprintTable
from dataprep.dedup.folding import TEXT, apply_where, fold
from dataprep.dedup.normal_form import RowIndices
from dataprep.tables import StageResult, dropped

RULE = "exact_duplicate"
EDGES = 1 << 14  # edges normalised at a time
BATCH_BYTES = 1 << 22  # text normalised at a time


def drop_exact_duplicates(conversations: pl.DataFrame, table: FingerprintTable | None = None) -> StageResult[None]:
    """Keep one conversation of each group of equal ones.

    Equal conversations have the same tools and as many messages, with the same roles, names, calls and flags, and contents
    and reasoning that are equal in `exact_form`. The best rank survives (null counts as 0: an only child has no rank), then
    the longest, then the smallest id.

    Args:
        conversations: CONVERSATIONS.
        table: fingerprints of these conversations, if they are known.

    Returns:
        kept (CONVERSATIONS, in input order) and fates (FATES; rule `exact_duplicate`, stage `dedup`, similarity 1.0).
    """
    table = FingerprintTable.of(conversations, None, table)
    places = table.places(conversations["row"].to_numpy())
    candidates = _share_edges(conversations, table.fingerprints.opening[places])
    groups = _duplicate_groups(conversations, candidates, table.fingerprints.size[places[candidates]])
    duplicates = groups.filter(pl.col("id") != pl.col("survivor")).select("row", "survivor")
    if duplicates.is_empty():
        return StageResult(conversations)
    detail = pl.format("Equal to '{}' except for Unicode form, case or white space.", "survivor").alias("detail")
    kept, lost = divided(conversations, duplicates.with_columns(detail, pl.lit(1.0).alias("similarity")))
    return StageResult(kept, dropped(lost, "conversation", "dedup", RULE))


def exact_form(text: pl.Series) -> pl.Series:
    """Fold NFKC and case, collapse each run of white space to one space, and strip both ends."""
    # The same as r"\s+" and three times as fast, because it skips single spaces.
    collapsed = TEXT.str.replace_all(r" \s+|[^\S ]\s*", " ").str.strip_chars()
    return apply_where(fold(text), TEXT.str.contains(r"\s\s|[^\S ]|^\s|\s$"), collapsed)


def _message_rows(conversations: pl.DataFrame) -> pl.DataFrame:
    """Return role and content, one row per message, conversation after conversation."""
    return conversations.select(pl.col("messages").explode(empty_as_null=False, keep_nulls=False)).unnest("messages")


def _share_edges(conversations: pl.DataFrame, opening_keys: npt.NDArray[np.uint64]) -> RowIndices:
    """Return the conversations that share message count and edges (of the first and last message) with another one."""
    candidates = np.flatnonzero(pl.Series(opening_keys).is_duplicated().to_numpy())
    last = pl.col("messages").list.last().struct.field("content").fill_null("")
    frame = conversations[candidates].select(last.alias("last"), at=pl.Series(candidates), key=opening_keys[candidates])
    for edge in (opening, ending):
        parts = [frame["last"][start : start + EDGES] for start in range(0, max(len(frame), 1), EDGES)]
        edges = pl.concat(on_threads(edge, parts))
        frame = frame.with_columns(edges.alias(edge.__name__))
        frame = frame.filter(pl.struct(pl.exclude("at", "last")).is_duplicated())
    return frame["at"].to_numpy()


def _duplicate_groups(
    conversations: pl.DataFrame, candidates: RowIndices, sizes: npt.NDArray[np.int64]
) -> pl.DataFrame:
    """Return row, id, survivor of the candidates that equal another one, each with the id of its group's survivor."""
    best_first = [pl.col("rank").fill_null(0), -pl.col("size"), pl.col("id")]
    chosen = conversations.select("row", "id", "rank")[candidates]
    return (
        chosen.with_columns(size=pl.Series(sizes), key=_keys(conversations, candidates, sizes))
        .filter(pl.col("key").is_duplicated())
        .with_columns(survivor=pl.col("id").sort_by(best_first).first().over("key"))
    )


def _keys(conversations: pl.DataFrame, candidates: RowIndices, sizes: npt.NDArray[np.int64]) -> pl.Series:
    """Return 128 bits of XXH3 over roles and exact forms, as 16 bytes."""
    compared = conversations.select(cs.by_name("messages", "tools", require_all=False))

    def digests(bounds: tuple[int, int]) -> pl.Series:
        return pl.Series(_digests(compared[candidates[slice(*bounds)]]), dtype=pl.Binary)

    parts = on_threads(digests, ranges_of_size(offsets_from_sizes(sizes), BATCH_BYTES))
    return pl.concat([pl.Series([], dtype=pl.Binary), *parts])


def _digests(conversations: pl.DataFrame) -> list[bytes]:
    messages = _message_rows(conversations)
    messages = messages.with_columns(exact_form(messages["content"].fill_null("")).alias("content"))
    # Each message is preceded by its role and length, so that no content can imitate a message border.
    parts = ["role", pl.lit("\n"), pl.col("content").str.len_bytes(), pl.lit("\n"), "content"]
    if "reasoning_content" in messages.columns:
        messages = messages.with_columns(exact_form(messages["reasoning_content"]).alias("reasoning_content"))
    if "trained" in messages.columns:
        messages = messages.with_columns(pl.col("trained").fill_null(True).cast(pl.String))
    for name in ("reasoning_content", "tool_calls", "name", "trained"):
        if name in messages.columns:
            parts += [
                pl.col(name).str.len_bytes().cast(pl.String).fill_null("-"),
                pl.lit("\n"),
                pl.col(name).fill_null(""),
            ]
    framed = pl.concat_str(parts)
    texts = text_buffer(messages.select(framed).to_series()).concatenated(message_counts(conversations))
    view, bounds = memoryview(texts.data.data), texts.offsets.tolist()
    # xxhash takes one buffer at a time: 0.3 µs per conversation, and only for candidates.
    digests = [xxhash.xxh3_128_digest(view[a:b]) for a, b in pairwise(bounds)]
    if "tools" not in conversations.columns:
        return digests
    tools = conversations["tools"].fill_null("")
    return [xxhash.xxh3_128_digest(digest + text.encode()) for digest, text in zip(digests, tools, strict=True)]
