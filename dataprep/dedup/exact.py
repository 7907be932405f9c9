"""Remove conversations that differ from another only in Unicode form, case and white space.

Two steps. Equal conversations begin and end equally. So a few dozen characters at these edges are normalised first, one
edge after the other, each only for conversations that share the edges before with another one. A conversation that shares
all edges with no other one has no duplicate. The remaining ones, few in practice, are normalised whole, in batches, and
compared by a 128-bit key of their normal form.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from dataprep.dedup.buffers import offsets_from_sizes, ranges_of_size, text_buffer
from dataprep.dedup.folding import TEXT, apply_where, fold
from dataprep.dedup.normal_form import RowIndices, content_bytes
from dataprep.tables import StageResult, dropped

RULE = "exact_duplicate"
BATCH_BYTES = 1 << 22  # text normalised at a time

# Marks, and Kirat Rai's vowels, which compose without being marks.
_COMPOSING = r"[\p{M}\x{16d63}\x{16d67}-\x{16d6a}]"

EDGE_CHARS = 20  # characters compared at each edge
CUT_CHARS = 40  # characters normalised to get them
MARGIN_CHARS = 8  # characters at the inner end of the cut that the rest of the text might change


def drop_exact_duplicates(conversations: pl.DataFrame) -> StageResult[None]:
    """Keep one conversation of each group of equal ones.

    Equal conversations have the same tools and as many messages, with the same roles, names, calls and flags, and contents
    and reasoning that are equal in `exact_form`. The best rank survives (null counts as 0: an only child has no rank), then
    the longest, then the smallest id.

    Args:
        conversations: CONVERSATIONS.

    Returns:
        kept (CONVERSATIONS, in input order) and fates (FATES; rule `exact_duplicate`, stage `dedup`, similarity 1.0).
    """
    groups = _duplicate_groups(conversations, _share_edges(conversations))
    duplicates = groups.filter(pl.col("id") != pl.col("survivor")).select("row", "survivor")
    if duplicates.is_empty():
        return StageResult(conversations)
    detail = pl.format("Equal to '{}' except for Unicode form, case or white space.", "survivor").alias("detail")
    lost = conversations.join(duplicates, on="row", how="inner", maintain_order="left").with_columns(
        detail, pl.lit(1.0).alias("similarity")
    )
    kept = conversations.join(duplicates, on="row", how="anti", maintain_order="left")
    return StageResult(kept, dropped(lost, "conversation", "dedup", RULE))


def exact_form(text: pl.Series) -> pl.Series:
    """Fold NFKC and case, collapse each run of white space to one space, and strip both ends."""
    # The same as r"\s+" and three times as fast, because it skips single spaces.
    collapsed = TEXT.str.replace_all(r" \s+|[^\S ]\s*", " ").str.strip_chars()
    return apply_where(fold(text), TEXT.str.contains(r"\s\s|[^\S ]|^\s|\s$"), collapsed)


def _message_rows(conversations: pl.DataFrame) -> pl.DataFrame:
    """Return role and content, one row per message, conversation after conversation."""
    return conversations.select(pl.col("messages").explode(empty_as_null=False, keep_nulls=False)).unnest("messages")


def _message_counts(conversations: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Return the number of messages of each conversation."""
    return conversations["messages"].list.len().fill_null(0).cast(pl.Int64).to_numpy()


def _share_edges(conversations: pl.DataFrame) -> RowIndices:
    """Return the conversations that share message count and edges (of the first and last message) with another one."""
    frame = conversations.select(
        pl.int_range(pl.len()).alias("at"),
        pl.Series("count", _message_counts(conversations)),
        pl.col("messages").list.first().struct.field("content").fill_null("").alias("first"),
        pl.col("messages").list.last().struct.field("content").fill_null("").alias("last"),
    )
    shared = ["count"]
    for name, message, edge in (
        ("first_opening", "first", _opening),
        ("last_opening", "last", _opening),
        ("last_ending", "last", _ending),
    ):
        frame = frame.with_columns(_on_two_threads(edge, frame[message]).alias(name))
        shared.append(name)
        frame = frame.filter(pl.struct(shared).is_duplicated())
    return frame["at"].to_numpy().astype(np.intp)


def _on_two_threads(edge: Callable[[pl.Series], pl.Series], contents: pl.Series) -> pl.Series:
    """Compute `edge` of all contents on two threads, because Polars releases the GIL."""
    half = len(contents) // 2
    with ThreadPoolExecutor(2) as pool:
        return pl.concat(pool.map(edge, (contents[:half], contents[half:])))


def _opening(contents: pl.Series) -> pl.Series:
    """Return the first `EDGE_CHARS` characters of each text's exact form, without white space."""
    return _edge(contents, contents.str.head(CUT_CHARS)).str.head(EDGE_CHARS)


def _ending(contents: pl.Series) -> pl.Series:
    """Return the last `EDGE_CHARS` characters of each text's exact form, without white space."""
    return _edge(contents, contents.str.tail(CUT_CHARS)).str.tail(EDGE_CHARS)


def _edge(contents: pl.Series, cut: pl.Series) -> pl.Series:
    """Return the exact form, without white space, of each text's `cut` at one end, or of the whole text if that is too short.

    What folding does to a character depends on its neighbours only through composing characters, and otherwise reaches
    one character beyond the cut. So a cut without composing characters that leaves `MARGIN_CHARS` to spare suffices.
    """
    bare = _without_spaces(cut)
    is_whole = cut.str.len_bytes() == contents.str.len_bytes()
    suffices = (bare.str.len_chars() >= EDGE_CHARS + MARGIN_CHARS) & ~bare.str.contains(_COMPOSING)
    unsure = np.flatnonzero(~(is_whole | suffices).to_numpy())
    return bare.scatter(unsure, _without_spaces(contents.gather(unsure))) if len(unsure) else bare


def _without_spaces(text: pl.Series) -> pl.Series:
    without_blanks = fold(text).str.replace_all(" ", "", literal=True)
    return apply_where(without_blanks, TEXT.str.contains(r"\s"), TEXT.str.replace_all(r"\s", ""))


def _duplicate_groups(conversations: pl.DataFrame, candidates: RowIndices) -> pl.DataFrame:
    """Return row, id, survivor of the candidates that equal another one, each with the id of its group's survivor."""
    chosen = conversations[candidates]
    best_first = [pl.col("rank").fill_null(0), -pl.col("size"), pl.col("id")]
    return (
        chosen.select("row", "id", "rank", size=pl.Series(content_bytes(chosen)), key=_keys(chosen))
        .filter(pl.col("key").is_duplicated())
        .with_columns(survivor=pl.col("id").sort_by(best_first).first().over("key"))
    )


def _keys(conversations: pl.DataFrame) -> pl.Series:
    """Return 128 bits of XXH3 over roles and exact forms, as 16 bytes."""
    ranges = ranges_of_size(offsets_from_sizes(content_bytes(conversations)), BATCH_BYTES)
    parts = [conversations[start:stop] for start, stop in ranges]
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        return pl.Series(chain.from_iterable(pool.map(_digests, parts)), dtype=pl.Binary)


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
    texts = text_buffer(messages.select(framed).to_series()).concatenated(_message_counts(conversations))
    view, bounds = memoryview(texts.data.data), texts.offsets.tolist()
    # xxhash takes one buffer at a time: 0.3 µs per conversation, and only for candidates.
    digests = [xxhash.xxh3_128_digest(view[a:b]) for a, b in pairwise(bounds)]
    if "tools" not in conversations.columns:
        return digests
    tools = conversations["tools"].fill_null("")
    return [xxhash.xxh3_128_digest(digest + text.encode()) for digest, text in zip(digests, tools, strict=True)]
