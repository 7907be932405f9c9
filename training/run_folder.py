"""A run's folder: run.json, metrics.jsonl, checkpoints and the adapter.

runs/NAME/
  run.json               what the run is bound to, its options, what was resolved, ledger, metrics
  metrics.jsonl          one line for each step that was logged: step, loss, …
  loss.html              the curve
  tensorboard/           with --report-to tensorboard: events
  base/                  with --model tiny: the model and tokenizer that were made
  checkpoints/step-…/    whole ones only: written to .partial, then renamed
  adapter/               the result: opens with stock peft, carries tokenizer, template and card
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from training.errors import RunError, TrainingError

RUN = "run.json"
PARTIAL = ".partial"
LIBRARIES = ("torch", "transformers", "peft", "trl", "bitsandbytes", "accelerate", "datasets", "tokenizers", "pyarrow")


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run."""

    path: Path

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def adapter(self) -> Path:
        return self.path / "adapter"

    @property
    def base(self) -> Path:
        return self.path / "base"

    def complete_checkpoints(self) -> list[Path]:
        """The whole checkpoints, oldest first."""
        return sorted(self.checkpoints.glob("step-*"))

    def read(self) -> dict[str, Any]:
        """run.json.

        Raises:
            RunError: there is none, or it cannot be read.
        """
        try:
            return dict(json.loads((self.path / RUN).read_bytes()))
        except FileNotFoundError:
            raise RunError(f"There is no run in {self.path}: it has no {RUN}.") from None
        except (OSError, ValueError) as fault:
            raise RunError(f"{self.path / RUN} cannot be read ({fault}).") from None

    def write(self, facts: dict[str, Any]) -> None:
        """Replace run.json in one step."""
        write_whole(self.path / RUN, json.dumps(facts, indent=1, ensure_ascii=False, default=str))

    def update(self, **facts: Any) -> None:
        """Change some of run.json's entries."""
        self.write(self.read() | facts)


def write_whole(path: Path, text: str) -> None:
    """A file that is there whole or as it was.

    Raises:
        RunError: it cannot be written.
    """
    partial = path.with_name(path.name + PARTIAL)
    with writing(str(path), path.parent):
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def prepare_folder(path: Path, resume: str) -> tuple[RunFolder, Path | None]:
    """The run's folder and the checkpoint to go on from (None: begin).

    Raises:
        RunError: it holds something and `--resume auto` was not said, or it holds no run.
    """
    folder = RunFolder(path)
    filled = path.is_dir() and any(not _left_over(child) for child in path.iterdir())
    if path.exists() and not path.is_dir():
        raise RunError(f"{path} is no folder: choose another --out.")
    if filled and resume != "auto":
        raise RunError(f"{path} is not empty: choose another --out, or say --resume auto to go on with the run in it.")
    if filled and not (path / RUN).exists():
        raise RunError(f"{path} is not empty and holds no run: choose another --out.")
    try:
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise RunError(f"{path} cannot be written ({fault.strerror}): choose another --out.") from None
    whole = folder.complete_checkpoints()
    return folder, whole[-1] if whole else None


def _left_over(path: Path) -> bool:
    """Made before a run failed to begin: it would be made again."""
    return path.name == "base" or (path.name == "checkpoints" and not any(path.iterdir()))


def refuse_changes(recorded: dict[str, Any], now: dict[str, Any], path: Path) -> None:
    """A run goes on with the build, tokenizer, model, options, arithmetic and pace it began with.

    Args:
        now: those of run.json's entries that are to be compared.

    Raises:
        RunError: names the first thing that differs.
    """
    for part, entries in now.items():
        for name, value in entries.items():
            before = recorded.get(part, {}).get(name)
            if before != value:
                raise RunError(
                    f"The run in {path} began with {name} {before!r} and would go on with {value!r}: "
                    "give what it began with, or another --out."
                )


def truncate_metrics(path: Path, step: int) -> None:
    """Leave the lines of metrics.jsonl up to `step`; a half-written last line goes too."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (ValueError, KeyError):
            break
    write_whole(path, "".join(kept))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """metrics.jsonl's lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def commit_folder(partial: Path, final: Path) -> None:
    """Make a folder count: all its bytes on disk, then one rename."""
    for file in partial.rglob("*"):
        if file.is_file():
            with file.open("rb") as handle:
                os.fsync(handle.fileno())
    if final.exists():
        shutil.rmtree(final)
    partial.rename(final)
    handle_parent = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(handle_parent)
    finally:
        os.close(handle_parent)


def rotate(folder: RunFolder, keep: int) -> None:
    """Remove all whole checkpoints but the newest `keep`, and what a killed run left of older ones."""
    for left in folder.checkpoints.glob(PARTIAL + "-*"):
        shutil.rmtree(left)
    for old in folder.complete_checkpoints()[:-keep]:
        doomed = old.with_name(PARTIAL + "-" + old.name)  # renamed first: a half-removed one must not count
        old.rename(doomed)
        shutil.rmtree(doomed)


FULL = 16 * 2**20  # bytes; a disk with less room is taken for full where a library does not say what failed
# What torch.save and safetensors say when a write fails, in place of an OSError.
WRITERS = ("inline_container", "PytorchStreamWriter", "file write failed", "Error while serializing")
AGAIN = "go on with --resume auto"


@contextmanager
def writing(what: str, where: Path, again: str = AGAIN) -> Iterator[None]:
    """What is written within is on disk afterwards, or the run ends with one sentence.

    Args:
        what: the subject of that sentence.
        where: a folder, perhaps still to be made, on the disk that is written to.
        again: what to do once there is room.

    Raises:
        RunError: the disk is full, or refuses.
    """
    try:
        yield
    except Exception as fault:
        told = explain(fault, what, where, again)
        if told is None:
            raise
        raise told from None


def explain(fault: BaseException, what: str, where: Path | None = None, again: str = AGAIN) -> RunError | None:
    """A sentence for a fault of the disk, None for any other: libraries wrap a full disk in errors of their own."""
    if isinstance(fault, TrainingError):
        return None  # it is a sentence already
    chain: list[BaseException] = []
    link: BaseException | None = fault
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    texts = [str(link) for link in chain]
    told = [int(number) for text in texts for number in re.findall(r"os error (\d+)", text)]  # by Rust libraries
    if not isinstance(fault, OSError) and not told and not any(mark in text for mark in WRITERS for text in texts):
        return None
    numbers = told + [link.errno for link in chain if isinstance(link, OSError) and link.errno is not None]
    if not numbers and (where is None or _free(where) < FULL):
        numbers = [errno.ENOSPC]
    if {errno.ENOSPC, errno.EDQUOT} & {*numbers}:
        return RunError(f"{what} could not be written: the disk is full; free some room and {again}.")
    reason = os.strerror(numbers[0]) if numbers else texts[0].partition("\n")[0]
    return RunError(f"{what} could not be written ({reason}); mend that and {again}.")


def _free(where: Path) -> int:
    """Bytes left on the disk that holds `where`, or will hold it."""
    return shutil.disk_usage(next(path for path in (where, *where.absolute().parents) if path.exists())).free


def library_versions() -> dict[str, str]:
    """The versions of what computes."""
    found = {}
    for name in (*LIBRARIES, "liger-kernel"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
