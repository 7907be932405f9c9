"""What it costs to decode every trained answer and compare it with its text, beside encoding it, in the same run.

    python tests/bench/encode.py [--rounds 9]

Encodes the real guanaco test split in Llama 2's format (../shared/real; 518 rows) and prints the median seconds of
`encode` as it is and without its check, in turn, and the check's cost as a share of the encoding (wanted: at most 0.5).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.support.training_builds import REAL, guanaco_rows, table  # noqa: E402
from training.data.encode import encode  # noqa: E402
from training.model.tokenizer import load_tokenizer  # noqa: E402


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=9)
    rounds = options.parse_args().rounds
    rows, vocabulary = table(guanaco_rows()), load_tokenizer(str(REAL / "llama2"))

    def seconds() -> float:
        began = time.perf_counter()
        encode(rows, vocabulary)
        return time.perf_counter() - began

    seconds()  # warm-up
    checked, bare = [], []
    for _ in range(rounds):
        checked.append(seconds())
        with mock.patch("training.data.encode._check_answers"):
            bare.append(seconds())
    whole, alone = statistics.median(checked), statistics.median(bare)
    print(f"encode {alone:.3f} s, with its check {whole:.3f} s: the check costs {whole / alone - 1:.2f} of it")


if __name__ == "__main__":
    main()
