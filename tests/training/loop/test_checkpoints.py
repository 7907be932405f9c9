"""Which checkpoints a run keeps."""

from __future__ import annotations

from pathlib import Path

from training.loop.checkpoints import remove_old_checkpoints
from training.run_folder import RunFolder


def make_folders(run: Path, *names: str) -> None:
    for name in names:
        (run / "checkpoints" / name).mkdir(parents=True)


def test_old_checkpoints_and_partly_removed_ones_are_removed(tmp_path: Path) -> None:
    make_folders(tmp_path, "step-000004", "step-000008", "step-000012", ".partial-step-000002")
    remove_old_checkpoints(RunFolder(tmp_path), 2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-000008", "step-000012"]


def test_other_folders_are_no_checkpoints(tmp_path: Path) -> None:
    make_folders(tmp_path, "step-000004", "step-last", "step-")
    (tmp_path / "checkpoints" / "step-000008").write_text("a file")
    assert [path.name for path in RunFolder(tmp_path).complete_checkpoints()] == ["step-000004"]
