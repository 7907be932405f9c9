"""Kill builds, and the Ray workers of builds, at random moments: the next build ends with identical bytes.

    python tests/bench/faults.py [--kills 60] [--conversations 20000] [--seed 1]

A third of the kills hits the build itself, a third a Ray worker of a build, and a third the build while another one of
the same name runs with the same cache. After each kill the build is made again; its shards, fates and manifest (but for
the time) must equal those of an undisturbed build, and no temporary folder may be left.
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


def ray_workers(parent: int, title: bytes = b"ray::") -> list[int]:
    """The processes of Ray workers below a process; those that run a task of a build are called `ray::_run`."""
    found, waiting = [], [parent]
    while waiting:
        pid = waiting.pop()
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += map(int, (task / "children").read_text().split())
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title):
                found.append(pid)
        except OSError:
            continue
    return found


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--kills", type=int, default=60)
    options.add_argument("--conversations", type=int, default=20_000)
    options.add_argument("--only", choices=["build", "Ray worker", "one of two builds"])
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    corpus, dice = cached_corpus(chosen.conversations), random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "expected"
        began = time.monotonic()
        subprocess.run(command(corpus, store, "--no-cache"), cwd=ROOT, check=True, capture_output=True)
        seconds, expected = time.monotonic() - began, content(store)
        print(f"undisturbed: {seconds:.1f} s")
        store = Path(folder) / "disturbed"
        hits = dict.fromkeys(("build", "Ray worker", "one of two builds"), 0)
        for number in range(chosen.kills):
            kind = chosen.only or list(hits)[number % 3]
            if number % 2:
                shutil.rmtree(store / ".cache", ignore_errors=True)
            more = ["--engine", "ray", "--workers", "2"] if kind == "Ray worker" else []
            process = start(command(corpus, store, *more))
            other = start(command(corpus, store)) if kind == "one of two builds" else None
            while more and process.poll() is None and not ray_workers(process.pid, b"ray::_run"):
                time.sleep(0.05)  # until the cluster runs tasks: a kill while Ray starts ends Ray
            time.sleep(dice.uniform(0, seconds))
            victims = ray_workers(process.pid) if more else [process.pid]
            if victims and process.poll() is None:
                os.kill(dice.choice(victims), signal.SIGKILL)
                hits[kind] += 1
            _, errors = process.communicate()
            if more and process.returncode:
                raise SystemExit(
                    f"kill {number}: a build on Ray (hit: {hits[kind]}) ended with {process.returncode}: {errors.decode()}"
                )
            if other and (messages := other.communicate()[1]) and other.returncode:
                raise SystemExit(f"kill {number}: the build beside a killed one failed: {messages.decode()}")
            subprocess.run(command(corpus, store), cwd=ROOT, check=True, capture_output=True)
            found = {key: value for key, value in content(store).items() if key != "parent"}
            if found != {key: value for key, value in expected.items() if key != "parent"}:
                raise SystemExit(f"kill {number} ({kind}): the next build differs")
            if left := list(store.glob("n/.tmp-*")):
                raise SystemExit(f"kill {number} ({kind}): {left} is left")
        print(f"{chosen.kills} builds, killed while they ran: {hits}; all of the builds after them are identical")


if __name__ == "__main__":
    main()
