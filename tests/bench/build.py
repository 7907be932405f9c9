"""How fast a build is, and how much memory it takes, beside its peers in the same run.

    python tests/bench/build.py [--conversations 200000] [--rounds 5]

On a seeded corpus of guanaco text (about 300 MB, cached outside the repository) it prints:

* rendering with spans and controls against `tokenizer.apply_chat_template(tokenize=False)` row by row, and the same
  for conversations of 2 to 400 turns;
* the whole build against the notebook's way over the same file: load_dataset, map(transform), save_to_disk;
* the time of each stage, the peak memory against the file's size, and `--help` against `python -c pass`;
* the bundled sample with the quality gate on against the import of Great Expectations alone.

All of it runs on two cores where the machine has more, and each ratio is printed beside its target.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.bench.corpus import cached_corpus  # noqa: E402
from tests.bench.measure import Usage, measured, pin_to_two_cores, print_figure  # noqa: E402

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
    print_figure("render ratio (aim 40)", speeds[0] / speeds[1], at_least=35)
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
    print_figure("long render ratio", speeds[0] / speeds[1], at_least=1)


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
        commands = {
            "bare": [*plain, str(out / "bare"), "--near-dup", "off", "--gate", "off"],
            "full": [*plain, str(out / "full")],
            "notebook": [sys.executable, "-c", NOTEBOOK, str(corpus), str(out / "notebook")],
        }
        usages: dict[str, list[Usage]] = {name: [] for name in commands}
        for _ in range(rounds + 1):
            for name, command in commands.items():
                shutil.rmtree(out / name, ignore_errors=True)
                (out / name).mkdir()
                usages[name].append(measured(command, ROOT))
    for name in ("bare", "full"):
        stages = json.loads(usages[name][-1].output)["seconds"]
        print(f"{name}: " + ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in stages.items()))
    median = {name: statistics.median(usage.seconds for usage in each[1:]) for name, each in usages.items()}
    for name, each in usages.items():
        cpu = statistics.median(usage.cpu_seconds for usage in each[1:])
        peak = max(usage.anonymous for usage in each) / size
        print(
            f"{name}: {median[name]:.2f} s, {cpu:.2f} s of CPU time, {size / 1e6 / median[name]:.0f} MB/s, "
            f"memory {peak:.2f} x the file"
        )
    ratio = median["notebook"] / median["bare"]
    print_figure("--near-dup off --gate off, times the notebook's speed (aim 2.5)", ratio, at_least=2)


def bench_help(rounds: int) -> None:
    """`dataprep --help` against an empty Python."""
    commands = [[sys.executable, "-m", "dataprep", "--help"], [sys.executable, "-c", "pass"]]
    seconds = [statistics.median(measured(each, ROOT).seconds for _ in range(2 * rounds + 1)) for each in commands]
    print_figure(f"help, {seconds[0] * 1000:.0f} ms, times `python -c pass`", seconds[0] / seconds[1], at_most=25)


def bench_gate(rounds: int) -> None:
    """A build of 1,000 rows with the gate, against the import of Great Expectations."""
    with tempfile.TemporaryDirectory() as folder:
        build = [sys.executable, "-m", "dataprep", "build", "--sample", "1000", "--store", folder, "--force"]
        commands = [build, [sys.executable, "-c", "import great_expectations"]]
        rows = [[measured(command, ROOT).seconds for command in commands] for _ in range(rounds + 1)]
    seconds = [statistics.median(side) for side in zip(*rows[1:], strict=True)]
    label = f"1,000 rows with the gate, {seconds[0]:.2f} s, times `import great_expectations`"
    print_figure(label, seconds[0] / seconds[1], at_most=1.5)


if __name__ == "__main__":
    main()
