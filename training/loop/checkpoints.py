"""Checkpoints of a run: their names, the choice of one to resume from, and the removal of old ones."""

from __future__ import annotations

import shutil
from pathlib import Path

from training.checksums import find_damage
from training.run_folder import PARTIAL, RunFolder


def checkpoint_path(folder: RunFolder, step: int) -> Path:
    """The folder of the checkpoint of `step`."""
    return folder.checkpoints / f"step-{step:06d}"


def step_of(checkpoint: Path | None) -> int:
    """The step of a checkpoint; -1 for None."""
    return int(checkpoint.name.removeprefix("step-")) if checkpoint else -1


def newest_undamaged(folder: RunFolder, *, required: bool) -> tuple[Path | None, list[str]]:
    """The newest checkpoint whose files match their checksums, and one sentence for each damaged one that is newer.

    Args:
        required: whether a checkpoint without checksums is damaged; see `find_damage`.
    """
    sentences: list[str] = []
    for checkpoint in reversed(folder.complete_checkpoints()):
        damage = find_damage(checkpoint, required=required)
        if damage is None:
            return checkpoint, sentences
        sentences.append(f"The checkpoint {checkpoint} is damaged ({damage}) and is not used.")
    return None, sentences


def remove_old_checkpoints(folder: RunFolder, keep: int, best: int | None = None) -> None:
    """Remove all complete checkpoints except the newest `keep` and that of the step `best`.

    Partly removed ones that a killed run left are removed too.
    """
    for leftover in folder.checkpoints.glob(PARTIAL + "-*"):
        shutil.rmtree(leftover)
    for old in folder.complete_checkpoints()[:-keep]:
        if step_of(old) == best:
            continue
        renamed = old.with_name(PARTIAL + "-" + old.name)  # so that a partly removed one does not count as complete
        old.rename(renamed)
        shutil.rmtree(renamed)
