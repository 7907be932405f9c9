"""Checksums of all files of a folder, written beside them and verified before the files are used."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import msgspec

from dataprep.contract import sha256_of

CHECKSUMS_FILE = "checksums.json"


class FileChecksum(msgspec.Struct, frozen=True):
    """Size and SHA-256 of a file."""

    bytes: int
    sha256: str


def write_checksums(folder: Path) -> None:
    """Write `checksums.json`: size and SHA-256 of every file in `folder`, by relative path."""
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    files.pop(CHECKSUMS_FILE, None)
    (folder / CHECKSUMS_FILE).write_bytes(encode_checksums(files))


def encode_checksums(files: Mapping[str, Path | bytes]) -> bytes:
    """The content of `checksums.json` for these files or contents."""
    checksums = {name: _checksum(content) for name, content in files.items()}
    return msgspec.json.format(msgspec.json.encode(checksums))


def _checksum(content: Path | bytes) -> FileChecksum:
    if isinstance(content, bytes):
        return FileChecksum(len(content), hashlib.sha256(content).hexdigest())
    return FileChecksum(content.stat().st_size, sha256_of(content))


def find_damage(folder: Path, *, required: bool = True) -> str | None:
    """Compare the files with their checksums; returns what is wrong, such as `optimizer.pt is missing`, or None.

    Args:
        required: whether missing checksums are damage; runs of versions without checksums have none.
    """
    if not required and not (folder / CHECKSUMS_FILE).exists():
        return None
    try:
        content = (folder / CHECKSUMS_FILE).read_bytes()
        checksums = msgspec.json.decode(content, type=dict[str, FileChecksum])
        for name, expected in checksums.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != expected.bytes or sha256_of(path) != expected.sha256:
                return f"{name} has changed"
    except FileNotFoundError:
        return f"{CHECKSUMS_FILE} is missing"
    except (OSError, ValueError, RecursionError) as fault:
        return f"its files cannot be read ({fault})"
    return None
