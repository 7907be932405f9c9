"""Processes in one store at once, and processes killed at random moments: every version that is seen is whole.

Children are forked from a server that has imported everything, so that a kill falls into the work and not into the
start of Python; each builds, rebuilds and collects in a loop until it is killed. Moments and recipes are seeded.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from dataprep import contract
from dataprep.common.errors import StoreError
from dataprep.store import builds as store
from dataprep.store import history
from dataprep.store.verification import verify_build
from tests.support.builds import guanaco_file, guanaco_text, make_build

KILLS = 60

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["dataprep.build", "dataprep.store.history", __name__])


def work(place: Path, source: str, seed: int, steps: int, log: Path) -> None:
    """Build and collect, `steps` times; a line of `log` for each that is done or refused."""
    from dataprep.common.errors import DataprepError

    rng = random.Random(seed)
    with log.open("w") as out:
        for _ in range(steps):
            try:
                if rng.random() < 0.25:
                    history.gc(place, rng.randrange(3))
                else:
                    sample = 100 + rng.randrange(6)
                    quick = {"gate": "off", "near_dup": "off", "shard_size": "10kB"}
                    make_build(place, source=(source,), sample=sample, force=rng.random() < 0.5, **quick)
                print("done", file=out, flush=True)
            except DataprepError as fault:
                print("refused:", fault, file=out, flush=True)


def start(place: Path, source: str, seed: int, steps: int = 10**6) -> tuple[BaseProcess, Path]:
    place.mkdir(exist_ok=True)
    log = place.parent / f"{seed}.log"
    process = FORKS.Process(target=work, args=(place, source, seed, steps, log), daemon=True)
    process.start()
    return process, log


def rows(folder: Path, count: int = 300) -> str:
    return guanaco_file(folder, [guanaco_text(f"question {n}", f"answer {n} " + "x" * 300) for n in range(count)])


def check_all(place: Path) -> int:
    """Verify every version that is seen, and that `latest` is one of them; how many there are."""
    seen = store.versions(place, "n")
    for version in seen:
        verify_build(place / "n" / version)
    assert store.latest_version(place, "n") in (None, *seen)
    return len(seen)


def wait_for_a_moment(place: Path, rng: random.Random) -> None:
    """A random one: any, or one soon after something is being written."""
    until = time.monotonic() + rng.random() * 0.4
    writing = rng.random() < 0.6
    while time.monotonic() < until + 5 * writing:
        if writing and list((place / "n").glob(".tmp-*")):
            time.sleep(rng.random() * 0.03)
            return
        time.sleep(0.001)


def test_killed_at_random_moments_every_visible_version_is_whole(tmp_path: Path) -> None:
    rng = random.Random(1)
    source, place = rows(tmp_path), tmp_path / "store"
    steps = killed_inside = 0
    running = [start(place, source, seed) for seed in range(2)]
    for number in range(KILLS):
        wait_for_a_moment(place, rng)
        process, log = running.pop(0)
        assert process.is_alive()
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        told = log.read_text() if log.exists() else ""
        assert "refused" not in told
        steps += told.count("done")
        killed_inside += any((place / "n").glob(".tmp-*"))
        running.append(start(place, source, number + 2))
        if number % 6 == 5:  # a moment in which nothing moves
            for other, _ in running:
                other.kill()
                other.join()
            check_all(place)
            running = [start(place, source, 1000 * (number + 1) + n) for n in range(2)]
    for other, _ in running:
        other.kill()
        other.join()
    assert steps > 0
    assert killed_inside > KILLS / 6
    history.gc(place, 10)
    assert not list((place / "n").glob(".tmp-*"))
    process, log = start(place, source, 5, steps=4)
    process.join()
    assert (process.exitcode, log.read_text()) == (0, "done\n" * 4)
    assert check_all(place) > 0


def test_builds_and_gc_at_once_all_end_well(tmp_path: Path) -> None:
    source, place = rows(tmp_path), tmp_path / "store"
    running = [start(place, source, seed, steps=10) for seed in range(4)]
    for process, log in running:
        process.join(timeout=300)
        assert (process.exitcode, log.read_text()) == (0, "done\n" * 10)
    assert check_all(place) > 0
    assert store.latest_version(place, "n") in store.versions(place, "n")
    assert not [path for path in (place / "n").glob(".tmp-*") if path.is_dir()]


def test_a_version_that_goes_while_it_is_looked_for_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "store"
    version = make_build(place, source=(rows(tmp_path, 50),), gate="off", near_dup="off").version
    (place / "n" / "latest").unlink()
    checked = store.check_files

    def gone_meanwhile(folder: Path) -> None:
        checked(folder)
        history.gc(place, 0)

    monkeypatch.setattr(store, "check_files", gone_meanwhile)
    assert store.existing(place, "n", version) is None
    assert store.latest_version(place, "n") is None


def test_a_version_that_goes_while_its_files_are_checked_was_removed_and_not_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "store"
    made = make_build(place, source=(rows(tmp_path, 50),), gate="off", near_dup="off")
    (place / "n" / "latest").unlink()
    read = contract.read_manifest

    def gone_meanwhile(folder: Path) -> contract.Manifest:
        manifest = read(folder)
        history.gc(place, 0)
        return manifest

    monkeypatch.setattr(store, "read_manifest", gone_meanwhile)
    with pytest.raises(StoreError, match="was removed meanwhile"):
        store.check_files(place / "n" / made.version)
    make_build(place, source=(rows(tmp_path, 50),), gate="off", near_dup="off")
    (place / "n" / "latest").unlink()
    assert store.existing(place, "n", made.version) is None
