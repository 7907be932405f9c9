"""The lock of a run's folder: one process trains in it at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from os import getpid
from pathlib import Path

from training.errors import RunError

LOCK_FILE = ".lock"  # holds the process id of its owner


@contextmanager
def lock_run(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder, which is created if it does not exist. A killed process releases its lock.

    Raises:
        RunError: another process holds the lock, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is not a folder: choose another --out.")
    path = folder / LOCK_FILE
    lock = FileLock(path, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        path.write_text(str(getpid()))
    except Timeout:
        raise RunError(
            f"Another process ({_owner(path)}) is training in {folder}: wait until it ends, or choose another --out."
        ) from None
    except OSError as fault:
        raise RunError(f"{folder} cannot be written ({fault.strerror}): choose another --out.") from None
    try:
        yield
    finally:
        lock.release()


def _owner(path: Path) -> str:
    try:
        return f"process id {int(path.read_text())}"
    except (OSError, ValueError):
        return "unknown process id"
