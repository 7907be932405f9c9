"""How fast, exact and lean the search for duplicates is, beside its peers in the same run.

    python tests/bench/dedup.py [--conversations 200000] [--peer 20000]

On a seeded corpus of guanaco text with planted duplicates (300 MB, cached outside the repository) it prints:

* exact duplicates; normal form and sketches alone, on one thread, also against `hashlib.blake2b` over the same bytes;
* near-duplicate removal as a whole, proof included, against datasketch's MinHashLSH and rensa on a part of the corpus
  (peers are given the normal form; ours makes it);
* recall of planted near copies, and precision by sets of strings; peak memory above the text itself;
* how the cost grows, also that of a split: 4 times the documents, and where one text or a long template occurs in all.

Needs `pip install datasketch rensa` for the peers; without them, their lines are left out.
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
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from dataprep.curate.splitting import assign_sides  # noqa: E402
from dataprep.dedup import buffers  # noqa: E402
from dataprep.dedup.exact import drop_exact_duplicates  # noqa: E402
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
from tests.support.texts import slow_jaccard  # noqa: E402


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--conversations", type=int, default=200_000)
    options.add_argument("--peer", type=int, default=20_000)
    chosen = options.parse_args()
    path = cached_corpus(chosen.conversations)
    corpus = read(find_files([str(path)])).conversations
    corpus = corpus.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    size = int(documents(corpus).str.len_bytes().sum()) / 1e6
    print(
        f"corpus: {len(corpus):,} conversations, {size:.0f} MB of contents; {os.cpu_count()} cores, shared with others"
    )
    bench_kernels(corpus.head(40_000))
    bench_whole(corpus, size, f"{path}.planted.parquet")
    bench_peers(corpus.sample(min(chosen.peer, len(corpus)), seed=1))
    bench_growth(corpus, chosen.conversations // 4)


def timed(work: Callable[[], Any], rounds: int = 1) -> float:
    """Seconds of the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start)
    return best


def bench_kernels(corpus: pl.DataFrame) -> None:
    """MB/s on one thread: the normal form of the documents, and sketches of the normal form."""
    said, parts = documents(corpus), list[NormalisedBlock]()
    size = int(said.str.len_bytes().sum()) / 1e6
    all_threads, buffers.pl.thread_pool_size = pl.thread_pool_size, lambda: 1  # type: ignore[assignment]
    form = timed(lambda: for_each_normalised_block(said, lambda part: None), 3)
    buffers.pl.thread_pool_size = all_threads  # type: ignore[assignment]
    for_each_normalised_block(said, parts.append)
    data = np.concatenate([part.texts.data for part in parts])
    bands = timed(lambda: [band_keys(signatures(part.texts)) for part in parts], 3)
    blake = timed(lambda: hashlib.blake2b(data.data).digest(), 3)
    print(f"normal form: {size / form:.0f} MB/s a core")
    print(
        f"signatures and bands: {len(data) / 1e6 / bands:.0f} MB/s a core of normal form; blake2b over the same bytes "
        f"{len(data) / 1e6 / blake:.0f} MB/s, {bands / blake:.1f} times as fast"
    )


def bench_whole(corpus: pl.DataFrame, size: float, index: str) -> None:
    """Exact and near-duplicate removal of the whole corpus: time, memory, recall and precision."""
    seconds = timed(lambda: drop_exact_duplicates(corpus), 3)
    print(f"exact duplicates: {seconds:.2f} s, {size / seconds:.0f} MB/s")
    with PeakMemory() as memory:
        start = time.perf_counter()
        kept, fates, report, *_ = drop_near_duplicates(corpus)
        seconds = time.perf_counter() - start
    print(
        f"near-duplicates: {seconds:.2f} s, {len(corpus) / seconds:,.0f} documents/s, {size / seconds:.0f} MB/s; "
        f"{report.candidates:,} candidates, {report.proven:,} proven, {report.dropped:,} dropped; "
        f"peak {memory.peak / 1e6:.0f} MB above the text"
    )
    planted = pl.read_parquet(index)
    left, right = (planted[name].to_numpy().astype(np.intp) - 1 for name in ("of", "line"))
    alike = jaccard(documents(corpus), left, right) >= 0.8
    there = corpus["id"].is_in(kept["id"].implode()).to_numpy()
    found, near = ~(there[left] & there[right]), (planted["kind"] == "near").to_numpy()
    for kind, some in (("near copies", alike & near), ("exact copies", alike & ~near)):
        print(f"recall of planted {kind} at 0.8 and above: {found[some].mean():.4f} of {some.sum():,}")
    text_of = dict(zip(corpus["id"], documents(corpus), strict=True))
    some = fates.sample(min(500, len(fates)), seed=0)
    exact = [slow_jaccard(text_of[a], text_of[b]) for a, b in some.select("id", "survivor").rows()]
    wrong = sum(value < 0.8 for value in exact)
    print(f"precision: {wrong} of {len(exact)} dropped are below 0.8 by sets of strings")
    told = ", ".join(f"{r.low}-{r.high}: {r.found}/{r.planted}" for r in report.error_budget.recall)
    print(f"error budget of this build: {told}")


def bench_peers(part: pl.DataFrame) -> None:
    """Documents a second of the peers, which start from the normal form, and of ours, which starts from the messages."""
    ours = min(timed(lambda: drop_near_duplicates(part)) for _ in range(2))
    print(f"ours, {len(part):,} documents with proof and error budget: {len(part) / ours:,.0f} documents/s")
    forms = normal_strings(documents(part))
    for name, peer in (("datasketch", datasketch_way), ("rensa", rensa_way)):
        with suppress(ImportError):
            theirs = timed(lambda peer=peer: peer(forms))
            print(f"{name}: {len(part) / theirs:,.0f} documents/s; ours is {theirs / ours:.1f} times as fast")
    with suppress(ImportError):
        theirs = timed(lambda: rensa_on_hashes(documents(part)))
        print(
            f"rensa on our gram hashes: {len(part) / theirs:,.0f} documents/s, no proof; {theirs / ours:.1f} of its time"
        )


def normal_strings(said: pl.Series) -> list[str]:
    """The normal form of each document as a Python string."""
    forms = [""] * len(said)

    def work(part: NormalisedBlock) -> None:
        data, ends = part.texts.data.tobytes(), part.texts.offsets.tolist()
        for i, row in enumerate(part.rows.tolist()):
            forms[row] = data[ends[i] : ends[i + 1] - 1].decode()

    for_each_normalised_block(said, work)
    return forms


def gram_sets(form: str) -> set[str]:
    said = form.split(" ")
    return {" ".join(said[i : i + 5]) for i in range(max(len(said) - 4, 1))}


def datasketch_way(forms: Sequence[str]) -> None:
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(num_perm=125, params=(25, 5))
    for number, form in enumerate(forms):
        minhash = MinHash(num_perm=125)
        minhash.update_batch([gram.encode() for gram in gram_sets(form)])
        index.query(minhash)
        index.insert(number, minhash)


def rensa_way(forms: Sequence[str]) -> None:
    from rensa import RMinHash, RMinHashLSH

    matrix = RMinHash.digest_matrix_from_token_sets([gram_sets(form) for form in forms], num_perm=125, seed=42)
    RMinHashLSH(threshold=0.8, num_perm=125, num_bands=25).insert_matrix_and_query_duplicate_flags(matrix)


def rensa_on_hashes(said: pl.Series) -> None:
    """What rensa's kernel makes of our normal form and gram hashes."""
    from rensa import RMinHash, RMinHashLSH

    found = document_ngrams(said)
    order = np.argsort(found.document, kind="stable")
    ends = np.concatenate([[0], np.cumsum(np.bincount(found.document, minlength=len(said)))]).astype(np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(found.hash[order], ends, num_perm=125, seed=42)
    RMinHashLSH(threshold=0.8, num_perm=125, num_bands=25).insert_matrix_and_query_duplicate_flags(matrix)


def bench_growth(corpus: pl.DataFrame, quarter: int) -> None:
    """The cost of 4 times the documents: of near-duplicate removal, and of a split with its proof."""
    template = random_text(random.Random(1_000_000), 400)

    def on_template(*own: int) -> Callable[[int], pl.DataFrame]:
        """Talks that begin with the template and go on with so many words of their own, in turn."""
        return lambda n: talks([f"{template} {random_text(random.Random(i), own[i % len(own)])}" for i in range(n)])

    cases: dict[str, Callable[[int], pl.DataFrame]] = {
        "the corpus": lambda n: corpus.head(n * quarter // 5_000),
        "one text in all": lambda n: talks([template] * n),
        "a long template in all": on_template(150),
        "a template of half in all": on_template(400),
        "a template and hardly enough of their own": on_template(52),
        "a template in alike ones and as many longer ones": on_template(30, 150),
    }
    works = {"near-duplicates": drop_near_duplicates, "split": split_and_prove}
    for name, make in cases.items():
        few, many = make(5_000), make(20_000)
        for work_name, work in works.items():
            seconds = [
                min(timed(lambda work=work, frame=frame: work(frame)) for _ in range(2)) for frame in (few, many)
            ]
            print(
                f"growth of {work_name}, {name}: {len(few):,} documents in {seconds[0]:.2f} s, {len(many):,} in "
                f"{seconds[1]:.2f} s: {seconds[1] / seconds[0]:.2f} times"
            )


def split_and_prove(conversations: pl.DataFrame) -> None:
    """What `--split test=0.1` does."""
    kin, _ = similar_groups(conversations)
    parts, _ = assign_sides(conversations, Recipe(split="test=0.1"), kin)
    find_leaks(parts["train"], parts["test"])


def random_text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(VOCABULARY, k=words))


VOCABULARY = ["".join(random.Random(i).choices("etaoinshrdlu", k=2 + i % 8)) for i in range(10_000)]


def talks(texts: Sequence[str]) -> pl.DataFrame:
    """Conversations of one question."""
    messages = (
        pl.Series(texts)
        .to_frame("content")
        .select(pl.concat_list(pl.struct(pl.lit("user").alias("role"), "content")).alias("messages"))
    )
    ids = pl.format("c{}", pl.int_range(pl.len()))
    return conform(messages.with_columns(row=pl.int_range(pl.len()), id=ids, tree_id=ids), CONVERSATIONS)


class PeakMemory:
    """The most memory this process held, above what it held at the start, looked at 100 times a second."""

    def __enter__(self) -> PeakMemory:
        self.start, self.peak, self.over = self._held(), 0, threading.Event()
        self.watch = threading.Thread(target=self._look, daemon=True)
        self.watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.watch.join()

    def _look(self) -> None:
        while not self.over.wait(0.01):
            self.peak = max(self.peak, self._held() - self.start)

    @staticmethod
    def _held() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
