"""Conversations that are the same but for Unicode form, case and white space: one of each stays.

Two steps. Conversations that are equal open and end equally, so a few dozen characters at these edges are normalised,
one edge after the other, and only of those that shared the edges before with another; who shares them all with nobody
has no duplicate. The others, few in practice, are normalised whole, in batches, and a 128-bit key of the normal form
decides.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise

import numpy as np
import numpy.typing as npt
import polars as pl
import xxhash

from dataprep import tables as words
from dataprep.dedup.buffers import blocks, offsets_of, texts_of
from dataprep.dedup.folding import TEXT, folded, where_needed
from dataprep.dedup.normal_form import content_bytes

RULE = "exact_duplicate"
BATCH = 1 << 22  # bytes of text normalised at a time

_JOINING = r"[\p{M}\x{16d63}\x{16d67}-\x{16d6a}]"  # marks, and Kirat Rai's vowels, which compose without being any

EDGE = 20  # characters compared
LOOK = 40  # characters normalised for them
MARGIN = 8  # characters at the inner end of these that the rest of the text might change


def drop_exact_duplicates(conversations: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """One of each group of equal conversations, in the order of the input, and the fates of the others.

    Equal: as many messages, with the same roles, and contents that are equal in `exact_form`. The best rank
    survives (null counts as 0: an only child has no rank), then the longest, then the smallest id.

    Args:
        conversations: CONVERSATIONS.

    Returns:
        kept (CONVERSATIONS) and fates (FATES; rule `exact_duplicate`, stage `dedup`, survivor, similarity 1.0).
    """
    groups = _groups(conversations, _suspects(conversations))
    lost = groups.filter(pl.col("id") != pl.col("survivor")).select("row", "survivor")
    if lost.is_empty():
        return conversations, words.no_fates()
    detail = pl.format("The same as '{}' but for Unicode form, case or white space.", "survivor").alias("detail")
    fates = conversations.join(lost, on="row", how="inner", maintain_order="left").with_columns(
        detail, pl.lit(1.0).alias("similarity")
    )
    kept = conversations.join(lost, on="row", how="anti", maintain_order="left")
    return kept, words.dropped(fates, "conversation", "dedup", RULE)


def exact_form(text: pl.Series) -> pl.Series:
    """NFKC and case folded, each run of white space as one space, none at the ends."""
    # the same as r"\s+", three times as fast, for it passes over the spaces that stay what they are
    collapsed = TEXT.str.replace_all(r" \s+|[^\S ]\s*", " ").str.strip_chars()
    return where_needed(folded(text), TEXT.str.contains(r"\s\s|[^\S ]|^\s|\s$"), collapsed)


def _messages(conversations: pl.DataFrame) -> pl.DataFrame:
    """role, content: one row a message, conversation after conversation."""
    return conversations.select(pl.col("messages").explode(empty_as_null=False, keep_nulls=False)).unnest("messages")


def _lengths(conversations: pl.DataFrame) -> npt.NDArray[np.int64]:
    """Messages of each conversation."""
    return conversations["messages"].list.len().fill_null(0).cast(pl.Int64).to_numpy()


def _suspects(conversations: pl.DataFrame) -> npt.NDArray[np.intp]:
    """Places of the conversations that have length and edges (of first and last message) in common with another."""
    found = conversations.select(
        pl.int_range(pl.len()).alias("place"),
        pl.Series("length", _lengths(conversations)),
        pl.col("messages").list.first().struct.field("content").fill_null("").alias("first"),
        pl.col("messages").list.last().struct.field("content").fill_null("").alias("last"),
    )
    shared = ["length"]
    for name, message, edge in (("a", "first", _opening), ("b", "last", _opening), ("c", "last", _ending)):
        found = found.with_columns(_by_halves(edge, found[message]).alias(name))
        shared.append(name)
        found = found.filter(pl.struct(shared).is_duplicated())
    return found["place"].to_numpy().astype(np.intp)


def _by_halves(edge: Callable[[pl.Series], pl.Series], contents: pl.Series) -> pl.Series:
    """`edge` of all contents, on two threads: Polars leaves Python's lock."""
    half = len(contents) // 2
    with ThreadPoolExecutor(2) as pool:
        return pl.concat(pool.map(edge, (contents[:half], contents[half:])))


def _opening(contents: pl.Series) -> pl.Series:
    """The first `EDGE` characters of each text's exact form, white space left out."""
    return _edge(contents, contents.str.head(LOOK)).str.head(EDGE)


def _ending(contents: pl.Series) -> pl.Series:
    """The last `EDGE` characters of each text's exact form, white space left out."""
    return _edge(contents, contents.str.tail(LOOK)).str.tail(EDGE)


def _edge(contents: pl.Series, cut: pl.Series) -> pl.Series:
    """The exact form, white space left out, of each text's `cut` at one end, or of all of it where that is not enough.

    What folding does to a character depends on its neighbours only through what joins them, and else reaches one
    character beyond the cut: so a cut without such that leaves `MARGIN` characters to spare is certain to be enough.
    """
    bare = _bare(cut)
    whole = cut.str.len_bytes() == contents.str.len_bytes()
    enough = (bare.str.len_chars() >= EDGE + MARGIN) & ~bare.str.contains(_JOINING)
    unsure = np.flatnonzero(~(whole | enough).to_numpy())
    return bare.scatter(unsure, _bare(contents.gather(unsure))) if len(unsure) else bare


def _bare(text: pl.Series) -> pl.Series:
    without_spaces = folded(text).str.replace_all(" ", "", literal=True)
    return where_needed(without_spaces, TEXT.str.contains(r"\s"), TEXT.str.replace_all(r"\s", ""))


def _groups(conversations: pl.DataFrame, suspects: npt.NDArray[np.intp]) -> pl.DataFrame:
    """row, id, survivor: the suspects that equal another, each with the id of the one that stays in their place."""
    some = conversations[suspects]
    best_first = [pl.col("rank").fill_null(0), -pl.col("size"), pl.col("id")]
    return (
        some.select("row", "id", "rank", size=pl.Series(content_bytes(some)), key=_keys(some))
        .filter(pl.col("key").is_duplicated())
        .with_columns(survivor=pl.col("id").sort_by(best_first).first().over("key"))
    )


def _keys(conversations: pl.DataFrame) -> pl.Series:
    """128 bits of XXH3 over roles and exact forms, as 16 bytes."""
    parts = [conversations[a:b] for a, b in blocks(offsets_of(content_bytes(conversations)), BATCH)]
    with ThreadPoolExecutor(pl.thread_pool_size()) as pool:
        return pl.Series(chain.from_iterable(pool.map(_digests, parts)), dtype=pl.Binary)


def _digests(conversations: pl.DataFrame) -> list[bytes]:
    messages = _messages(conversations)
    messages = messages.with_columns(exact_form(messages["content"].fill_null("")).alias("content"))
    # Each message with its role and length in front, so that no content can pass for a border of messages.
    framed = pl.concat_str("role", pl.lit("\n"), pl.col("content").str.len_bytes(), pl.lit("\n"), "content")
    texts = texts_of(messages.select(framed).to_series()).joined(_lengths(conversations))
    view, bounds = memoryview(texts.data.data), texts.offsets.tolist()
    # xxhash takes one buffer at a time: 0.3 µs a conversation, and only for suspects.
    return [xxhash.xxh3_128_digest(view[a:b]) for a, b in pairwise(bounds)]
