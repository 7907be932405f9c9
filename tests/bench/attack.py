"""Attack dataprep and training with seeded hostile input, and print a Markdown table of what happened.

    python tests/bench/attack.py [--only KIND …] [--seed 13] [--cases 1.0]

Each case is one command in a process that is replaced when it dies (`tests.hostile.process`). A case fails if its process
ends by a signal, shows a traceback, exits without a sentence, takes more than 20 seconds of CPU time or more than 1 GiB of
memory above the size of its input, writes outside of the store, the cache, the temporary folder and the named output, runs
a program, or prints the user's token. Exits with 1 if a case failed.

A full run takes about half an hour on one core. Full disks need the right to mount a tmpfs; without it they are left out. Of
kills, CPU time and memory are not measured, and a case is accepted where all that is left is whole and as it is without kills.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.hostile import builds, configurations, files, full_disks, kills, repositories, templates  # noqa: E402
from tests.hostile.cases import Case, Outcome, Sandbox  # noqa: E402
from tests.hostile.process import Attacker  # noqa: E402

Outcomes = Iterator[Outcome]


@dataclass
class Tally:
    """The outcomes of the cases of one kind."""

    kind: str
    tried: int = 0
    refused: int = 0
    accepted: int = 0
    failed: int = 0
    seconds: float = 0.0  # most CPU seconds of a case
    memory: int = 0  # most bytes of a case above the size of its input
    examples: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        problems = outcome.problems()
        self.tried += 1
        self.failed += bool(problems)
        self.accepted += outcome.is_accepted and not problems
        self.refused += not outcome.is_accepted and not problems
        self.seconds = max(self.seconds, outcome.cpu_seconds)
        self.memory = max(self.memory, outcome.memory - outcome.input_bytes)
        if problems:
            command = " ".join([outcome.case.program, *outcome.case.arguments])
            self.examples.append(
                f"{self.kind}: {outcome.case.name}: {'; '.join(problems)}\n  {command}\n  {outcome.err.strip()[-1500:]}"
            )

    def row(self) -> str:
        megabytes = f"{max(self.memory, 0) / 2**20:,.0f} MiB"
        cells = (self.kind, f"{self.tried:,}", f"{self.refused:,}", f"{self.accepted:,}", str(self.failed))
        return f"| {' | '.join(cells)} | {self.seconds:.1f} s | {megabytes} |"


HEADER = """| kind | tried | refused with a sentence | accepted | failed | most CPU time | most memory above the input |
|---|--:|--:|--:|--:|--:|--:|"""


def executed(
    make: Callable[[Sandbox, random.Random, int], Iterator[Case]], sandbox: Sandbox, rng: random.Random, count: int
) -> Outcomes:
    """Execute the cases that `make` makes."""
    with Attacker(sandbox) as attacker:
        for case in make(sandbox, rng, count):
            yield attacker.execute(case)


# Kind: how it is attacked, and how many cases a full run has.
KINDS: dict[str, tuple[Callable[[Sandbox, random.Random, int], Outcomes], int]] = {
    **{kind: (partial(executed, partial(files.cases, kind)), 340) for kind in files.FORMATS},
    "files that expand": (partial(executed, files.bombs), len(files.BOMBS)),
    "re-sealed builds": (partial(executed, builds.resealed), 150),
    "manifests": (partial(executed, builds.manifests), 150),
    "configurations": (partial(executed, configurations.cases), 150),
    "templates": (partial(executed, templates.cases), 300),
    "Hub repositories": (repositories.outcomes, 100),
    "kills": (kills.outcomes, 200),
    "full disks": (full_disks.outcomes, 100),
    "runs": (partial(executed, configurations.runs), 60),
}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS), help="the kinds to try; default: all")
    options.add_argument("--seed", type=int, default=13)
    options.add_argument("--cases", type=float, default=1.0, help="share of the cases of a full run")
    arguments = options.parse_args()
    tallies = []
    print(HEADER)
    for kind in arguments.only:
        if kind == "full disks" and not full_disks.can_mount():
            print("full disks: left out, because this process may not mount a file system", file=sys.stderr)
            continue
        attack, count = KINDS[kind]
        tally = Tally(kind)
        with tempfile.TemporaryDirectory(prefix="attack-") as folder:
            # text seeds do not depend on the order of the kinds
            for outcome in attack(
                Sandbox(Path(folder)), random.Random(f"{arguments.seed} {kind}"), max(1, round(count * arguments.cases))
            ):
                tally.add(outcome)
                if outcome.problems():
                    print(tally.examples[-1], file=sys.stderr, flush=True)
        print(tally.row(), flush=True)
        tallies.append(tally)
    raise SystemExit(any(tally.failed for tally in tallies))


if __name__ == "__main__":
    main()
