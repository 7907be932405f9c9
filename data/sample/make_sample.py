"""Makes the bundled sample: synthetic conversation trees in the export format of OpenAssistant, with planted faults.

    python data/sample/make_sample.py [--out FILE]

The trees are built from the fragments in fragments/*.toml and nothing else; only the standard library is used. The same
seed gives the same bytes (before compression) everywhere. The counts that README.md states are printed.
"""

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from dice import Dice
from faults import COPIES, FAULTS
from speech import read_topics
from trees import Tree, grow, messages
from variety import conversations

SEED = 20240229
OUT = Path(__file__).parent / "oasst_sample.trees.jsonl.gz"


def main() -> None:
    """Writes the sample and prints what is in it."""
    parser = argparse.ArgumentParser(description="Make the synthetic sample of conversation trees.")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write (default: next to this script)")
    out = parser.parse_args().out
    trees = make_trees()
    write(out, trees)
    print("\n".join(report(trees)))


def make_trees() -> list[Tree]:
    """All trees of the sample in their final order."""
    sound = [grow(told, f"{SEED}/{place}") for place, told in enumerate(conversations(read_topics(), SEED))]
    dice = Dice(SEED, "faults")
    free = iter(dice.shuffled(range(len(sound))))
    copies = list(_copies(sound, free, dice))
    _plant(sound, free, dice)
    return dice.shuffled(sound + copies)


def _copies(sound: list[Tree], free: Iterator[int], dice: Dice) -> Iterator[Tree]:
    """The planted copies; what they repeat is used for nothing else."""
    for copy in COPIES:
        for number in range(copy.count):
            tries = (copy.copy(sound[place], number, dice) for place in free)
            yield next(tree for tree in tries if tree)


def _plant(sound: list[Tree], free: Iterator[int], dice: Dice) -> None:
    """Plants every fault into trees of its own."""
    waiting = list(free)
    for fault in FAULTS:
        places = [place for place in waiting if fault.suits(sound[place])][: fault.count]
        waiting = [place for place in waiting if place not in places]
        for number, place in enumerate(places):
            fault.plant(sound[place], number, dice)


def write(out: Path, trees: Iterable[Tree]) -> None:
    """One tree a line, compressed without a name and a time in the header."""
    lines = "".join(json.dumps(tree, ensure_ascii=False) + "\n" for tree in trees)
    with out.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as packed:
        packed.write(lines.encode())


def report(trees: list[Tree]) -> Iterator[str]:
    """What is in the sample, as the Markdown of the README."""
    all_messages = [message for tree in trees for message in messages(tree)]
    languages = Counter(tree["prompt"]["lang"] for tree in trees)
    yield f"{len(trees)} trees, {len(all_messages)} messages"
    yield "Languages: " + ", ".join(f"{lang} {count}" for lang, count in languages.most_common())
    yield ""
    yield "| planted | trees | what |"
    yield "|---|---:|---|"
    for entry in [*FAULTS, *COPIES]:
        yield f"| {entry.name} | {entry.count} | {entry.says} |"


if __name__ == "__main__":
    main()
