"""Find runs by name. Apart from the errors it imports the standard library only, so that help and completion are instant."""

from __future__ import annotations

import os
from pathlib import Path

from dataprep.common.text import excerpt, nearest
from training.errors import RunError

RUN_FILE = "run.json"
RUNS = Path("runs")  # the default folder of runs, in the working directory


def run_names() -> list[str]:
    """The names of the runs in ./runs, sorted."""
    return sorted(path.parent.name for path in RUNS.glob(f"*/{RUN_FILE}"))


def locate_run(reference: str) -> Path:
    """The folder of a run given as a path, or as its name in ./runs or the beginning of one name.

    Raises:
        RunError: there is no such run, or more than one.
    """
    path = Path(reference).expanduser()
    if path.is_dir() or os.sep in reference:
        return path
    names = run_names()
    matches = [reference] if reference in names else [name for name in names if name.startswith(reference)]
    if len(matches) == 1:
        return RUNS / matches[0]
    if matches:
        raise RunError(f"'{reference}' is the beginning of more than one run in {RUNS}: {', '.join(matches)}.")
    raise RunError(f"There is no run '{excerpt(reference, 100)}' in {RUNS}. {nearest(reference, names)}")


def short_name(folder: Path) -> str:
    """How `locate_run` finds a run's folder again: its name if it lies in ./runs, else its path."""
    return folder.name if folder.resolve().parent == RUNS.resolve() else str(folder)
