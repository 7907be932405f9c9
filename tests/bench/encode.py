"""The cost of checking every trained answer, relative to encoding, measured in one run.

    python tests/bench/encode.py [--rounds 9]

Encodes the real guanaco test split in Llama 2's format (../shared/real; 518 rows), alternately with and without the check
that answers decode to their text, and prints the median seconds and the check's share of the encoding (goal: at most 0.5).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.paths import REAL  # noqa: E402
from tests.support.training_builds import guanaco_rows, table  # noqa: E402
from training.data.encode import encode  # noqa: E402
from training.model.tokenizer import load_tokenizer  # noqa: E402


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=9)
    rounds = options.parse_args().rounds
    rows, tokenizer = table(guanaco_rows()), load_tokenizer(str(REAL / "llama2"))

    def seconds() -> float:
        start = time.perf_counter()
        encode(rows, tokenizer)
        return time.perf_counter() - start

    seconds()  # warm-up
    checked, unchecked = [], []
    for _ in range(rounds):
        checked.append(seconds())
        with mock.patch("training.data.encode._check_answers"):
            unchecked.append(seconds())
    with_check, alone = statistics.median(checked), statistics.median(unchecked)
    print(
        f"encode {alone:.3f} s, with the check {with_check:.3f} s: the check costs {with_check / alone - 1:.2f} of it"
    )


if __name__ == "__main__":
    main()
