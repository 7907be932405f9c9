"""Builds that are interrupted, killed, or run at the same time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.builds import guanaco_file, guanaco_text
from tests.support.commands import dataprep


def large_file(folder: Path, rows: int = 20_000) -> str:
    return guanaco_file(
        folder,
        [guanaco_text(f"question {n} " + "x" * 300, f"answer {n} " + "y" * 300) for n in range(rows)],
        "large.jsonl",
    )


def start(source: str, store: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "dataprep", "build", source, "--store", str(store), *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def visible_entries(store: Path) -> list[str]:
    return [entry.name for entry in store.glob("*/*") if not entry.name.startswith(".")]


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_build_leaves_no_half_version(tmp_path: Path, signal_number: signal.Signals) -> None:
    source, store = large_file(tmp_path), tmp_path / "store"
    for wait in (0.4, 0.8):
        process = start(source, store)
        time.sleep(wait)
        process.send_signal(signal_number)
        _, err = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == (130 if signal_number == signal.SIGINT else -signal_number), err
        assert "Traceback" not in err
        for name in visible_entries(store):  # the build may have finished before the signal
            if name != "latest":
                assert dataprep("verify", store / "large" / name).returncode == 0
    done = dataprep("build", "--source", source, "--store", store, "--json")
    assert done.returncode == 0, done.stderr
    assert dataprep("verify", "large", "--store", store).returncode == 0
    assert not list(store.glob("*/.tmp-*"))


def test_two_builds_of_one_name_at_once_both_succeed(tmp_path: Path) -> None:
    source, store = large_file(tmp_path, 4_000), tmp_path / "store"
    both = [start(source, store, "--gate", "off") for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
    assert dataprep("verify", "large", "--store", store).returncode == 0
    assert len([name for name in visible_entries(store) if name != "latest"]) == 1
