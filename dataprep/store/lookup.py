"""Find builds: a store is a folder of names, and a name a folder of versions with the link `latest`.

Only real folders count as names and versions: a link among them could lead out of the store.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from dataprep.common.errors import BuildError, StoreError
from dataprep.common.text import excerpt, nearest
from dataprep.contract import MANIFEST, read_manifest

LATEST = "latest"
FAILED = "failed"  # the report and verdict of the last build, where it failed its gate

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def check_name(name: str) -> str:
    """Return `name` if it can be a folder's name inside a store.

    Raises:
        StoreError: it holds a separator, begins with a dot, or is too long.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise StoreError(
            f"'{excerpt(name, 100)}' cannot be a build's name: use up to 96 letters, digits, '.', '_' and '-', "
            "such as my-build."
        )
    return name


def locate(store: Path, reference: str) -> Path:
    """Return the folder of a build given as a path, as `name` (its latest version) or as `name@version`.

    Raises:
        StoreError: there is no such build; suggests the nearest.
    """
    if os.path.isfile(os.path.join(reference, MANIFEST)):
        return Path(reference).resolve()
    name, _, version = reference.partition("@")
    if not _NAME.fullmatch(name) or name not in names(store):
        raise StoreError(f"There is no build '{excerpt(name, 100)}' in {store}. {nearest(name, names(store))}")
    known = versions(store, name)
    if version:
        matches = [entry for entry in known if entry.startswith(version)]
        if len(matches) != 1:
            count = "more than one" if matches else "no"
            raise StoreError(
                f"There is {count} version '{excerpt(version, 100)}' of '{name}' in {store}. {nearest(version, known)}"
            )
        return (store / name / matches[0]).resolve()
    latest = latest_version(store, name)
    if latest is None:
        raise StoreError(f"'{name}' in {store} has no latest build: make one with dataprep build --name {name}.")
    return (store / name / latest).resolve()


def names(store: Path) -> list[str]:
    """Return the names in a store, sorted.

    Raises:
        StoreError: the store cannot be read.
    """
    return [name for name in _folders(store) if _NAME.fullmatch(name)]


def versions(store: Path, name: str) -> list[str]:
    """Return the whole versions of a name, sorted; a version whose files may not be read is one of them.

    Raises:
        StoreError: the folder of the name cannot be read.
    """
    home = store / name
    return [version for version in _folders(home) if version[0] != "." and _has_manifest(home / version)]


def _has_manifest(folder: Path) -> bool:
    try:
        os.stat(folder / MANIFEST)
    except PermissionError:
        return True
    except OSError:
        return False
    return True


def _folders(place: Path) -> list[str]:
    """Return the names of the folders in `place`, without links; none where it does not exist."""
    try:
        return sorted(entry.name for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as fault:
        raise StoreError(f"{place} cannot be read ({fault.strerror or fault}).") from None


def latest_version(store: Path, name: str) -> str | None:
    """Return the version that `latest` points to; None where there is none, or the link leads elsewhere."""
    with suppress(OSError):
        target = os.readlink(store / name / LATEST)
        return target if target in versions(store, name) else None
    return None


def parent_of(store: Path, name: str, version: str) -> str | None:
    """Return the version before `version`: the latest, or for a version that is rebuilt, its manifest's parent."""
    folder = store / name / version
    if not folder.is_dir():
        return latest_version(store, name)
    with suppress(BuildError):
        return read_manifest(folder).data.get("parent")
    return None
