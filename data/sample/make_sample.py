"""Generates the bundled sample: synthetic conversation trees in OpenAssistant's export format, with planted faults.

    python data/sample/make_sample.py [--out FILE]

All text comes from the fragments in fragments/*.toml; only the standard library is used. The same seed gives the same
bytes before compression on every machine. The script prints the counts that README.md states.
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
    """Write the sample and print its contents."""
    parser = argparse.ArgumentParser(description="Generate the synthetic sample of conversation trees.")
    parser.add_argument("--out", type=Path, default=OUT, help="file to write (default: next to this script)")
    out = parser.parse_args().out
    trees = make_trees()
    write(out, trees)
    print("\n".join(report(trees)))


def make_trees() -> list[Tree]:
    """Return all trees of the sample in their final order."""
    drawn = conversations(read_topics(), SEED)
    sound = [grow(conversation, f"{SEED}/{place}") for place, conversation in enumerate(drawn)]
    dice = Dice(SEED, "faults")
    unused = iter(dice.shuffled(range(len(sound))))
    copies = list(_copies(sound, unused, dice))
    _plant(sound, unused, dice)
    return dice.shuffled(sound + copies)


def _copies(sound: list[Tree], unused: Iterator[int], dice: Dice) -> Iterator[Tree]:
    """Yield the planted copies; the trees that they repeat get no other fault."""
    for copy in COPIES:
        for number in range(copy.count):
            attempts = (copy.copy(sound[place], number, dice) for place in unused)
            yield next(tree for tree in attempts if tree)


def _plant(sound: list[Tree], unused: Iterator[int], dice: Dice) -> None:
    """Plant each fault into trees that have no other fault."""
    available = list(unused)
    for fault in FAULTS:
        places = [place for place in available if fault.suits(sound[place])][: fault.count]
        available = [place for place in available if place not in places]
        for number, place in enumerate(places):
            fault.plant(sound[place], number, dice)


def write(out: Path, trees: Iterable[Tree]) -> None:
    """Write one tree a line, compressed by gzip without a name or a time in the header."""
    lines = "".join(json.dumps(tree, ensure_ascii=False) + "\n" for tree in trees)
    with out.open("wb") as file, gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0) as packed:
        packed.write(lines.encode())


def report(trees: list[Tree]) -> Iterator[str]:
    """Yield the contents of the sample as the Markdown lines of the README."""
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
