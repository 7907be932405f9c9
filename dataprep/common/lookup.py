"""Find builds: a store is a folder of names, and a name a folder of versions with the link `latest`.

Only real folders count as names and versions: a link among them could lead out of the store. This module imports the
standard library only, so that `training` finds builds as `dataprep` does.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from dataprep.common.errors import StoreError
from dataprep.common.text import excerpt, nearest

MANIFEST = "manifest.json"  # its presence means that the folder is a whole build
DEFAULT_STORE = Path("data/builds")
SHORT_VERSION = 8  # hex digits of a version that people read and type; any unique prefix is accepted

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
    """Return the folder of a build.

    Args:
        store: where names are looked up.
        reference: a path, of a build or of a name's folder; or `name` (its latest version), `name@version`, where the
            version may be any unique prefix, or `name@latest`.

    Raises:
        StoreError: there is no such build; suggests the nearest.
    """
    for folder in (reference, os.path.join(reference, LATEST)):
        if os.path.isfile(os.path.join(folder, MANIFEST)):
            return Path(folder).resolve()
    name, _, version = reference.partition("@")
    if not _NAME.fullmatch(name) or name not in names(store):
        available = names(store)
        advice = nearest(name, available) if available else "Make one with dataprep build."
        if os.sep in reference:
            by_name = advice.replace("Available:", f"Available by name in {store}:")
            raise StoreError(f"There is no build in {excerpt(reference)}: it has no {MANIFEST}. {by_name}")
        raise StoreError(f"There is no build '{excerpt(name, 100)}' in {store}. {advice}")
    if version in ("", LATEST):
        return (store / name / _latest_of(store, name)).resolve()
    known = versions(store, name)
    matches = [entry for entry in known if entry.startswith(version)]
    if len(matches) != 1:
        count = "more than one" if matches else "no"
        raise StoreError(
            f"There is {count} version '{excerpt(version, 100)}' of '{name}' in {store}. {nearest(version, known)}"
        )
    return (store / name / matches[0]).resolve()


def follows_latest(reference: str) -> bool:
    """Whether a reference names the latest version, whichever that is, rather than one version."""
    if os.path.isfile(os.path.join(reference, MANIFEST)):
        return os.path.islink(reference)
    return reference.partition("@")[2] in ("", LATEST)


def _latest_of(store: Path, name: str) -> str:
    latest = latest_version(store, name)
    if latest is None:
        raise StoreError(f"'{name}' in {store} has no latest build: make one with dataprep build --name {name}.")
    return latest


def build_references(store: Path) -> list[str]:
    """Return each name in a store, and each of its versions as `name@version` with a short version.

    Raises:
        StoreError: the store cannot be read.
    """
    return [
        reference
        for name in names(store)
        for reference in (name, *(f"{name}@{short}" for short in short_versions(versions(store, name)).values()))
    ]


def short_versions(known: Sequence[str]) -> dict[str, str]:
    """Return the shortest unique prefixes of versions, of at least `SHORT_VERSION` digits."""
    length = SHORT_VERSION
    while len({version[:length] for version in known}) < len(set(known)):
        length += 1
    return {version: version[:length] for version in known}


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
