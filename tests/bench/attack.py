"""Attack dataprep and training with seeded hostile input, and print a Markdown table of what happened.

    python tests/bench/attack.py [--only KIND …] [--seed 13] [--cases 1.0] [--log attack.jsonl]

Each case is one command in a process that is replaced when it dies (`tests.hostile.process`). A case fails if its process
ends by a signal, shows a traceback, exits without a sentence, takes more than 20 seconds of CPU time or more than 1 GiB of
memory above the size of its input, writes outside of the store, the cache, the temporary folder and the named output, runs
a program, or prints the user's token. Exits with 1 if a case failed.

Cases are made in rounds, each with a seed of its own. `--log` keeps every case as a line of JSON, with the command and its
stderr where it failed; a run that is started again with the same log continues after its finished rounds. A round that
cannot be set up counts as a failed case, and the next one begins.

A full run takes about half an hour on one core. Full disks need the right to mount a tmpfs; without it they are left out. Of
kills, CPU time and memory are not measured, and a case is accepted where all that is left is whole and as it is without kills.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.hostile import builds, configurations, files, full_disks, kills, repositories, templates  # noqa: E402
from tests.hostile.cases import Case, Outcome, Sandbox  # noqa: E402
from tests.hostile.process import Attacker  # noqa: E402

Outcomes = Iterator[Outcome]


@dataclass(frozen=True)
class Entry:
    """One case in the log."""

    kind: str
    round: str  # of the log: seed, first case and number of cases
    case: str
    result: str  # refused, accepted or failed
    problems: str = ""
    command: str = ""  # of a failed case, as are the next two
    code: int | None = None
    err: str = ""
    seconds: float = 0.0  # of CPU time
    memory: int = 0  # bytes above the size of its input

    @classmethod
    def of(cls, kind: str, round: str, outcome: Outcome) -> Entry:
        problems = "; ".join(outcome.problems())
        result = "failed" if problems else "accepted" if outcome.is_accepted else "refused"
        costs = outcome.cpu_seconds, max(0, outcome.memory - outcome.input_bytes)
        case = outcome.case
        if not problems:
            return cls(kind, round, case.name, result, seconds=costs[0], memory=costs[1])
        command = " ".join([case.program, *case.arguments])
        return cls(kind, round, case.name, result, problems, command, outcome.code, outcome.err.strip()[-3000:], *costs)


class Log:
    """Entries of finished rounds, in a file if one is named."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path and path.exists() else []
        records = [json.loads(line) for line in lines]
        self.finished = {record["finished"] for record in records if "finished" in record}
        self.entries = [Entry(**record) for record in records if record.get("round") in self.finished]
        if path:  # without the cases of a round that was interrupted
            kept = [record for record in records if record.get("round", record.get("finished")) in self.finished]
            path.write_text("".join(f"{json.dumps(record)}\n" for record in kept))

    def add(self, entry: Entry) -> None:
        self.entries.append(entry)
        self._write(asdict(entry))
        if entry.result == "failed":
            print(
                f"{entry.kind}: {entry.case}: {entry.problems}\n  {entry.command}\n  {entry.err}",
                file=sys.stderr,
                flush=True,
            )

    def finish(self, round: str) -> None:
        self.finished.add(round)
        self._write({"finished": round})

    def _write(self, record: dict[str, object]) -> None:
        if self._path:
            with self._path.open("a") as file:
                print(json.dumps(record), file=file)

    def row(self, kind: str) -> str:
        """Return the row of the table of a kind."""
        entries = [entry for entry in self.entries if entry.kind == kind]
        results = [entry.result for entry in entries]
        numbers = [len(results), *map(results.count, ("refused", "accepted", "failed"))]
        seconds = max((entry.seconds for entry in entries), default=0)
        memory = max((entry.memory for entry in entries), default=0) >> 20
        return f"| {kind} | {' | '.join(f'{number:,}' for number in numbers)} | {seconds:.1f} s | {memory:,} MiB |"


ROUND = 20  # cases
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
    "files of many keys or repeated values": (partial(executed, files.wide), len(files.WIDE)),
    "re-sealed builds": (partial(executed, builds.resealed), 150),
    "manifests": (partial(executed, builds.manifests), 150),
    "configurations": (partial(executed, configurations.cases), 150),
    "templates": (partial(executed, templates.cases), 300),
    "Hub repositories": (repositories.outcomes, 100),
    "kills": (kills.outcomes, 200),
    "full disks": (full_disks.outcomes, 100),
    "runs": (partial(executed, configurations.runs), 60),
}


def attack(kind: str, seed: int, count: int, log: Log) -> None:
    """Run the rounds of a kind that are not in the log."""
    outcomes, _ = KINDS[kind]
    with tempfile.TemporaryDirectory(prefix="attack-") as folder:
        sandbox = Sandbox(Path(folder))
        for first in range(0, count, ROUND):
            size = min(ROUND, count - first)
            round = f"{kind}, seed {seed}, {first}+{size}"
            if round in log.finished:
                continue
            try:
                # text seeds depend neither on the order of the kinds nor on the rounds before
                for outcome in outcomes(sandbox, random.Random(f"{seed} {kind} {first}"), size):
                    log.add(Entry.of(kind, round, outcome))
            except Exception:
                log.add(
                    Entry(kind, round, "set-up", "failed", "the round could not be set up", err=traceback.format_exc())
                )
            log.finish(round)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", nargs="*", choices=KINDS, default=list(KINDS), help="the kinds to try; default: all")
    options.add_argument("--seed", type=int, default=13)
    options.add_argument("--cases", type=float, default=1.0, help="share of the cases of a full run")
    options.add_argument("--log", type=Path, help="file of JSON lines: what is in it is not tried again")
    arguments = options.parse_args()
    log = Log(arguments.log)
    print(HEADER)
    for kind in arguments.only:
        if kind == "full disks" and not full_disks.can_mount():
            print("full disks: left out, because this process may not mount a file system", file=sys.stderr)
            continue
        attack(kind, arguments.seed, max(1, round(KINDS[kind][1] * arguments.cases)), log)
        print(log.row(kind), flush=True)
    raise SystemExit(any(entry.result == "failed" for entry in log.entries))


if __name__ == "__main__":
    main()
