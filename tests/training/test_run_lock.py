"""One process trains in a run's folder at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from training.errors import RunError
from training.run_lock import lock_run

HOLDER = """
import sys, time
from pathlib import Path
from training.run_lock import lock_run
with lock_run(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_with_the_id_of_the_first(tmp_path: Path) -> None:
    run = tmp_path / "run"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run)],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match=rf"process id {holder.pid}\) is training in .*run"), lock_run(run):
            pass
    finally:
        holder.kill()
        holder.communicate()
    with lock_run(run):  # a killed process releases its lock
        assert (run / ".lock").read_text() == str(os.getpid())


def test_a_file_in_place_of_the_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(RunError, match="is not a folder"), lock_run(tmp_path / "run"):
        pass
