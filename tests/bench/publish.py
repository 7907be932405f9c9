"""Measure how fast a build is exported, compared and opened, against peers measured in the same run.

    python tests/bench/publish.py [--conversations 200000] [--rounds 3]

On two builds of the seeded corpus it prints medians over alternating processes or calls:

* export as Parquet (sorted by id, text layout and messages layout) against pyarrow writing the same table;
* diff of the two versions against building one of them, both as commands;
* opening a build: the first time (everything verified) in GB/s, and later in ms.
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
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.corpus import cached_corpus  # noqa: E402


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--conversations", type=int, default=200_000)
    options.add_argument("--rounds", type=int, default=3)
    arguments = options.parse_args()
    corpus = cached_corpus(arguments.conversations)
    print(
        f"corpus: {arguments.conversations:,} conversations, {corpus.stat().st_size / 1e6:.0f} MB; {os.cpu_count()} cores"
    )
    with tempfile.TemporaryDirectory(prefix="bench-publish-") as folder:
        store = Path(folder) / "store"
        old, new = build(corpus, store), build(corpus, store, "--min-turns", "2")
        bench_open(Path(old["path"]), arguments.rounds)
        bench_export(Path(old["path"]), Path(folder), arguments.rounds)
        bench_diff(corpus, store, old, new, arguments.rounds)


def dataprep(*arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dataprep", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


# The fastest build, as the peer of a diff: without the gate and near-duplicate detection.
FASTEST = ("--gate", "off", "--near-dup", "off", "--name", "g", "--json")


def build(corpus: Path, store: Path, *more: str) -> dict[str, str]:
    summary: dict[str, str] = json.loads(
        dataprep("build", "--source", str(corpus), "--store", str(store), *FASTEST, *more)
    )
    return summary


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def bench_open(path: Path, rounds: int) -> None:
    from dataprep.contract import open_build, sha256_of, verified_file

    time.sleep(3)  # a verification right after the writing is not recorded
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    first, again, peer = [], [], []
    for _ in range(rounds):
        peer.append(seconds(lambda: [sha256_of(file) for file in path.rglob("*") if file.is_file()]))
        verified_file(path).unlink(missing_ok=True)
        first.append(seconds(lambda: open_build(path)))
        again.append(seconds(lambda: open_build(path)))
    rate, plain = (size / 1e9 / statistics.median(took) for took in (first, peer))
    print(
        f"open, first time: {rate:.2f} GB/s over {size / 1e6:.0f} MB (target: at least 1); "
        f"hashlib file by file {plain:.2f} GB/s; ratio {rate / plain:.2f}"
    )
    print(f"open, later: {statistics.median(again) * 1000:.1f} ms (target: under 50)")


def bench_export(path: Path, folder: Path, rounds: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from dataprep.contract import open_build
    from dataprep.publish.data_files import PARQUET_OPTIONS
    from dataprep.publish.export import export
    from dataprep.publish.layouts import Layout, layout_schema, schema_of

    opened = open_build(path)
    layouts: tuple[Layout, ...] = ("text", "messages")
    for layout in layouts:
        table = pa.Table.from_batches(
            opened.splits["train"].select(layout_schema(schema_of(opened), layout).names).to_batches()
        )
        took: dict[str, list[float]] = {"ours": [], "pyarrow": []}
        for _ in range(rounds):
            took["pyarrow"].append(seconds(partial(pq.write_table, table, folder / "peer.parquet", **PARQUET_OPTIONS)))
            took["ours"].append(seconds(partial(export, opened, folder / "out", layout)))
            shutil.rmtree(folder / "out")
        ours, peer = (statistics.median(took[name]) for name in ("ours", "pyarrow"))
        print(f"export {layout}: {ours:.2f} s, pyarrow {peer:.2f} s; ratio {ours / peer:.2f} (target: at most 2)")


def bench_diff(corpus: Path, store: Path, old: dict[str, str], new: dict[str, str], rounds: int) -> None:
    builds, diffs = [], []
    for _ in range(rounds):
        builds.append(seconds(lambda: build(corpus, store, "--force")))
        diffs.append(seconds(lambda: dataprep("diff", old["path"], new["path"])))
    diff_seconds, build_seconds = statistics.median(diffs), statistics.median(builds)
    print(
        f"diff: {diff_seconds:.2f} s, a build {build_seconds:.2f} s; ratio {diff_seconds / build_seconds:.2f} (target: at most 0.25)"
    )


if __name__ == "__main__":
    main()
