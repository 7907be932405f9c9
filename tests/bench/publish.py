"""How fast a build is exported, compared and opened, beside its peers in the same run.

    python tests/bench/publish.py [--conversations 200000] [--rounds 3]

On two builds of the seeded corpus it prints, as medians of processes or calls in turn:

* export as Parquet (sorted by id, text layout and messages layout) against pyarrow writing the same table;
* diff of the two versions against building one of them, both as commands;
* opening a build: the first time (checksums read) in GB/s, and after that in ms.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.corpus import cached_corpus  # noqa: E402


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--conversations", type=int, default=200_000)
    options.add_argument("--rounds", type=int, default=3)
    chosen = options.parse_args()
    corpus = cached_corpus(chosen.conversations)
    print(
        f"corpus: {chosen.conversations:,} conversations, {corpus.stat().st_size / 1e6:.0f} MB; {os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory(prefix="bench-publish-") as folder:
        store = Path(folder) / "store"
        old, new = build(corpus, store), build(corpus, store, "--min-turns", "2")
        bench_open(Path(old["path"]), chosen.rounds)
        bench_export(Path(old["path"]), Path(folder), chosen.rounds)
        bench_diff(corpus, store, old, new, chosen.rounds)


def command(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dataprep", *words], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


# The plainest build: what a diff is measured against has no gate and no search for near-duplicates.
PLAIN = ("--gate", "off", "--near-dup", "off", "--name", "g", "--json")


def build(corpus: Path, store: Path, *more: str) -> dict[str, str]:
    made: dict[str, str] = json.loads(command("build", "--source", str(corpus), "--store", str(store), *PLAIN, *more))
    return made


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def bench_open(path: Path, rounds: int) -> None:
    from dataprep.contract import open_build, remembered, sha256_of

    time.sleep(3)  # what was only just written is not remembered
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    first, again, peer = [], [], []
    for _ in range(rounds):
        peer.append(seconds(lambda: [sha256_of(file) for file in path.rglob("*") if file.is_file()]))
        remembered(path).unlink(missing_ok=True)
        first.append(seconds(lambda: open_build(path)))
        again.append(seconds(lambda: open_build(path)))
    rate, plain = (size / 1e9 / statistics.median(took) for took in (first, peer))
    print(
        f"open, first: {rate:.2f} GB/s over {size / 1e6:.0f} MB (wanted at least 1); "
        f"hashlib file by file {plain:.2f} GB/s; ratio {rate / plain:.2f}"
    )
    print(f"open, after that: {statistics.median(again) * 1000:.1f} ms (wanted under 50)")


def bench_export(path: Path, folder: Path, rounds: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dataprep.contract import open_build
    from dataprep.publish.export import PARQUET, SCHEMAS, export

    opened = open_build(path)
    for layout in ("text", "messages"):
        table = pa.Table.from_batches(opened.splits["train"].select(SCHEMAS[layout].names).to_batches())
        took: dict[str, list[float]] = {"ours": [], "pyarrow": []}
        for _ in range(rounds):
            took["pyarrow"].append(
                seconds(lambda table=table: pq.write_table(table, folder / "peer.parquet", **PARQUET))
            )
            took["ours"].append(seconds(lambda layout=layout: export(opened, folder / "out", layout)))
            shutil.rmtree(folder / "out")
        ours, peer = (statistics.median(took[name]) for name in ("ours", "pyarrow"))
        print(f"export {layout}: {ours:.2f} s, pyarrow {peer:.2f} s; ratio {ours / peer:.2f} (wanted at most 2)")


def bench_diff(corpus: Path, store: Path, old: dict[str, str], new: dict[str, str], rounds: int) -> None:
    builds, diffs = [], []
    for _ in range(rounds):
        builds.append(seconds(lambda: build(corpus, store, "--force")))
        diffs.append(seconds(lambda: command("diff", old["path"], new["path"])))
    took, made = statistics.median(diffs), statistics.median(builds)
    print(f"diff: {took:.2f} s, a build {made:.2f} s; ratio {took / made:.2f} (wanted at most 0.25)")


if __name__ == "__main__":
    main()
