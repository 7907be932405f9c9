"""Conversations that hold parts of a benchmark: whoever trains on them cannot be measured with it."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from numpy.lib.stride_tricks import sliding_window_view

from dataprep import tables as words
from dataprep.common.errors import InputError
from dataprep.dedup.buffers import BATCH, blocks, offsets_of
from dataprep.dedup.ngrams import Hashes, gram_hashes, grams, words_of
from dataprep.dedup.normal_form import SPACELESS, Part, content_bytes, documents, each_form, normal_form

RULE = "contaminated"
SPAN = 13  # words in a row that convict, as for GPT-3 (Brown et al., "Language Models are Few-Shot Learners", 2020, C)
LEAST = 6  # words of a shorter text that convict as a whole
MESSAGE = 4  # words of a text shorter still that convict a message which says nothing else; fewer anybody may say
SHORT = 200  # bytes of such a message, with room for other forms of its letters
LETTER = 0.5  # words that a character of a script without spaces counts for
SHOWN = 40  # words of a shared span in a fate
COMMON_ITEMS = (3, 0.02)  # a gram in more items of a benchmark than both of these (number, share) is boilerplate
COMMON = (20, 0.005)  # and so may be one in more conversations than both,
PART = 0.5  # where less than this share of what a text has of its own is there

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
    except (OSError, EOFError, ValueError, RecursionError, zlib.error, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"The benchmark file {path} cannot be read ({error}); give JSONL, JSONL.gz or Parquet."
        ) from error


def _texts(item: object) -> Iterator[str]:
    """All strings in a JSON value; item by item, for benchmarks are small and of any shape. Half a surrogate pair, which
    JSON may hold but UTF-8 may not, becomes a question mark."""
    if isinstance(item, str) and item.strip():
        yield item.encode("utf-8", "replace").decode()
    elif isinstance(item, dict | list):
        for part in item.values() if isinstance(item, dict) else item:
            yield from _texts(part)


def drop_contaminated(
    conversations: pl.DataFrame, benchmarks: Sequence[pl.DataFrame]
) -> tuple[pl.DataFrame, pl.DataFrame, list[str]]:
    """Those without a word 13-gram of a benchmark, in the order of the input, and the fates of the others.

    Of a text of 6 to 12 words, the whole convicts; of 4 or 5, only as a whole message. Characters of scripts without
    spaces count half. Grams of which less than half has a letter (numbers) or differs do not convict, nor does
    boilerplate: grams of many items (`def check(candidate): …`), and grams of many conversations, but only where little
    is there of what the text has of its own. So an item that a thousand conversations hold convicts them all.

    Args:
        conversations: CONVERSATIONS.
        benchmarks: of `read_benchmark`.

    Returns:
        kept (CONVERSATIONS), fates (FATES; rule `contaminated`, stage `dedup`; the detail names benchmark, item and
        shared words), and notes: a sentence where conversations were kept that share boilerplate.
    """
    texts = pl.concat([pl.DataFrame(schema=BENCHMARK), *benchmarks])
    suspects = _suspects(conversations, texts)
    limit = max(COMMON[0], COMMON[1] * len(conversations))
    found = [_hits(suspects, texts, length, limit) for length in range(LEAST, SPAN + 1)]
    hits = pl.concat([*found, *_whole_messages(conversations, texts)])
    worst = hits.sort("row", "shared", "place", "item", descending=[False, True, False, False])
    guilty = worst.filter(~pl.col("boilerplate")).unique("row", keep="first")
    gone = conversations.join(guilty, on="row", how="inner", maintain_order="left")
    kept = conversations.join(guilty, on="row", how="anti", maintain_order="left")
    fates = words.dropped(gone.with_columns(detail=_details(gone)), "conversation", "dedup", RULE)
    return kept, fates, _acquitted(kept.join(worst.unique("row", keep="first"), on="row", maintain_order="left"))


def _suspects(conversations: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """Conversations that share LEAST words in a row with a benchmark: only those are looked at closely."""
    wanted = grams(texts.select(pl.col("text") + "\n").to_series(), LEAST).gram
    hit = np.zeros(len(conversations), bool)
    for start, stop in blocks(offsets_of(content_bytes(conversations)), BATCH):
        hit[start + grams(documents(conversations[start:stop]), LEAST, among=wanted).document] = True
    return conversations.filter(hit)


def _hits(suspects: pl.DataFrame, texts: pl.DataFrame, length: int, limit: float) -> pl.DataFrame:
    """row, benchmark, item, place, shared, boilerplate: where conversations share grams of `length` words with a text,
    grams in a row as one: `shared` words from word `place` on."""
    wanted = _telling(texts, length)
    found = grams(documents(suspects), length, among=wanted["gram"].to_numpy())
    hits = pl.DataFrame({"row": suspects["row"].gather(found.document), "gram": found.gram, "place": found.place})
    hits = hits.join(wanted, on="gram").with_columns(often=pl.col("row").n_unique().over("gram") > limit)
    hits = hits.sort("row", "place")
    in_a_row = pl.col("place") - pl.int_range(pl.len()).over("row", "in_many")  # the same along places in a row
    runs = hits.group_by("row", "in_many", in_a_row.alias("run")).agg(
        pl.col("benchmark", "item", "place", "own", "weight").first(), pl.col("often").all(), grams=pl.len()
    )
    shared = pl.col("grams").cast(pl.Int64) + length - 1
    all_of_it = pl.col("grams") >= pl.col("own")
    long_enough = all_of_it | (shared * pl.col("weight") >= SPAN)
    little = pl.col("often") & (pl.col("grams") < PART * pl.col("own"))
    return runs.filter(long_enough).select(
        "row", "benchmark", "item", "place", shared=shared, boilerplate=pl.col("in_many") | little
    )


def _whole_messages(conversations: pl.DataFrame, texts: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The same of messages that are a text of MESSAGE words or more, but fewer than LEAST, and say nothing else."""
    all_wanted = [(n, _telling(texts, n).filter(~pl.col("in_many"))) for n in range(MESSAGE, LEAST)]
    all_wanted = [(n, wanted) for n, wanted in all_wanted if len(wanted)]
    if not all_wanted:
        return
    short = pl.element().struct["content"].filter(pl.element().struct["content"].str.len_bytes() <= SHORT)
    said = conversations.select("row", text=pl.col("messages").list.eval(short))
    messages = said.explode("text", empty_as_null=False, keep_nulls=False)
    for length, wanted in all_wanted:
        found = grams(messages.select(pl.col("text") + "\n").to_series(), length)
        alone = np.bincount(found.document, minlength=len(messages))[found.document] == 1
        whole = pl.DataFrame({"row": messages["row"].gather(found.document[alone]), "gram": found.gram[alone]})
        holders = conversations.join(whole.join(wanted, on="gram"), on="row", how="semi")
        found = grams(documents(holders), length, among=wanted["gram"].to_numpy())
        places = pl.DataFrame({"row": holders["row"].gather(found.document), "gram": found.gram, "place": found.place})
        yield (
            places.join(whole, on=["row", "gram"], how="semi")
            .join(wanted, on="gram")
            .select("row", "benchmark", "item", "place", shared=pl.lit(length, pl.Int64), boilerplate=False)
        )


def _telling(texts: pl.DataFrame, length: int) -> pl.DataFrame:
    """benchmark, item, gram, weight, own, in_many: the grams of `length` words that say something; if it is less than
    SPAN, only those that are a whole text. One text a gram.

    `weight` is what each of its words counts, `own` how many grams the text has that are not `in_many` items.
    """
    parts = [pl.DataFrame(schema={"text": pl.Int64, "gram": pl.UInt64, "weight": pl.Float64})]

    def work(part: Part) -> None:
        some = words_of(part.texts)
        if len(some.hash) < length:
            return
        spelled = pl.Series(bytes(part.texts.data[part.texts.offsets[0] : part.texts.offsets[-1]]).decode().split(" "))
        counts = np.where(spelled[:-1].str.contains(f"^{SPACELESS}$").to_numpy(), LETTER, 1.0)
        weight = sliding_window_view(counts, length).mean(1)
        begins = np.arange(len(weight))
        whole = (some.left[begins] == length) & (some.place[begins] == 0)
        if length == SPAN:
            ends = some.left[begins] >= length
        else:
            ends = whole & (weight * length >= (LEAST if length >= LEAST else MESSAGE))
        letters = spelled[:-1].str.contains(r"\p{L}").to_numpy()
        at = np.flatnonzero(ends & _says_something(some.hash, letters, length))
        parts.append(
            pl.DataFrame(
                {"text": part.rows[some.text[at]], "gram": gram_hashes(some, length)[at], "weight": weight[at]}
            )
        )

    each_form(texts.select(pl.col("text") + "\n").to_series(), work)
    found = pl.concat(parts)
    items = texts[found["text"]].select("benchmark", "item").hstack(found)
    total = items.select(pl.col("item").max().over("benchmark")).to_series()
    shared_by = pl.col("item").n_unique().over("benchmark", "gram")
    items = items.with_columns(in_many=shared_by > (total * COMMON_ITEMS[1]).clip(COMMON_ITEMS[0]))
    own = (~pl.col("in_many")).sum().over("text")
    return (
        items.with_columns(own=own)
        .sort("benchmark", "item", "text")
        .unique("gram", keep="first", maintain_order=True)
        .drop("text")
    )


def _says_something(hashes: Hashes, letters: npt.NDArray[np.bool_], length: int) -> npt.NDArray[np.bool_]:
    """[grams] Of the gram of `length` words that begins here, half have a letter, and half are different words."""
    with_letters = sliding_window_view(letters, length).sum(1)
    ordered = np.sort(sliding_window_view(hashes, length), axis=1)
    different = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(1)
    said: npt.NDArray[np.bool_] = (2 * with_letters >= length) & (2 * different >= length)
    return said


def _acquitted(shared: pl.DataFrame) -> list[str]:
    """How many conversations share only boilerplate, and the words that most of them share."""
    if shared.is_empty():
        return []
    spans = shared.group_by("benchmark", "item", "shared").agg(pl.len(), pl.all().first())
    most = spans.sort("len", "benchmark", "item", "shared", descending=[True, False, False, False]).head(1)
    told = _details(most)[0].removesuffix(".")
    return [
        f"{len(shared)} conversations share only boilerplate with a benchmark and stay; {most['len'][0]} of them in the "
        f"same words: {told[0].lower()}{told[1:]}."
    ]


def _details(lost: pl.DataFrame) -> pl.Series:
    """Shared words, item and benchmark of each, as a sentence. One by one: only what is dropped comes here."""
    sentences = []
    columns = (documents(lost), *(lost[name] for name in ("place", "shared", "item", "benchmark")))
    for text, place, shared, item, benchmark in zip(*columns, strict=True):
        span = normal_form(text).split(" ")[place : place + shared]
        shown = " ".join(span[:SHOWN]) + (" …" if shared > SHOWN else "")
        sentences.append(f"Shares {shared} words with item {item} of {benchmark}: '{shown}'.")
    return pl.Series(sentences, dtype=pl.String)
