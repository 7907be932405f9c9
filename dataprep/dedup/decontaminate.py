"""Conversations that hold parts of a benchmark: whoever trains on them cannot be measured with it."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view

from dataprep import conversations as words
from dataprep.dedup.buffers import BATCH, blocks, offsets_of
from dataprep.dedup.grams import Words, gram_hashes, grams, words_of
from dataprep.dedup.normal import On, Part, content_bytes, documents, each_form, normal_form
from dataprep.errors import InputError

RULE = "contaminated"
SPAN = 13  # words in a row that convict, as for GPT-3 (Brown et al., "Language Models are Few-Shot Learners", 2020, C)
LEAST = 6  # words of a shorter item that convict as a whole; what is shorter still anybody may say
SHOWN = 40  # words of a shared span in a fate
COMMON_ITEMS = (3, 0.02)  # a gram in more items of a benchmark than both of these (number, share) is boilerplate
COMMON = (20, 0.005)  # and so is one in more conversations than both

BENCHMARK = {"benchmark": pl.String(), "item": pl.Int64(), "text": pl.String()}


def read_benchmark(path: Path) -> pl.DataFrame:
    """benchmark, item, text: every text of a benchmark file, nested ones too.

    Args:
        path: JSONL (also `.gz`) or Parquet. `benchmark` is its name, `item` its line or row, from 1.

    Raises:
        InputError: no such file, nothing in it, no text, or no JSON.
    """
    if not path.is_file():
        raise InputError(f"There is no benchmark file {path}; give a JSONL, JSONL.gz or Parquet file.")
    items = list(_items(path))
    texts = [(path.name, number, text) for number, item in items for text in _texts(item)]
    if not items:
        raise InputError(f"The benchmark file {path} is empty; give one with an item a line.")
    if not texts:
        raise InputError(f"None of the {len(items)} items of {path} has a text; give a file with text fields.")
    return pl.DataFrame(texts, schema=BENCHMARK, orient="row")


def _items(path: Path) -> Iterator[tuple[int, object]]:
    try:
        if path.suffix == ".parquet":
            yield from enumerate(pl.read_parquet(path).iter_rows(named=True), 1)
            return
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, json.loads(line)
    except (OSError, EOFError, ValueError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"The benchmark file {path} cannot be read ({error}); give JSONL, JSONL.gz or Parquet."
        ) from error


def _texts(item: object) -> Iterator[str]:
    """All strings in a JSON value; item by item, for benchmarks are small and of any shape."""
    if isinstance(item, str) and item.strip():
        yield item
    elif isinstance(item, dict | list):
        for part in item.values() if isinstance(item, dict) else item:
            yield from _texts(part)


def drop_contaminated(
    conversations: pl.DataFrame, benchmarks: Sequence[pl.DataFrame], on: On = "thread"
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Those without a word 13-gram of a benchmark, in the order of the input, and the fates of the others.

    Of a text of 6 to 12 words, the whole convicts; what is shorter does not. Nor do grams of which less than half has
    a letter (numbers) or differs, nor boilerplate: grams of many items (`def check(candidate): …`) or conversations.

    Args:
        conversations: CONVERSATIONS.
        benchmarks: of `read_benchmark`.

    Returns:
        kept (CONVERSATIONS) and fates (FATES; rule `contaminated`, stage `dedup`; the detail names benchmark, item and
        shared words).
    """
    texts = pl.concat([pl.DataFrame(schema=BENCHMARK), *benchmarks])
    suspects = _suspects(conversations, texts, on)
    limit = max(COMMON[0], COMMON[1] * len(conversations))
    found = pl.concat([_hits(suspects, texts, length, on, limit) for length in range(LEAST, SPAN + 1)])
    worst = found.sort("row", "shared", "place", descending=[False, True, False]).unique("row", keep="first")
    lost = suspects.join(worst, on="row")
    lost = lost.select("row", detail=_details(lost, on))
    gone = conversations.join(lost, on="row", how="inner", maintain_order="left")
    kept = conversations.join(lost, on="row", how="anti", maintain_order="left")
    return kept, words.dropped(gone, "conversation", "dedup", RULE)


def _suspects(conversations: pl.DataFrame, texts: pl.DataFrame, on: On) -> pl.DataFrame:
    """Conversations that share LEAST words in a row with a benchmark: only those are looked at closely."""
    wanted = grams(texts.select(pl.col("text") + "\n").to_series(), LEAST).gram
    hit = np.zeros(len(conversations), bool)
    for start, stop in blocks(offsets_of(content_bytes(conversations)), BATCH):
        hit[start + grams(documents(conversations[start:stop], on), LEAST, among=wanted).document] = True
    return conversations.filter(hit)


def _hits(suspects: pl.DataFrame, texts: pl.DataFrame, length: int, on: On, limit: float) -> pl.DataFrame:
    """row, benchmark, item, place, shared: where conversations share grams of `length` words with an item, grams in a
    row as one: `shared` words from word `place` on."""
    wanted = _telling(texts, length)
    found = grams(documents(suspects, on), length, among=wanted["gram"].to_numpy())
    hits = pl.DataFrame({"row": suspects["row"].gather(found.document), "gram": found.gram, "place": found.place})
    hits = hits.filter(pl.col("row").n_unique().over("gram") <= limit).sort("row", "place")
    in_a_row = pl.col("place") - pl.int_range(pl.len()).over("row")  # the same along places in a row
    runs = hits.group_by("row", in_a_row.alias("run")).agg(
        pl.col("place", "gram").first(), shared=pl.len().cast(pl.Int64) + length - 1
    )
    return runs.join(wanted, on="gram").select("row", "benchmark", "item", "place", "shared")


def _telling(texts: pl.DataFrame, length: int) -> pl.DataFrame:
    """benchmark, item, gram: the grams of `length` words that convict; if it is less than SPAN, only those that are a
    whole text. One item a gram."""
    parts = [pl.DataFrame(schema={"text": pl.Int64, "gram": pl.UInt64})]

    def work(part: Part) -> None:
        some = words_of(part.texts)
        ends = (some.left >= length) if length == SPAN else (some.left == length) & (some.place == 0)
        at = np.flatnonzero(ends & _says_something(some, length))
        parts.append(pl.DataFrame({"text": part.rows[some.text[at]], "gram": gram_hashes(some, length)[at]}))

    each_form(texts.select(pl.col("text") + "\n").to_series(), work)
    found = pl.concat(parts)
    items = texts[found["text"]].select("benchmark", "item").with_columns(found["gram"])
    total = items.select(pl.col("item").max().over("benchmark")).to_series()
    shared_by = pl.col("item").n_unique().over("benchmark", "gram")
    telling = items.filter(shared_by <= (total * COMMON_ITEMS[1]).clip(COMMON_ITEMS[0]))
    return telling.sort("benchmark", "item").unique("gram", keep="first", maintain_order=True)


def _says_something(some: Words, length: int) -> npt.NDArray[np.bool_]:
    """[words] Of the gram of `length` words that begins here, half have a letter, and half are different words."""
    said = np.zeros(len(some.hash), bool)
    if len(said) >= length:
        with_letters = sliding_window_view(some.letters, length).sum(1)
        ordered = np.sort(sliding_window_view(some.hash, length), axis=1)
        different = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)
        said[: len(different)] = (2 * with_letters >= length) & (2 * different >= length)
    return said


def _details(lost: pl.DataFrame, on: On) -> pl.Series:
    """Shared words, item and benchmark of each, as a sentence. One by one: only what is dropped comes here."""
    sentences = []
    columns = (documents(lost, on), *(lost[name] for name in ("place", "shared", "item", "benchmark")))
    for text, place, shared, item, benchmark in zip(*columns, strict=True):
        span = normal_form(text).split(" ")[place : place + shared]
        shown = " ".join(span[:SHOWN]) + (" …" if shared > SHOWN else "")
        sentences.append(f"Shares {shared} words with item {item} of {benchmark}: '{shown}'.")
    return pl.Series(sentences, dtype=pl.String)
