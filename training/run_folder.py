"""The folder of a run: its layout, and how files and folders in it are written.

runs/NAME/
  run.json               provenance, options, resolved settings, ledger, metrics (`training.run_record`)
  metrics.jsonl          one line for each logged step: step, loss, … (`training.metrics`)
  loss.html              the losses, the speed, sample answers and options (`training.after.loss_page`)
  answers.json           held-out questions with the answers before and after (`training.after.sample_answers`)
  tensorboard/           events, with --report-to tensorboard
  base/                  the model and tokenizer, with --model tiny
  checkpoints/step-…/    complete checkpoints only: each is written to .partial and then renamed
  adapter/               the result: opens with stock peft; holds tokenizer, template, card and checksums
  .lock                  held while a process trains; its process id (`training.run_lock`)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.common.files import disk_errors, sync, write_file
from training.errors import RunError
from training.run_lock import LOCK_FILE
from training.run_lookup import RUN_FILE
from training.run_record import RunRecord, read_record

PARTIAL = ".partial"  # ends the name of a folder, or names a file, that is being written
RESUME_ADVICE = "solve this and continue with --resume auto"


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run."""

    path: Path

    @property
    def record_path(self) -> Path:
        """run.json."""
        return self.path / RUN_FILE

    @property
    def metrics(self) -> Path:
        """metrics.jsonl."""
        return self.path / "metrics.jsonl"

    @property
    def answers(self) -> Path:
        """answers.json."""
        return self.path / "answers.json"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's events."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        """The trained adapter."""
        return self.path / "adapter"

    @property
    def base(self) -> Path:
        """The base model of a run with --model tiny."""
        return self.path / "base"

    def complete_checkpoints(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        return sorted(path for path in self.checkpoints.glob("step-*") if path.is_dir() and path.name[5:].isdecimal())

    def read(self) -> RunRecord:
        """Read run.json.

        Raises:
            RunError: it is missing or unreadable.
        """
        return read_record(self.record_path)

    def write(self, record: RunRecord | Mapping[str, Any]) -> None:
        """Replace run.json atomically."""
        write_atomically(self.record_path, json.dumps(record, indent=1, ensure_ascii=False, default=str))

    def update(self, **entries: Any) -> None:
        """Replace entries of run.json."""
        self.write({**self.read(), **entries})


def prepare_folder(path: Path, resume: str) -> RunFolder:
    """Create the folders of a new run, or check that the folder holds a run to resume.

    Raises:
        RunError: the folder is not empty and `resume` is not `auto`, or it is not empty and holds no run.
    """
    folder = RunFolder(path)
    filled = path.is_dir() and any(not _is_leftover(child) for child in path.iterdir())
    if filled and resume != "auto":
        raise RunError(f"{path} is not empty: choose another --out, or pass --resume auto to continue the run in it.")
    if filled and not folder.record_path.exists():
        raise RunError(f"{path} is not empty and holds no run: choose another --out.")
    try:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise RunError(f"{path} cannot be written ({fault.strerror}): choose another --out.") from None
    return folder


def _is_leftover(path: Path) -> bool:
    """Whether `path` is the lock, or a run that failed before its first step left it, and it is written again."""
    return path.name in ("base", LOCK_FILE) or (path.name == "checkpoints" and not any(path.iterdir()))


def refuse_changes(recorded: RunRecord, now: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Refuse to resume a run with other data, model, options, arithmetic or schedule than it was started with.

    Args:
        now: the entries of run.json to compare, with their present values.

    Raises:
        RunError: names the first entry that differs.
    """
    for part, entries in now.items():
        before: Mapping[str, Any] = recorded.get(part, {})  # type: ignore[assignment]
        for name, value in entries.items():
            if before.get(name) != value:
                raise RunError(
                    f"The run in {path} was started with {name} {before.get(name)!r} and cannot be resumed with {value!r}: "
                    "use the value that it was started with, or another --out."
                )


def write_atomically(path: Path, text: str) -> None:
    """Replace a file of a run in one step.

    Raises:
        RunError: it cannot be written.
    """
    with write_errors(str(path), path.parent):
        write_file(path, text)


def commit_folder(partial: Path, final: Path) -> None:
    """Flush all files of `partial` to disk, then rename it to `final`, which is replaced if it exists."""
    for file in partial.rglob("*"):
        if file.is_file():
            sync(file)
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    sync(final.parent)


def write_errors(subject: str, folder: Path, advice: str = RESUME_ADVICE) -> AbstractContextManager[None]:
    """Turn a failed write into one sentence: "SUBJECT could not be written (REASON): ADVICE.", as a RunError.

    Args:
        folder: on the disk that is written to; need not exist yet.
    """
    return disk_errors(RunError, subject, advice, folder)
