"""Checkpoints of a run: their names, and the removal of old ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from training.run_folder import PARTIAL, RunFolder


def checkpoint_path(folder: RunFolder, step: int) -> Path:
    """The folder of the checkpoint of `step`."""
    return folder.checkpoints / f"step-{step:06d}"


def step_of(checkpoint: Path | None) -> int:
    """The step of a checkpoint; -1 for None."""
    return int(checkpoint.name.removeprefix("step-")) if checkpoint else -1


def remove_old_checkpoints(folder: RunFolder, keep: int) -> None:
    """Remove all complete checkpoints except the newest `keep`, and partly removed ones that a killed run left."""
    for leftover in folder.checkpoints.glob(PARTIAL + "-*"):
        shutil.rmtree(leftover)
    for old in folder.complete_checkpoints()[:-keep]:
        renamed = old.with_name(PARTIAL + "-" + old.name)  # so that a partly removed one does not count as complete
        old.rename(renamed)
        shutil.rmtree(renamed)
