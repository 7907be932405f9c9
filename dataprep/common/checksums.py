"""Checksums of files, and whether a file still is what a record says of it.

This module imports the standard library only, so that `training` may use it too.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TypedDict


class FileEntry(TypedDict):
    """What a manifest or run.json says of a file: its size, and SHA-256 of its bytes in hex."""

    bytes: int
    sha256: str


def sha256_of(path: Path) -> str:
    """Return SHA-256 of a file's bytes in hex, read in blocks (1.8 GB/s where the processor has SHA instructions)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def entry_of(path: Path) -> FileEntry:
    """Return the size and checksum of a file."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def stamp_of(path: Path) -> list[int]:
    """Return a file's size, and when its content and its inode last changed (ns): equal stamps mean an unchanged file."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def problem_of(path: Path, entry: FileEntry) -> str:
    """Return how a file differs from its entry, as the end of a sentence that begins with its path; empty where equal."""
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            return f"is damaged: it has {size:,} bytes instead of {entry['bytes']:,}"
        if sha256_of(path) != entry["sha256"]:
            return "is damaged: its checksum differs from the recorded one"
    except FileNotFoundError:
        return "is missing"
    except OSError as fault:
        return f"cannot be read ({fault.strerror or fault})"
    return ""
