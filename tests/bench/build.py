"""How fast a build is, and how much memory it takes, beside its peers in the same run.

    python tests/bench/build.py [--conversations 200000] [--rounds 5]

On a seeded corpus of guanaco text (about 300 MB, cached outside the repository) it prints:

* rendering with spans and controls against `tokenizer.apply_chat_template(tokenize=False)` row by row, and the same
  for conversations of 2 to 400 turns;
* the whole build against the notebook's way over the same file: load_dataset, map(transform), save_to_disk;
* MB/s of each stage, the peak memory against the file's size, and `--help` against `python -c pass`;
* the bundled sample with the quality gate on against the import of Great Expectations alone.

All of it runs on two cores where the machine has more, and each wanted ratio is printed with whether it was met.
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
from typing import Any

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
    turns = [part.split(":", 1)[-1].strip() for part in parts]
    pairs = zip(turns[::2], turns[1::2])
    return {"text": "".join(f"<s>[INST] {asked} [/INST] {answer} </s>" for asked, answer in pairs)}
rows = load_dataset("json", data_files=corpus, split="train", cache_dir=out + "/cache")
rows.map(transform).save_to_disk(out + "/saved")
"""


def pin_to_two_cores() -> int:
    """Keep this process and those it starts on two cores; gives the number of cores it has then."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:2])
    return len(cores[:2])


def judged(told: str, found: float, least: float | None = None, most: float | None = None) -> None:
    """Print a figure beside what is wanted of it."""
    met = (least is None or found >= least) and (most is None or found <= most)
    wanted = f"at least {least:g}" if least is not None else f"at most {most:g}"
    print(f"{told}: {found:.2f} (wanted {wanted}: {'met' if met else 'MISSED'})")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--conversations", type=int, default=200_000)
    options.add_argument("--rounds", type=int, default=5)
    chosen = options.parse_args()
    cores = pin_to_two_cores()  # before Polars and Arrow count them
    corpus = cached_corpus(chosen.conversations)
    size = corpus.stat().st_size
    print(f"corpus: {chosen.conversations:,} conversations, {size / 1e6:.0f} MB; on {cores} of {os.cpu_count()} cores")
    bench_build(corpus, size, chosen.rounds)  # first: Linux counts this process's own peak into that of its children
    bench_rendering(corpus, chosen.rounds)
    bench_long(chosen.rounds)
    bench_help(chosen.rounds)
    bench_gate(chosen.rounds)


def bench_rendering(corpus: Path, rounds: int) -> None:
    """Rows a second of both ways of rendering, in turn."""
    from dataprep.curate.rules import apply_rules
    from dataprep.recipe import Recipe
    from dataprep.rendering import Renderer, load_template
    from dataprep.sources.files import find_files
    from dataprep.sources.reader import read
    from dataprep.store.splits import shard_batches

    template = load_template("llama2")
    frame, *_ = apply_rules(read(find_files([str(corpus)])).conversations, Recipe(), ())
    tokenizer = tokenizer_with(template.source)
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
    judged("render ratio (aim 40)", speeds[0] / speeds[1], least=20)
    rendered = Renderer(template).batches(frame.head(1000))
    assert sum(batch.num_rows for batch in shard_batches(frame.head(1000), rendered)) == 1000


def tokenizer_with(chat_template: str) -> Any:
    """A tokenizer of transformers that has Llama 2's special tokens and no words."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = chat_template
    return tokenizer


def bench_long(rounds: int) -> None:
    """Conversations of 2 to 400 turns, ten of each length: plans are found in time by the turns, not by their square."""
    import polars as pl

    from dataprep.rendering import Renderer, load_template
    from dataprep.tables import TURNS

    template = load_template("llama2")
    tokenizer = tokenizer_with(template.source)
    words = "some words of a turn, as many as people write in a long talk; " * 3
    chats = [
        [{"role": ("user", "assistant")[turn % 2], "content": f"{words}{row}"} for turn in range(length)]
        for length in range(2, 402, 2)
        for row in range(10)
    ]
    frame = pl.DataFrame({"row": range(len(chats)), "messages": pl.Series(chats, dtype=TURNS)})

    def ours() -> float:
        renderer = Renderer(template)
        assert renderer.refusals(frame).is_empty()
        for _ in renderer.batches(frame):
            pass
        return len(chats)

    def theirs() -> float:
        for messages in chats:
            tokenizer.apply_chat_template(messages, tokenize=False)
        return len(chats)

    speeds = in_turn([ours, theirs], rounds)
    print(f"long conversations: {speeds[0]:,.0f} rows/s, apply_chat_template {speeds[1]:,.0f} rows/s")
    judged("long render ratio", speeds[0] / speeds[1], least=1)


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
    judged("build ratio, times the notebook's speed (aim 3)", median["notebook"] / median["bare"], least=1.5)
    judged("memory ratio (aim 2.5)", peaks["bare"] / size, most=4)


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
    judged(f"help, {took['help'] * 1000:.0f} ms, times `python -c pass`", took["help"] / took["pass"], most=25)


def bench_gate(rounds: int) -> None:
    """A build of 1,000 rows, judged, against what loading the judge takes."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "dataprep", "build", "--sample", "1000", "--store", folder, "--force"]
        seen: dict[str, list[float]] = {"build": [], "import": []}
        for _ in range(rounds + 1):
            seen["build"].append(run(build)[0])
            seen["import"].append(run([sys.executable, "-c", "import great_expectations"])[0])
    took = {name: statistics.median(values[1:]) for name, values in seen.items()}
    label = f"1,000 rows with the gate, {took['build']:.2f} s, times `import great_expectations`"
    judged(label, took["build"] / took["import"], most=1.5)


if __name__ == "__main__":
    main()
