"""Measure speed, recall, precision and memory of duplicate detection, beside other tools in the same run.

    python tests/bench/dedup.py [--conversations 200000] [--sample 20000]

On a seeded corpus of guanaco text with planted duplicates (300 MB, cached outside the repository) it prints:

* exact duplicates; the normal form and the sketches alone, on one thread, also against `hashlib.blake2b` over the same
  bytes;
* near-duplicate removal with verification, against datasketch's MinHashLSH and rensa on a part of the corpus (these are
  given the normal form, which dataprep computes itself);
* recall of planted near-duplicates, precision by sets of strings, and peak memory above the text itself;
* how the cost of near-duplicates and of a split grows with 4 times the documents, also if all documents share one text or
  a long template.

The other tools need `pip install datasketch rensa`; without them, their lines are omitted.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import polars as pl

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from dataprep.curate.splitting import assign_sides  # noqa: E402
from dataprep.dedup.exact import drop_exact_duplicates  # noqa: E402
from dataprep.dedup.fingerprints import FingerprintTable  # noqa: E402
from dataprep.dedup.jaccard import jaccard  # noqa: E402
from dataprep.dedup.leaks import find_leaks, similar_groups  # noqa: E402
from dataprep.dedup.minhash import band_keys, signatures  # noqa: E402
from dataprep.dedup.near import drop_near_duplicates  # noqa: E402
from dataprep.dedup.ngrams import document_ngrams  # noqa: E402
from dataprep.dedup.normal_form import NormalisedBlock, documents, for_each_normalised_block  # noqa: E402
from dataprep.recipe import Recipe  # noqa: E402
from dataprep.sources.files import find_files  # noqa: E402
from dataprep.sources.reader import read  # noqa: E402
from dataprep.tables import CONVERSATIONS, conform  # noqa: E402
from tests.bench.corpus import cached_corpus  # noqa: E402
from tests.bench.measure import print_figure  # noqa: E402
from tests.support.texts import slow_jaccard  # noqa: E402


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--conversations", type=int, default=200_000)
    options.add_argument("--sample", type=int, default=20_000)
    options.add_argument("--growth", action="store_true", help="only the growth of the cost")
    chosen = options.parse_args()
    path = cached_corpus(chosen.conversations)
    corpus = read(find_files([str(path)])).conversations
    corpus = corpus.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    size = int(documents(corpus).str.len_bytes().sum()) / 1e6
    print(
        f"corpus: {len(corpus):,} conversations, {size:.0f} MB of contents; {os.cpu_count()} cores, shared with others"
    )
    if chosen.growth:
        bench_growth(corpus, chosen.conversations // 4)
        return
    bench_kernels(corpus.head(40_000))
    bench_whole(corpus, size, f"{path}.planted.parquet")
    bench_other_tools(corpus.sample(min(chosen.sample, len(corpus)), seed=1))
    bench_growth(corpus, chosen.conversations // 4)


def timed(work: Callable[[], Any], rounds: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the seconds of the fastest of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = clock()
        work()
        best = min(best, clock() - start)
    return best


def bench_kernels(corpus: pl.DataFrame) -> None:
    """Print MB/s on one thread: the normal form of the documents, and sketches of the normal form."""
    texts, parts = documents(corpus), list[NormalisedBlock]()
    size = int(texts.str.len_bytes().sum()) / 1e6
    with patch.object(pl, "thread_pool_size", return_value=1):
        form = timed(lambda: for_each_normalised_block(texts, lambda part: None), 3)
    for_each_normalised_block(texts, parts.append)
    data = np.concatenate([part.texts.data for part in parts])
    bands = timed(lambda: [band_keys(signatures(part.texts)) for part in parts], 3)
    blake = timed(lambda: hashlib.blake2b(data.data).digest(), 3)
    print(f"normal form: {size / form:.0f} MB/s a core")
    print(
        f"signatures and bands: {len(data) / 1e6 / bands:.0f} MB/s a core of normal form; blake2b over the same bytes "
        f"{len(data) / 1e6 / blake:.0f} MB/s, {bands / blake:.1f} times as fast"
    )


def bench_whole(corpus: pl.DataFrame, size: float, index: str) -> None:
    """Print time, memory, recall and precision of exact and near-duplicate removal of the whole corpus."""
    seconds = timed(lambda: drop_exact_duplicates(corpus), 3)
    print(f"exact duplicates: {seconds:.2f} s, {size / seconds:.0f} MB/s")
    with PeakMemory() as memory:
        start = time.perf_counter()
        kept, fates, _, report = drop_near_duplicates(corpus)
        seconds = time.perf_counter() - start
    print(
        f"near-duplicates: {seconds:.2f} s, {len(corpus) / seconds:,.0f} documents/s, {size / seconds:.0f} MB/s; "
        f"{report.candidates:,} candidates, {report.proven:,} verified, {report.dropped:,} dropped; "
        f"peak {memory.peak / 1e6:.0f} MB above the text"
    )
    planted = pl.read_parquet(index)
    left, right = (planted[name].to_numpy().astype(np.intp) - 1 for name in ("of", "line"))
    similar = jaccard(documents(corpus), left, right) >= 0.8
    is_kept = corpus["id"].is_in(kept["id"].implode()).to_numpy()
    found, near = ~(is_kept[left] & is_kept[right]), (planted["kind"] == "near").to_numpy()
    for kind, chosen in (("near-duplicates", similar & near), ("exact duplicates", similar & ~near)):
        print(f"recall of planted {kind} at 0.8 and above: {found[chosen].mean():.4f} of {chosen.sum():,}")
    text_of = dict(zip(corpus["id"], documents(corpus), strict=True))
    checked = fates.sample(min(500, len(fates)), seed=0)
    exact = [slow_jaccard(text_of[a], text_of[b]) for a, b in checked.select("id", "survivor").rows()]
    wrong = sum(value < 0.8 for value in exact)
    print(f"precision: {wrong} of {len(exact)} dropped are below 0.8 by sets of strings")
    ranges = ", ".join(f"{r.low}-{r.high}: {r.found}/{r.planted}" for r in report.error_budget.recall)
    print(f"recall estimate of this build: {ranges}")


def bench_other_tools(part: pl.DataFrame) -> None:
    """Print documents per second of other tools, which start from the normal form, and of dataprep, which starts from the
    messages."""
    ours = min(timed(lambda: drop_near_duplicates(part)) for _ in range(2))
    print(
        f"dataprep, {len(part):,} documents with verification and recall estimate: {len(part) / ours:,.0f} documents/s"
    )
    forms = normal_strings(documents(part))
    for name, tool in (("datasketch", run_datasketch), ("rensa", run_rensa)):
        with suppress(ImportError):
            theirs = timed(partial(tool, forms))
            print(f"{name}: {len(part) / theirs:,.0f} documents/s; dataprep is {theirs / ours:.1f} times as fast")
    with suppress(ImportError):
        theirs = timed(lambda: run_rensa_on_hashes(documents(part)))
        print(
            f"rensa on our gram hashes: {len(part) / theirs:,.0f} documents/s without verification; dataprep takes {ours / theirs:.1f} times as long"
        )


def normal_strings(texts: pl.Series) -> list[str]:
    """Return the normal form of each document as a Python string."""
    forms = [""] * len(texts)

    def process(part: NormalisedBlock) -> None:
        data, ends = part.texts.data.tobytes(), part.texts.offsets.tolist()
        for i, row in enumerate(part.rows.tolist()):
            forms[row] = data[ends[i] : ends[i + 1] - 1].decode()

    for_each_normalised_block(texts, process)
    return forms


def ngram_set(form: str) -> set[str]:
    words = form.split(" ")
    return {" ".join(words[i : i + 5]) for i in range(max(len(words) - 4, 1))}


def run_datasketch(forms: Sequence[str]) -> None:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=125, params=(25, 5))
    for number, form in enumerate(forms):
        minhash = MinHash(num_perm=125)
        minhash.update_batch([gram.encode() for gram in ngram_set(form)])
        index.query(minhash)
        index.insert(number, minhash)


def run_rensa(forms: Sequence[str]) -> None:
    from rensa import RMinHash, RMinHashLSH

    matrix = RMinHash.digest_matrix_from_token_sets([ngram_set(form) for form in forms], num_perm=125, seed=42)
    RMinHashLSH(threshold=0.8, num_perm=125, num_bands=25).insert_matrix_and_query_duplicate_flags(matrix)


def run_rensa_on_hashes(texts: pl.Series) -> None:
    """Run rensa's kernel on the n-gram hashes of our normal form."""
    from rensa import RMinHash, RMinHashLSH

    ngrams = document_ngrams(texts)
    order = np.argsort(ngrams.document, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(ngrams.document, minlength=len(texts)))]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(ngrams.hash[order], ends, num_perm=125, seed=42)
    RMinHashLSH(threshold=0.8, num_perm=125, num_bands=25).insert_matrix_and_query_duplicate_flags(matrix)


def bench_growth(corpus: pl.DataFrame, quarter: int) -> None:
    """Print how the time of near-duplicate removal and of a split grows with 4 times the documents."""
    template = random_text(random.Random(1_000_000), 400)

    def with_template(*own: int) -> Callable[[int], pl.DataFrame]:
        """Return texts that begin with the template and continue with so many words of their own, in turn."""
        return lambda n: conversations_of(
            [f"{template} {random_text(random.Random(i), own[i % len(own)])}" for i in range(n)]
        )

    cases: dict[str, Callable[[int], pl.DataFrame]] = {
        "the corpus": lambda n: corpus.head(n * quarter // 5_000),
        "one text in all": lambda n: conversations_of([template] * n),
        "a long template in all": with_template(150),
        "a template that is half of each text": with_template(400),
        "a template, and hardly enough own text to differ": with_template(52),
        "a template in similar texts and as many longer ones": with_template(30, 150),
    }
    operations: dict[str, Callable[[pl.DataFrame], object]] = {
        "near-duplicates": drop_near_duplicates,
        "split": split_and_prove,
    }
    for name, make in cases.items():
        few, many = make(5_000), make(20_000)
        for operation, work in operations.items():
            seconds = [
                min(timed(partial(work, frame), clock=time.process_time) for _ in range(2)) for frame in (few, many)
            ]
            print_figure(
                f"growth of the CPU time of {operation}, {name}, from {len(few):,} documents in {seconds[0]:.2f} s to "
                f"{len(many):,} in {seconds[1]:.2f} s",
                seconds[1] / seconds[0],
                at_most=4.4,
            )


def split_and_prove(conversations: pl.DataFrame) -> None:
    """Do what `--split test=0.1` does."""
    table = FingerprintTable.of(conversations, "thread")
    groups, _ = similar_groups(conversations, table=table)
    is_test = assign_sides(conversations, Recipe(split="test=0.1"), groups).is_test
    find_leaks(conversations, is_test, table=table)


def random_text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(VOCABULARY, k=words))


VOCABULARY = ["".join(random.Random(i).choices("etaoinshrdlu", k=2 + i % 8)) for i in range(10_000)]


def conversations_of(texts: Sequence[str]) -> pl.DataFrame:
    """Return a conversation of one question for each text."""
    messages = (
        pl.Series(texts)
        .to_frame("content")
        .select(pl.concat_list(pl.struct(pl.lit("user").alias("role"), "content")).alias("messages"))
    )
    ids = pl.format("c{}", pl.int_range(pl.len()))
    return conform(messages.with_columns(row=pl.int_range(pl.len()), id=ids, tree_id=ids), CONVERSATIONS)


class PeakMemory:
    """The peak memory of this process above its memory at the start, sampled 100 times a second."""

    def __enter__(self) -> PeakMemory:
        self.start, self.peak, self.stop = self._resident_bytes(), 0, threading.Event()
        self.thread = threading.Thread(target=self._sample, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _sample(self) -> None:
        while not self.stop.wait(0.01):
            self.peak = max(self.peak, self._resident_bytes() - self.start)

    @staticmethod
    def _resident_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
