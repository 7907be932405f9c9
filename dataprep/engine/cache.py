"""The cache of a store: results of map tasks, each in a folder named by a digest of all that it depends on.

An entry is written aside and appears by one rename; it is never changed. Its files are linked into a build's own folder
before they are read, so another process may remove the entry meanwhile. Checksums are compared at every use; a damaged
entry is removed and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import xxhash

CACHE_FOLDER = ".cache"  # in a store
DEFAULT_CACHE_BYTES = 10 * 10**9
_CHECKSUMS = "checksums.json"
_TEMPORARY = ".tmp-"
_SECONDS_TO_WRITE = 3600  # an older temporary folder was left by a killed process


def key_of(parts: Mapping[str, Any]) -> str:
    """Return the key of a result that depends on `parts` (JSON values) and on nothing else."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:40]


@dataclass(frozen=True)
class Cache:
    """A folder of entries, shared by the builds of a store."""

    folder: Path

    def fetch(self, key: str, target: Path) -> dict[str, Path] | None:
        """Link the files of an entry to paths that begin with `target`; None if there is no sound entry.

        Returns:
            The path of each file, by its name in the entry.
        """
        entry = self.folder / key
        try:
            checksums = json.loads((entry / _CHECKSUMS).read_bytes())
            files = {name: target.with_name(f"{target.name}-{name}") for name in checksums}
            for name, path in files.items():
                _link(entry / name, path)
            if all(_checksum(path) == checksums[name] for name, path in files.items()):
                os.utime(entry)
                return files
        except (OSError, ValueError, AttributeError):
            if not entry.exists():
                return None
        self._remove(entry)
        for path in target.parent.glob(f"{target.name}-*"):
            path.unlink()
        return None

    def store(self, key: str, files: Mapping[str, Path]) -> None:
        """Keep files as the entry `key`, in place of an entry that exists. Nothing is kept where the disk is full."""
        aside = self.folder / f"{_TEMPORARY}{uuid4().hex[:12]}"
        try:
            aside.mkdir(parents=True)
            for name, path in files.items():
                _link(path, aside / name)
            checksums = {name: _checksum(path) for name, path in files.items()}
            (aside / _CHECKSUMS).write_text(json.dumps(checksums))
            self._remove(self.folder / key)
            aside.rename(self.folder / key)
        except OSError:  # the disk is full, or another build was faster
            shutil.rmtree(aside, ignore_errors=True)

    def trim(self, max_bytes: int, dry_run: bool = False) -> list[tuple[Path, int]]:
        """Remove the entries that were used least recently until at most `max_bytes` are left, and old leftovers.

        Returns:
            Each folder that was removed (in a dry run: would be), and its bytes.
        """
        entries = sorted(_described(self.folder), key=lambda entry: -entry[0])
        removed, total = [], 0
        for used, path, size in entries:
            is_leftover = path.name.startswith(_TEMPORARY)
            total += 0 if is_leftover else size
            if total > max_bytes or is_leftover and time.time() - used > _SECONDS_TO_WRITE:
                total -= 0 if is_leftover else size
                removed.append((path, size))
                if not dry_run:
                    self._remove(path)
        return removed

    def _remove(self, entry: Path) -> None:
        """Remove an entry in one step, so that nobody sees a part of it."""
        aside = self.folder / f"{_TEMPORARY}{uuid4().hex[:12]}"
        with suppress(OSError):
            entry.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def _described(folder: Path) -> Iterable[tuple[float, Path, int]]:
    """The time of last use, path and bytes of each entry."""
    try:
        entries = [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for entry in entries:
        with suppress(OSError):
            yield entry.stat().st_mtime, entry, sum(file.stat().st_size for file in entry.iterdir())


def _link(source: Path, target: Path) -> None:
    """Link a file, or copy it where the file system has no hard links."""
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, xxhash.xxh3_128)
    return f"{path.stat().st_size}-{digest.hexdigest()}"
