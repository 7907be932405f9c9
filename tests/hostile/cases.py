"""A hostile case: a command of the two programs, the folders that it may write, and what its execution must show."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

CPU_SECONDS = 20  # most that a case may take
MEMORY_BYTES = 1 << 30  # most that a case may take above the size of its input
MAX_SENTENCE = 3000  # characters of a refusal
TOKEN = "hf_TheSecretOfThisUser"  # HF_TOKEN of the attacked process; it may be in no output

_WRITABLE = ("store", "cache", "tmp", "out")


@dataclass(frozen=True)
class Case:
    """One command line."""

    name: str
    arguments: tuple[str, ...]
    program: Literal["dataprep", "training"] = "dataprep"

    @classmethod
    def of(cls, name: str, *arguments: str | Path) -> Case:
        return cls(name, tuple(map(str, arguments)))

    @classmethod
    def of_training(cls, name: str, *arguments: str | Path) -> Case:
        return cls(name, tuple(map(str, arguments)), "training")


@dataclass(frozen=True)
class Outcome:
    """What an executed case did."""

    case: Case
    code: int | None  # None: its process died
    died: str = ""  # by which signal, or why it was stopped
    out: str = ""
    err: str = ""
    cpu_seconds: float = 0.0  # of the process and of those that it started
    memory: int = 0  # peak bytes above those before the case
    input_bytes: int = 0
    foreign_writes: tuple[str, ...] = ()  # paths changed outside of the folders that a case may write, and programs run

    @property
    def is_accepted(self) -> bool:
        return self.code == 0

    def problems(self) -> list[str]:
        """Return what a hostile input must not cause, but did."""
        lines = self.err.strip().splitlines()
        checks = {
            self.died: bool(self.died),
            f"exit code {self.code}": self.code not in (0, 1, 2, 3, 4, None),
            "a traceback": "Traceback (most recent call last)" in self.out + self.err,
            "an unexpected exception": "this is a bug" in self.err,
            "no sentence": self.code in (1, 2, 3, 4) and not self._has_sentence(lines),
            "a long sentence": any(len(line) > MAX_SENTENCE for line in lines),
            "control characters in the output": bool(_CONTROL.search(self.out + self.err)),
            "the token in the output": TOKEN in self.out + self.err,
            f"{self.cpu_seconds:.0f} s of CPU time": self.cpu_seconds > CPU_SECONDS,
            f"{self.memory >> 20} MiB": self.memory > MEMORY_BYTES + self.input_bytes,
            f"written or run: {', '.join(self.foreign_writes[:3])}": bool(self.foreign_writes),
        }
        return [problem for problem, found in checks.items() if found]

    def _has_sentence(self, lines: list[str]) -> bool:
        if self.case.arguments[:2] == ("templates", "check") and self.out.strip():
            return True  # its result is the sentence
        return bool(lines) and lines[-1].startswith(("dataprep: ", "training: "))


_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Sandbox:
    """The folders of one case below `root`: its input, what it may write, and a file that it must not touch."""

    root: Path
    _before: dict[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def input(self) -> Path:
        return self.root / "input"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def work(self) -> Path:
        """The working directory of the command."""
        return self.root / "work"

    def prepare(self) -> None:
        """Make all folders anew."""
        for name in ("input", "work", "outside", *_WRITABLE):
            shutil.rmtree(self.root / name, ignore_errors=True)
            (self.root / name).mkdir(parents=True)
        (self.root / "outside" / "file").write_text("not to be touched")

    def remember(self) -> None:
        """Note the state of all files that the case must not change."""
        self._before.clear()
        self._before.update(self._state())

    def changes(self) -> list[str]:
        """Return the paths that were added, changed or removed since `remember`."""
        return sorted({path for path, _ in self._before.items() ^ self._state().items()})

    def input_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.input.rglob("*") if path.is_file())

    def _state(self) -> dict[str, tuple[int, ...]]:
        return {
            str(path): (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns)
            for path in self._protected()
            for status in [path.lstat()]
        }

    def _protected(self) -> Iterator[Path]:
        for entry in sorted(self.root.iterdir()):
            if entry.name not in _WRITABLE:
                yield from (path for path in (entry, *entry.rglob("*")) if not path.is_dir() or path.is_symlink())

    def environment(self) -> dict[str, str]:
        """Environment variables that keep caches, temporary files and the user's token inside of the sandbox."""
        cache = str(self.root / "cache")
        return {
            "HOME": str(self.root / "work"), "XDG_CACHE_HOME": cache, "HF_HOME": cache, "TMPDIR": str(self.root / "tmp"),
            "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
