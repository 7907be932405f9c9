"""Disks that fill up at every place of a command: file systems in memory of many sizes. Needs the right to mount them."""

from __future__ import annotations

import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dataprep.common.errors import DataprepError
from dataprep.common.lookup import names, versions
from dataprep.store.verification import verify_build
from tests.hostile.builds import copy_build
from tests.hostile.cases import Case, Outcome, Sandbox
from tests.hostile.process import Attacker, failed
from tests.support.builds import guanaco_file, guanaco_text

COMMANDS = 8  # that write
_PAGE = 4096  # bytes: the unit of such a file system
_TEXTS = [guanaco_text(f"question {n} " * 9, f"answer {n} " * 9) for n in range(300)]


def can_mount() -> bool:
    """Whether this process may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with _disk(Path(folder), _PAGE):
                return True
        except subprocess.CalledProcessError:
            return False


@contextmanager
def _disk(folder: Path, size: int) -> Iterator[None]:
    """Mount a file system of `size` bytes on a folder."""
    options = ["-t", "tmpfs", "-o", f"size={size}"]
    subprocess.run(["mount", *options, "none", str(folder)], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True, capture_output=True)


def _commands(sandbox: Sandbox, build: Path, rows: str) -> list[tuple[Path, tuple[str | Path, ...]]]:
    """Commands that write, each with the folder that it writes into."""
    options = ("--store", sandbox.store, "--gate", "off", "--name", "m", "--near-dup", "off")
    return [
        (sandbox.store, ("build", "--source", rows, *options)),
        (sandbox.store, ("build", "--source", rows, *options, "--partition-bytes", "20kB")),
        (sandbox.root / "tmp", ("build", "--source", rows, *options, "--partition-bytes", "20kB", "--dry-run")),
        (sandbox.out, ("export", build, "--to", sandbox.out / "export")),
        (sandbox.out, ("publish", build, "--to", sandbox.out / "published")),
        (sandbox.out, ("report", build, "--out", sandbox.out / "page.html")),
        (sandbox.out, ("audit", rows, "--repaired", sandbox.out / "repaired.jsonl")),
        (sandbox.out, ("audit", rows, "--report", sandbox.out / "page.html")),
    ]


def outcomes(sandbox: Sandbox, rng: random.Random, count: int) -> Iterator[Outcome]:
    """Run each command with `count` sizes of the disk in all, spread from none to a little more than it needs."""
    with Attacker(sandbox) as attacker:
        for which in range(COMMANDS):
            needed = 0
            places = count // COMMANDS + (which < count % COMMANDS)
            for place in range(places):
                sandbox.prepare()
                build = copy_build(sandbox)
                rows = guanaco_file(sandbox.input, _TEXTS)
                folder, arguments = _commands(sandbox, build, rows)[which]
                if not needed:
                    needed = _bytes_needed(attacker, folder, Case.of("", *arguments), sandbox)
                    sandbox.prepare()
                    copy_build(sandbox)
                    guanaco_file(sandbox.input, _TEXTS)
                size = _PAGE + int(1.1 * needed * (place + rng.random()) / places)
                with _disk(folder, size):
                    outcome = attacker.execute(Case.of(f"{arguments[0]} on a disk of {size:,} bytes", *arguments))
                    left = _leftovers(folder, outcome)
                yield failed(outcome, left) if left else outcome


def _bytes_needed(attacker: Attacker, folder: Path, case: Case, sandbox: Sandbox) -> int:
    """Return the bytes that a command has written at its end, of whole pages."""
    with _disk(folder, 1 << 30):
        assert attacker.execute(case).code == 0
        return max(
            300_000, sum(-(-path.stat().st_size // _PAGE) * _PAGE for path in folder.rglob("*") if path.is_file())
        )


def _leftovers(folder: Path, outcome: Outcome) -> str:
    """Return what is wrong with the disk after a command: a damaged version, or files of a command that was refused."""
    if folder.name == "store":
        try:
            for name in names(folder):
                for version in versions(folder, name):
                    verify_build(folder / name / version)
        except DataprepError as fault:
            return f"a damaged version: {fault}"
        left = [path for path in folder.glob("*/.tmp-*") if not path.name.endswith(".lock")]
    else:
        left = [] if outcome.is_accepted else [path for path in folder.rglob("*") if path.is_file()]
    return f"left behind: {left[0].relative_to(folder)}" if left else ""
