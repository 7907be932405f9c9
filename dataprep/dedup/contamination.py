"""Drop conversations that contain parts of a benchmark: a model trained on them cannot be measured with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view

from dataprep.common.text import plural
from dataprep.dedup.benchmarks import BENCHMARK
from dataprep.dedup.buffers import BATCH_BYTES, offsets_from_sizes, ranges_of_size
from dataprep.dedup.ngrams import Hashes, document_ngrams, ngram_hashes, words_of
from dataprep.dedup.normal_form import (
    SPACELESS,
    NormalisedBlock,
    content_bytes,
    documents,
    for_each_normalised_block,
    normal_form,
)
from dataprep.tables import StageResult, dropped

RULE = "contaminated"
SPAN_WORDS = 13  # consecutive shared words that match, as for GPT-3 (Brown et al., "Language Models are Few-Shot
# Learners", 2020, appendix C)
MIN_TEXT_WORDS = 6  # items of 6 to 12 words match as a whole, anywhere
MIN_MESSAGE_WORDS = 4  # items of 4 or 5 words match only a whole message; shorter items never match
MAX_MESSAGE_BYTES = 200  # of such a message, which leaves room for other forms of its letters
SPACELESS_WEIGHT = 0.5  # words that a character of a script without spaces counts for
SHOWN_WORDS = 40  # of a shared span in a fate
COMMON_ITEMS = (3, 0.02)  # an n-gram in more items of a benchmark than both (number, share) is boilerplate
COMMON_CONVERSATIONS = (20, 0.005)  # an n-gram in more conversations than both may be boilerplate, too,
MIN_OWN_SHARE = 0.5  # if less than this share of the item's own n-grams is shared


def drop_contaminated(conversations: pl.DataFrame, benchmarks: Sequence[pl.DataFrame]) -> StageResult[None]:
    """Drop conversations that share a word 13-gram with a benchmark.

    An item of 6 to 12 words matches as a whole, one of 4 or 5 only as a whole message. Characters of scripts without
    spaces count half a word. N-grams of which less than half has a letter (numbers) or is distinct do not match, and
    neither does boilerplate: n-grams of many items (`def check(candidate): …`), and n-grams of many conversations, but
    those only if little of the item's own text is shared. So an item that a thousand conversations contain drops them all.

    Args:
        conversations: CONVERSATIONS.
        benchmarks: from `read_benchmark`.

    Returns:
        kept (CONVERSATIONS, in input order); fates (FATES; rule `contaminated`, stage `dedup`; the detail names
        benchmark, item and shared words); and notes: a sentence if conversations that share boilerplate were kept.
    """
    if not benchmarks:
        return StageResult(conversations)
    texts = pl.concat([pl.DataFrame(schema=BENCHMARK), *benchmarks])
    candidates = _candidates(conversations, texts)
    limit = max(COMMON_CONVERSATIONS[0], COMMON_CONVERSATIONS[1] * len(conversations))
    shared_spans = [_shared_spans(candidates, texts, n, limit) for n in range(MIN_TEXT_WORDS, SPAN_WORDS + 1)]
    matches = pl.concat([*shared_spans, *_whole_messages(conversations, texts)])
    longest_first = matches.sort("row", "shared", "position", "item", descending=[False, True, False, False])
    decisive = longest_first.filter(~pl.col("boilerplate")).unique("row", keep="first")
    lost = conversations.join(decisive, on="row", how="inner", maintain_order="left")
    kept = conversations.join(decisive, on="row", how="anti", maintain_order="left")
    fates = dropped(lost.with_columns(detail=_details(lost)), "conversation", "dedup", RULE)
    boilerplate = kept.join(longest_first.unique("row", keep="first"), on="row", maintain_order="left")
    return StageResult(kept, fates, _boilerplate_notes(boilerplate))


def _candidates(conversations: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """Return the conversations that share MIN_TEXT_WORDS consecutive words with a benchmark: only they are examined."""
    wanted = document_ngrams(texts.select(pl.col("text") + "\n").to_series(), MIN_TEXT_WORDS).hash
    is_candidate = np.zeros(len(conversations), bool)
    start = 0
    for batch in _batches(conversations):
        ngrams = document_ngrams(documents(batch), MIN_TEXT_WORDS, among=wanted)
        is_candidate[start + ngrams.document] = True
        start += len(batch)
    return conversations.filter(is_candidate)


def _batches(conversations: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield consecutive conversations with about BATCH_BYTES of text."""
    for start, stop in ranges_of_size(offsets_from_sizes(content_bytes(conversations)), BATCH_BYTES):
        yield conversations[start:stop]


def _occurrences(conversations: pl.DataFrame, length: int, wanted: pl.Series) -> pl.DataFrame:
    """Return `row`, `hash` and `position` of each n-gram of `length` words that is one of `wanted` hashes."""
    parts = [pl.DataFrame(schema={"row": pl.Int64, "hash": pl.UInt64, "position": pl.Int64})]
    for batch in _batches(conversations):
        ngrams = document_ngrams(documents(batch), length, among=wanted.to_numpy())
        rows = batch["row"].gather(ngrams.document)
        parts.append(pl.DataFrame({"row": rows, "hash": ngrams.hash, "position": ngrams.position}))
    return pl.concat(parts)


def _shared_spans(candidates: pl.DataFrame, texts: pl.DataFrame, length: int, limit: float) -> pl.DataFrame:
    """Find where conversations share n-grams of `length` words with a text; consecutive n-grams form one span.

    Returns row, benchmark, item, position, shared, boilerplate: `shared` words from word `position` of the conversation.
    """
    wanted = _significant_ngrams(texts, length)
    hits = _occurrences(candidates, length, wanted["hash"])
    hits = hits.join(wanted, on="hash").with_columns(is_common=pl.col("row").n_unique().over("hash") > limit)
    hits = hits.sort("row", "position")
    run = pl.col("position") - pl.int_range(pl.len()).over(
        "row", "in_many_items"
    )  # constant along consecutive positions
    spans = hits.group_by("row", "in_many_items", run.alias("run")).agg(
        pl.col("benchmark", "item", "position", "own", "weight").first(),
        pl.col("is_common").all(),
        ngrams=pl.len(),
    )
    shared = pl.col("ngrams").cast(pl.Int64) + length - 1
    is_whole_item = pl.col("ngrams") >= pl.col("own")
    long_enough = is_whole_item | (shared * pl.col("weight") >= SPAN_WORDS)
    little_shared = pl.col("is_common") & (pl.col("ngrams") < MIN_OWN_SHARE * pl.col("own"))
    return spans.filter(long_enough).select(
        "row", "benchmark", "item", "position", shared=shared, boilerplate=pl.col("in_many_items") | little_shared
    )


def _whole_messages(conversations: pl.DataFrame, texts: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield the same columns for whole messages that equal an item of MIN_MESSAGE_WORDS or more words, but fewer than
    MIN_TEXT_WORDS."""
    lengths = range(MIN_MESSAGE_WORDS, MIN_TEXT_WORDS)
    by_length = [(length, _significant_ngrams(texts, length).filter(~pl.col("in_many_items"))) for length in lengths]
    by_length = [(length, wanted) for length, wanted in by_length if len(wanted)]
    if not by_length:
        return
    for batch in _batches(conversations):
        yield from _whole_messages_of_batch(batch, by_length)


def _whole_messages_of_batch(
    conversations: pl.DataFrame, by_length: Sequence[tuple[int, pl.DataFrame]]
) -> Iterator[pl.DataFrame]:
    content = pl.element().struct["content"]
    short_contents = pl.col("messages").list.eval(content.filter(content.str.len_bytes() <= MAX_MESSAGE_BYTES))
    messages = conversations.select("row", text=short_contents)
    messages = messages.explode("text", empty_as_null=False, keep_nulls=False)
    for length, wanted in by_length:
        occurrences = document_ngrams(messages.select(pl.col("text") + "\n").to_series(), length)
        is_only = np.bincount(occurrences.document, minlength=len(messages))[occurrences.document] == 1
        whole = pl.DataFrame(
            {"row": messages["row"].gather(occurrences.document[is_only]), "hash": occurrences.hash[is_only]}
        )
        holders = conversations.join(whole.join(wanted, on="hash"), on="row", how="semi")
        yield (
            _occurrences(holders, length, wanted["hash"])
            .join(whole, on=["row", "hash"], how="semi")
            .join(wanted, on="hash")
            .select("row", "benchmark", "item", "position", shared=pl.lit(length, pl.Int64), boilerplate=False)
        )


def _significant_ngrams(texts: pl.DataFrame, length: int) -> pl.DataFrame:
    """Return the n-grams of `length` words that identify an item; below SPAN_WORDS, only those that are a whole text.

    Columns: benchmark, item, hash, weight (what each of its words counts), own (how many n-grams of the text are not in
    many items), in_many_items. Each n-gram has one row.
    """
    parts = [pl.DataFrame(schema={"text": pl.Int64, "hash": pl.UInt64, "weight": pl.Float64})]

    def process(block: NormalisedBlock) -> None:
        words = words_of(block.texts)
        if len(words.hash) < length:
            return
        texts = block.texts
        spelled = pl.Series(bytes(texts.data[texts.offsets[0] : texts.offsets[-1]]).decode().split(" "))[:-1]
        word_weight = np.where(spelled.str.contains(f"^{SPACELESS}$").to_numpy(), SPACELESS_WEIGHT, 1.0)
        weight = sliding_window_view(word_weight, length).mean(1)
        begins = np.arange(len(weight))
        if length == SPAN_WORDS:
            fits = words.remaining[begins] >= length
        else:
            is_whole = (words.remaining[begins] == length) & (words.position[begins] == 0)
            min_words = MIN_TEXT_WORDS if length >= MIN_TEXT_WORDS else MIN_MESSAGE_WORDS
            fits = is_whole & (weight * length >= min_words)
        has_letter = spelled.str.contains(r"\p{L}").to_numpy()
        at = np.flatnonzero(fits & _is_varied(words.hash, has_letter, length))
        columns = {
            "text": block.rows[words.text[at]],
            "hash": ngram_hashes(words, length)[at],
            "weight": weight[at],
        }
        parts.append(pl.DataFrame(columns))

    for_each_normalised_block(texts.select(pl.col("text") + "\n").to_series(), process)
    ngrams = pl.concat(parts)
    items = texts[ngrams["text"]].select("benchmark", "item").hstack(ngrams)
    total_items = items.select(pl.col("item").max().over("benchmark")).to_series()
    holders = pl.col("item").n_unique().over("benchmark", "hash")
    items = items.with_columns(in_many_items=holders > (total_items * COMMON_ITEMS[1]).clip(COMMON_ITEMS[0]))
    own = (~pl.col("in_many_items")).sum().over("text")
    return (
        items.with_columns(own=own)
        .sort("benchmark", "item", "text")
        .unique("hash", keep="first", maintain_order=True)
        .drop("text")
    )


def _is_varied(hashes: Hashes, has_letter: npt.NDArray[np.bool_], length: int) -> npt.NDArray[np.bool_]:
    """[n-grams] Return whether at least half of the words of each n-gram have a letter, and at least half are distinct."""
    with_letters = sliding_window_view(has_letter, length).sum(1)
    ordered = np.sort(sliding_window_view(hashes, length), axis=1)
    distinct = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)
    varied: npt.NDArray[np.bool_] = (2 * with_letters >= length) & (2 * distinct >= length)
    return varied


def _boilerplate_notes(kept: pl.DataFrame) -> list[str]:
    """Report how many conversations share only boilerplate, and the words that most of them share."""
    if kept.is_empty():
        return []
    spans = kept.group_by("benchmark", "item", "shared").agg(pl.len(), pl.all().first())
    largest = spans.sort("len", "benchmark", "item", "shared", descending=[True, False, False, False]).head(1)
    example = _details(largest)[0].removesuffix(".")
    return [
        f"{plural(len(kept), 'conversation')} with nothing but boilerplate of a benchmark in common "
        f"{'is' if len(kept) == 1 else 'are'} kept; the most frequent case ({largest['len'][0]:,}): "
        f"{example[0].lower()}{example[1:]}."
    ]


def _details(matches: pl.DataFrame) -> pl.Series:
    """Return a sentence with shared words, item and benchmark for each row. A loop: only dropped conversations come here."""
    sentences = []
    for batch in _batches(matches):
        columns = (documents(batch), *(batch[name] for name in ("position", "shared", "item", "benchmark")))
        for text, position, shared, item, benchmark in zip(*columns, strict=True):
            span = normal_form(text).split(" ")[position : position + shared]
            shown = " ".join(span[:SHOWN_WORDS]) + (" …" if shared > SHOWN_WORDS else "")
            sentences.append(f"Shares {shared} words with item {item} of {benchmark}: '{shown}'.")
    return pl.Series(sentences, dtype=pl.String)
