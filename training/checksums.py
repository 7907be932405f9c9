"""Checksums of all files of a folder, written beside them and verified before the files are used."""

from __future__ import annotations

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
    checksums = {
        path.relative_to(folder).as_posix(): FileChecksum(path.stat().st_size, sha256_of(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != CHECKSUMS_FILE
    }
    (folder / CHECKSUMS_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(checksums)))


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
