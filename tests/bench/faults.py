"""Kill builds, and the Ray workers of builds, at random moments: the next build ends with identical bytes.

    python tests/bench/faults.py [--kills 60] [--conversations 20000] [--seed 1]

In turn a kill hits the build itself, a Ray worker of a build, the build while another one of the same name runs with the
same cache, and one of Ray's own processes, from Ray's start on. After each kill the build is made again; its shards, fates
and manifest (but for the time) must equal those of an undisturbed build, and no temporary folder may be left. A build of
which a Ray worker is killed must succeed; one that loses Ray itself may end, with one sentence or ended by Ray.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from dataprep.common.checksums import sha256_of  # noqa: E402
from tests.bench.corpus import cached_corpus  # noqa: E402


def command(corpus: Path, store: Path, *more: str) -> list[str]:
    fixed = ["--partition-bytes", "2MB", "--gate", "off", "--split", "test=100", "--force", "--store", str(store)]
    return [sys.executable, "-m", "dataprep", "build", "--source", str(corpus), "--name", "n", *fixed, *more]


def content(store: Path) -> dict[str, object]:
    """What must be equal: the manifest but for its time, which holds the checksums of all other files."""
    folder = (store / "n/latest").resolve()
    manifest = json.loads((folder / "manifest.json").read_text())
    return {
        **{key: value for key, value in manifest.items() if key != "created"},
        "fates": sha256_of(next(folder.glob("fates/*"))),
    }


_WORKERS = (b"ray::_run", b"ray::IDLE")  # titles of processes that run tasks, or wait for one
_OWN = (b"ray::DashboardAgent", b"ray::RuntimeEnvAgent")  # of processes without which Ray itself ends on a machine


def ray_processes(parent: int, titles: tuple[bytes, ...]) -> list[int]:
    """The processes below a process whose command line begins with one of `titles`."""
    found, waiting = [], [parent]
    while waiting:
        pid = waiting.pop()
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(titles):
                found.append(pid)
        except OSError:
            continue
    return found


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


BUILD, RAY_WORKER, ONE_OF_TWO, RAY_ITSELF = KINDS = ("build", "Ray worker", "one of two builds", "Ray itself")


@dataclass
class Faults:
    """Kills builds of one corpus in one store, and compares the builds after them with an undisturbed one."""

    corpus: Path
    folder: Path
    dice: random.Random
    seconds: float = 0.0  # of the undisturbed build
    expected: dict[str, object] = field(default_factory=dict)
    hits: Counter[str] = field(default_factory=Counter)  # kills that hit a running build, by kind
    lost: Counter[str] = field(default_factory=Counter)  # how builds ended of which Ray itself was hit

    @property
    def store(self) -> Path:
        return self.folder / "disturbed"

    def build_undisturbed(self) -> None:
        began = time.monotonic()
        subprocess.run(
            command(self.corpus, self.folder / "expected", "--no-cache"), cwd=ROOT, check=True, capture_output=True
        )
        self.seconds, self.expected = time.monotonic() - began, content(self.folder / "expected")

    def kill_one(self, kind: str) -> None:
        """Kill a build of `kind` at a random moment, and build again.

        Raises:
            SystemExit: what must not happen, happened.
        """
        on_ray = kind in (RAY_WORKER, RAY_ITSELF)
        process = start(command(self.corpus, self.store, *(["--engine", "ray", "--workers", "2"] if on_ray else [])))
        other = start(command(self.corpus, self.store)) if kind == ONE_OF_TWO else None
        awaited = {RAY_WORKER: _WORKERS[:1], RAY_ITSELF: _OWN}.get(kind)
        while awaited and process.poll() is None and not ray_processes(process.pid, awaited):
            time.sleep(0.05)
        time.sleep(self.dice.uniform(0, self.seconds))
        targets = {RAY_WORKER: _WORKERS, RAY_ITSELF: _OWN}.get(kind)
        victims = ray_processes(process.pid, targets) if targets else [process.pid]
        if victims and process.poll() is None:
            os.kill(self.dice.choice(victims), signal.SIGKILL)
            self.hits[kind] += 1
        errors = process.communicate()[1].decode(errors="replace").strip()
        if kind == RAY_ITSELF and process.returncode == 1 and "this is a bug" not in errors:
            has_sentence = errors.rpartition("\n")[2].startswith("dataprep: ")
            self.lost["with a sentence" if has_sentence else "ended by Ray"] += 1
        elif on_ray and process.returncode:
            raise SystemExit(f"{kind}: the build ended with {process.returncode}: {errors}")
        if other and (messages := other.communicate()[1]) and other.returncode:
            raise SystemExit(f"{kind}: the build beside a killed one failed: {messages.decode()}")
        again = subprocess.run(command(self.corpus, self.store), cwd=ROOT, capture_output=True, text=True)
        if again.returncode:
            raise SystemExit(f"{kind}: the next build ended with {again.returncode}: {again.stderr}")
        if _without_parent(content(self.store)) != _without_parent(self.expected):
            raise SystemExit(f"{kind}: the next build differs")
        if left := list(self.store.glob("n/.tmp-*")):
            raise SystemExit(f"{kind}: {left} is left")


def _without_parent(manifest: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in manifest.items() if key != "parent"}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=60)
    options.add_argument("--conversations", type=int, default=20_000)
    options.add_argument("--only", choices=KINDS)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        faults = Faults(cached_corpus(chosen.conversations), Path(folder), random.Random(chosen.seed))
        faults.build_undisturbed()
        print(f"undisturbed: {faults.seconds:.1f} s", flush=True)
        for number in range(chosen.kills):
            kind = chosen.only or KINDS[number % len(KINDS)]
            if number % 8 < 4:
                shutil.rmtree(faults.store / ".cache", ignore_errors=True)
            faults.kill_one(kind)
            print(f"kill {number + 1}: {kind}: the next build is identical", flush=True)
    print(
        f"{chosen.kills} builds; killed while they ran: {dict(faults.hits)}; builds that lost Ray itself and failed: "
        f"{dict(faults.lost)}; all of the builds after them are identical"
    )


if __name__ == "__main__":
    main()
