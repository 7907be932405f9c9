"""How fast a build is, and how much memory it takes, beside its peers in the same run.

    python tests/bench/build.py [--conversations 200000] [--rounds 5]

On a seeded corpus of guanaco text (about 300 MB, cached outside the repository) it prints:

* rendering with spans and controls against `tokenizer.apply_chat_template(tokenize=False)` row by row;
* the whole build against the notebook's way over the same file: load_dataset, map(transform), save_to_disk;
* MB/s of each stage, the peak memory against the file's size, and `--help` against `python -c pass`;
* the bundled sample with the quality gate on against the import of Great Expectations alone.
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

# The notebook's way, in our own words: split on "###", pair the pieces, write Llama 2 text, save.
NOTEBOOK = """
import sys
from datasets import load_dataset
corpus, out = sys.argv[1:]
def transform(row):
    parts = row["text"].split("###")[1:]
    said = [part.split(":", 1)[-1].strip() for part in parts]
    pairs = zip(said[::2], said[1::2])
    return {"text": "".join(f"<s>[INST] {asked} [/INST] {answer} </s>" for asked, answer in pairs)}
rows = load_dataset("json", data_files=corpus, split="train", cache_dir=out + "/cache")
rows.map(transform).save_to_disk(out + "/saved")
"""


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--conversations", type=int, default=200_000)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    corpus = cached_corpus(chosen.conversations)
    size = corpus.stat().st_size
    print(f"corpus: {chosen.conversations:,} conversations, {size / 1e6:.0f} MB; {os.cpu_count()} cores")
    bench_rendering(corpus, chosen.rounds)
    bench_build(corpus, size, chosen.rounds)
    bench_help(chosen.rounds)
    bench_gate(chosen.rounds)


def bench_rendering(corpus: Path, rounds: int) -> None:
    """Rows a second of both ways of rendering, in turn."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    from dataprep.build import shard_batches
    from dataprep.config import Recipe
    from dataprep.rendering import Renderer, load_template
    from dataprep.rules import apply_rules
    from dataprep.sources import find_files, read

    template = load_template("llama2")
    frame, _ = apply_rules(read(find_files([str(corpus)])).conversations, Recipe(), ())
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = template.source
    part = frame.head(10_000)["messages"].to_list()

    def ours() -> float:
        renderer = Renderer(template)
        for _ in renderer.batches(frame):
            pass
        return frame.height

    def theirs() -> float:
        for messages in part:
            tokenizer.apply_chat_template(messages, tokenize=False)
        return len(part)

    speeds = in_turn([ours, theirs], rounds)
    print(f"render: {speeds[0]:,.0f} rows/s with spans and controls, apply_chat_template {speeds[1]:,.0f} rows/s")
    print(f"render ratio: {speeds[0] / speeds[1]:.1f} (wanted 20, aim 40)")
    assert sum(batch.num_rows for batch in shard_batches(frame.head(1000), Renderer(template))) == 1000


def in_turn(ways: list[Callable[[], float]], rounds: int) -> list[float]:
    """Units a second of each way: the median over `rounds` turns after a warm-up."""
    seen: list[list[float]] = [[] for _ in ways]
    for turn in range(rounds + 1):
        for way, speeds in zip(ways, seen, strict=True):
            began = time.perf_counter()
            units = way()
            if turn:
                speeds.append(units / (time.perf_counter() - began))
    return [statistics.median(speeds) for speeds in seen]


def bench_build(corpus: Path, size: int, rounds: int) -> None:
    """Whole processes in turn: our build, the default build, the notebook's way. Page cache warm."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        plain = [sys.executable, "-m", "dataprep", "build", "--source", str(corpus), "--json", "--store"]
        bare = [*plain, str(out / "bare"), "--near-dup", "off", "--gate", "off"]
        full = [*plain, str(out / "full")]
        notebook = [sys.executable, "-c", NOTEBOOK, str(corpus), str(out / "notebook")]
        times: dict[str, list[float]] = {"bare": [], "full": [], "notebook": []}
        peaks: dict[str, float] = {}
        seconds: dict[str, float] = {}
        for turn in range(rounds + 1):
            for name, command in (("bare", bare), ("full", full), ("notebook", notebook)):
                shutil.rmtree(out / name, ignore_errors=True)
                (out / name).mkdir()
                took, peak, printed = run(command)
                if turn:
                    times[name].append(took)
                    peaks[name] = max(peaks.get(name, 0), peak)
                    seconds = json.loads(printed)["seconds"] if name == "bare" else seconds
        median = {name: statistics.median(values) for name, values in times.items()}
    for stage, took in seconds.items():
        print(f"  {stage:8} {took:6.2f} s {size / 1e6 / max(took, 1e-4):10,.0f} MB/s")
    for name, took in median.items():
        print(f"{name}: {took:.2f} s, {size / 1e6 / took:.0f} MB/s, peak {peaks[name] / size:.2f} x the file")
    print(f"build ratio: {median['notebook'] / median['bare']:.2f} times the notebook's speed (wanted 1.5, aim 3)")
    print(f"memory ratio: {peaks['bare'] / size:.2f} (wanted at most 4, aim 2.5)")


def run(command: list[str]) -> tuple[float, float, str]:
    """(seconds, peak bytes of the process, what it printed) of a command that must succeed."""
    os.sync()  # what the command before has left to be written is not this one's to wait for
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=ROOT)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command[:4])} … ended with {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024, printed


def bench_help(rounds: int) -> None:
    """`dataprep --help` against an empty Python."""
    seen: dict[str, list[float]] = {"help": [], "pass": []}
    for _ in range(2 * rounds + 1):
        seen["help"].append(run([sys.executable, "-m", "dataprep", "--help"])[0])
        seen["pass"].append(run([sys.executable, "-c", "pass"])[0])
    took = {name: statistics.median(values) for name, values in seen.items()}
    print(
        f"help: {took['help'] * 1000:.0f} ms, {took['help'] / took['pass']:.1f} times `python -c pass` (wanted at most 25)"
    )


def bench_gate(rounds: int) -> None:
    """A build of 1,000 rows, judged, against what loading the judge takes."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "dataprep", "build", "--sample", "1000", "--store", folder, "--force"]
        seen: dict[str, list[float]] = {"build": [], "import": []}
        for _ in range(rounds + 1):
            seen["build"].append(run(build)[0])
            seen["import"].append(run([sys.executable, "-c", "import great_expectations"])[0])
    took = {name: statistics.median(values[1:]) for name, values in seen.items()}
    print(
        f"1,000 rows with the gate: {took['build']:.2f} s, {took['build'] / took['import']:.2f} times "
        "`import great_expectations` (wanted at most 1.5)"
    )


if __name__ == "__main__":
    main()
