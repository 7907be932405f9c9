"""Hash source files: SHA-256 of all bytes of a file, and of the bytes before any place in it.

This module imports little, so that a program can hash its sources on a thread while it imports the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from threading import Lock, Thread
from typing import NamedTuple

from dataprep.common.errors import InputError

# Bytes hashed at a time: between two blocks, a thread can wait 5 ms for the GIL while another one runs Python code.
_BLOCK = 16 << 20


class FileState(NamedTuple):
    """Size, time of the last change and identity of a file: they differ once something else was written to its path."""

    bytes: int
    changed: int
    inode: int


def state_of(path: Path) -> FileState:
    """Return the state of a file.

    Raises:
        InputError: it cannot be read any more.
    """
    with _read_errors(path):
        status = path.stat()
    return FileState(status.st_size, status.st_mtime_ns, status.st_ino)


class FileHash:
    """SHA-256 of a file's bytes, once it is computed, and of the bytes before each place."""

    def __init__(self, path: Path, step: int) -> None:
        """Args:
        path: the file.
        step: bytes between places whose digests are kept; those of other places read the bytes after the last one.

        Raises:
            InputError: the file cannot be read.
        """
        self.state = state_of(path)  # before it is hashed
        self.digest = ""  # in hex; empty until `compute` has returned
        self._path, self._step, self._lock = path, step, Lock()
        self._kept = [hashlib.sha256()]  # of the bytes before each multiple of `step`

    def compute(self) -> str:
        """Return the digest; a call while another one computes it waits for that one.

        Raises:
            InputError: the file cannot be read.
        """
        with self._lock:
            if not self.digest:
                self.digest = self._compute()
        return self.digest

    def before(self, position: int) -> str:
        """Return SHA-256 of the bytes before `position` in hex.

        Raises:
            InputError: the file cannot be read.
        """
        number = min(position // self._step, len(self._kept) - 1)
        digest, left = self._kept[number].copy(), position - number * self._step
        buffer = memoryview(bytearray(min(left, _BLOCK)))
        with self._open() as file:
            file.seek(position - left)
            while size := file.readinto(buffer[:left]):
                digest.update(buffer[:size])
                left -= size
        return digest.hexdigest()

    def _compute(self) -> str:
        digest, done = hashlib.sha256(), 0
        self._kept = [digest.copy()]
        buffer = memoryview(bytearray(min(self._step, _BLOCK)))
        with self._open() as file:
            while size := file.readinto(buffer[: self._step - done % self._step]):
                digest.update(buffer[:size])
                done += size
                if done % self._step == 0:
                    self._kept.append(digest.copy())
        return digest.hexdigest()

    @contextmanager
    def _open(self) -> Iterator[FileIO]:
        with _read_errors(self._path), FileIO(self._path) as file:
            yield file


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        raise InputError(f"{path} cannot be read: {fault.strerror}.") from None


_ahead: dict[Path, FileHash] = {}


def hash_ahead(sources: Iterable[str], step: int) -> None:
    """Begin to hash those sources that are files, on a thread that does not keep the program from ending."""
    with suppress(InputError, OSError):  # whoever reads the files says what is wrong with them
        paths = [path for source in sources if (path := Path(source).expanduser()).is_file()]
        _ahead.update({path.resolve(): FileHash(path, step) for path in paths})
    Thread(target=_compute_all, args=[list(_ahead.values())], daemon=True).start()


def _compute_all(hashes: Iterable[FileHash]) -> None:
    for each in hashes:
        with suppress(InputError):
            each.compute()


def hash_of(path: Path, step: int) -> FileHash:
    """Return the hash of a file, which `hash_ahead` may have begun to compute; it is begun anew if the file changed."""
    begun = _ahead.pop(path.resolve(), None)
    return begun if begun and begun.state == state_of(path) else FileHash(path, step)
