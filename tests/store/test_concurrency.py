"""Several processes in one store, and processes killed at random moments: every visible version is whole.

Children are forked from a server that has imported everything, so that a kill hits the work and not the start of
Python; each builds, rebuilds and collects garbage in a loop until it is killed. Moments and recipes are seeded.
"""

from __future__ import annotations

import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from dataprep.common.errors import BuildError
from dataprep.common.lookup import latest_version, versions
from dataprep.contract import Manifest, read_manifest, verify
from dataprep.store import commit, history
from dataprep.store.verification import verify_build
from tests.support.builds import guanaco_file, guanaco_text, make_build
from tests.support.forks import start_fork

KILLS = 60

PRELOAD = ["dataprep.build", "dataprep.store.history", __name__]


def work(store: Path, source: str, seed: int, steps: int, log: Path) -> None:
    """Build and collect garbage, `steps` times; write a line to `log` for each step that succeeds or is refused."""
    from dataprep.common.errors import DataprepError

    rng = random.Random(seed)
    with log.open("w") as out:
        for _ in range(steps):
            try:
                if rng.random() < 0.25:
                    history.gc(store, rng.randrange(3))
                else:
                    sample = 100 + rng.randrange(6)
                    quick = {"gate": "off", "near_dup": "off", "shard_size": "10kB"}
                    make_build(store, source=(source,), sample=sample, force=rng.random() < 0.5, **quick)
                print("done", file=out, flush=True)
            except DataprepError as fault:
                print("refused:", fault, file=out, flush=True)


def start(store: Path, source: str, seed: int, steps: int = 10**6) -> tuple[BaseProcess, Path]:
    store.mkdir(exist_ok=True)
    log = store.parent / f"{seed}.log"
    return start_fork(PRELOAD, work, store, source, seed, steps, log), log


def source_file(folder: Path, count: int = 300) -> str:
    return guanaco_file(folder, [guanaco_text(f"question {n}", f"answer {n} " + "x" * 300) for n in range(count)])


def check_all(store: Path) -> int:
    """Verify every visible version, and that `latest` is one of them; return their number."""
    visible = versions(store, "n")
    for version in visible:
        verify_build(store / "n" / version)
    assert latest_version(store, "n") in (None, *visible)
    return len(visible)


def wait_for_a_moment(store: Path, rng: random.Random) -> None:
    """Wait until a random moment: any, or one shortly after a build began to write."""
    until = time.monotonic() + rng.random() * 0.4
    while_writing = rng.random() < 0.6
    while time.monotonic() < until + 5 * while_writing:
        if while_writing and list((store / "n").glob(".tmp-*")):
            time.sleep(rng.random() * 0.03)
            return
        time.sleep(0.001)


def test_after_kills_at_random_moments_every_visible_version_is_whole(tmp_path: Path) -> None:
    rng = random.Random(1)
    source, store = source_file(tmp_path), tmp_path / "store"
    steps = killed_while_writing = 0
    running = [start(store, source, seed) for seed in range(2)]
    for number in range(KILLS):
        wait_for_a_moment(store, rng)
        process, log = running.pop(0)
        assert process.is_alive()
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        lines = log.read_text() if log.exists() else ""
        assert "refused" not in lines
        steps += lines.count("done")
        killed_while_writing += any((store / "n").glob(".tmp-*"))
        running.append(start(store, source, number + 2))
        if number % 6 == 5:  # stop all, so that the store can be checked
            for other, _ in running:
                other.kill()
                other.join()
            check_all(store)
            running = [start(store, source, 1000 * (number + 1) + n) for n in range(2)]
    for other, _ in running:
        other.kill()
        other.join()
    assert steps > 0
    assert killed_while_writing > KILLS / 6
    history.gc(store, 10)
    assert not list((store / "n").glob(".tmp-*"))
    process, log = start(store, source, 5, steps=4)
    process.join()
    assert (process.exitcode, log.read_text()) == (0, "done\n" * 4)
    assert check_all(store) > 0


def test_concurrent_builds_and_gc_all_succeed(tmp_path: Path) -> None:
    source, store = source_file(tmp_path), tmp_path / "store"
    running = [start(store, source, seed, steps=10) for seed in range(4)]
    for process, log in running:
        process.join(timeout=300)
        assert (process.exitcode, log.read_text()) == (0, "done\n" * 10)
    assert check_all(store) > 0
    assert latest_version(store, "n") in versions(store, "n")
    assert not [path for path in (store / "n").glob(".tmp-*") if path.is_dir()]


def test_a_version_that_is_removed_after_its_verification_is_not_reused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    version = make_build(store, source=(source_file(tmp_path, 50),), gate="off", near_dup="off").version
    (store / "n" / "latest").unlink()

    def verify_then_remove(manifest: Manifest) -> None:
        verify(manifest)
        history.gc(store, 0)

    monkeypatch.setattr("dataprep.store.commit.verify", verify_then_remove)
    assert commit.reuse_version(store, "n", version) is None
    assert latest_version(store, "n") is None


def test_a_version_that_is_removed_during_its_verification_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store"
    version = make_build(store, source=(source_file(tmp_path, 50),), gate="off", near_dup="off").version
    (store / "n" / "latest").unlink()
    manifest = read_manifest(store / "n" / version)
    history.gc(store, 0)
    with pytest.raises(BuildError, match="was removed meanwhile") as error:
        verify(manifest)
    assert error.value.exit_code == 1
    monkeypatch.setattr("dataprep.store.commit.read_manifest", lambda folder: manifest)
    make_build(store, source=(source_file(tmp_path, 50),), gate="off", near_dup="off", force=True)

    def remove_then_verify(manifest: Manifest) -> None:
        (store / "n" / "latest").unlink()
        history.gc(store, 0)
        raise BuildError("removed")

    monkeypatch.setattr("dataprep.store.commit.verify", remove_then_verify)
    assert commit.reuse_version(store, "n", version) is None
