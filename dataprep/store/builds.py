"""Where builds live: a store is a folder of names, a name a folder of versions and the link `latest`.

A version appears whole or not at all: it is written into a temporary folder, its manifest last, and one rename
puts it in place. A live writer holds a lock on its temporary folder, so what a killed one left is known and
removed by the next build of that name.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from dataprep.common.errors import BuildError, DamagedBuild, StoreError
from dataprep.common.text import nearest
from dataprep.contract import (
    MANIFEST,
    read_manifest,
    remembered,
    verify,
)
from dataprep.store.shards import sync

LATEST = "latest"
FAILED = "failed"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_TEMPORARY = ".tmp-"


def check_name(name: str) -> str:
    """`name`, if it can be a folder's name inside a store and nowhere else.

    Raises:
        StoreError: it holds a separator, begins with a dot, or is too long.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise StoreError(
            f"'{name}' cannot be a build's name: use up to 96 letters, digits, '.', '_' and '-', such as my-build."
        )
    return name


def locate(store: Path, reference: str) -> Path:
    """The folder of the build that `reference` names: a path, `name` (its latest) or `name@version`.

    Raises:
        StoreError: there is none; names the nearest.
    """
    as_path = Path(reference)
    if (as_path / MANIFEST).is_file():
        return as_path.resolve()
    name, _, version = reference.partition("@")
    home = store / name
    if not _NAME.fullmatch(name) or not home.is_dir():
        raise StoreError(f"There is no build '{name}' in {store}. {nearest(name, names(store))}")
    known = versions(store, name)
    if version:
        found = [entry for entry in known if entry.startswith(version)]
        if len(found) != 1:
            word = "no" if not found else "more than one"
            raise StoreError(f"There is {word} version '{version}' of '{name}' in {store}. {nearest(version, known)}")
        return (home / found[0]).resolve()
    if not (home / LATEST / MANIFEST).is_file():
        raise StoreError(f"'{name}' in {store} has no latest build: make one with dataprep build --name {name}.")
    return (home / LATEST).resolve()


def names(store: Path) -> list[str]:
    """The names in a store, sorted."""
    if not store.is_dir():
        return []
    return sorted(entry.name for entry in store.iterdir() if _NAME.fullmatch(entry.name) and entry.is_dir())


def versions(store: Path, name: str) -> list[str]:
    """The whole versions of a name, sorted."""
    home = store / name
    if not home.is_dir():
        return []
    return sorted(
        e.name for e in home.iterdir() if e.name != LATEST and not e.name.startswith(".") and (e / MANIFEST).is_file()
    )


def existing(store: Path, name: str, version: str) -> Path | None:
    """The folder of a version that is there already, verified and made `latest`; None where there is none.

    Raises:
        DamagedBuild: it is there, and is not what its manifest says.
    """
    folder = store / name / version
    if not (folder / MANIFEST).is_file():
        return None
    try:
        check_files(folder)
    except BuildError:
        if (folder / MANIFEST).is_file():
            raise
        return None  # it was taken away meanwhile
    with telling_os_errors(store), _name_lock(store / name):
        if not (folder / MANIFEST).is_file():
            return None
        _point_latest(store / name, version)
        _forget_failed(store / name)
    return folder


def check_files(folder: Path) -> None:
    """Check the files of a build against its manifest.

    Raises:
        DamagedBuild: names the damaged file.
    """
    verify(read_manifest(folder))


@contextmanager
def new_version(store: Path, name: str) -> Iterator[Path]:
    """A temporary folder to write a version into; it is gone afterwards unless `publish` moved it.

    Raises:
        StoreError: the store cannot be written, or is full.
    """
    home = store / name
    with telling_os_errors(store):
        home.mkdir(parents=True, exist_ok=True)
        with _name_lock(home):
            _clean(home)
            _forget_failed(home)
            folder = home / f"{_TEMPORARY}{uuid4().hex[:12]}"
            lock = FileLock(f"{folder}.lock")
            lock.acquire(timeout=0)
        try:
            folder.mkdir()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


@contextmanager
def telling_os_errors(
    place: Path, advice: str = "nothing was published; free or choose another --store"
) -> Iterator[None]:
    """Turn the operating system's refusals into one sentence about `place`."""
    try:
        yield
    except OSError as fault:
        reason = fault.strerror or str(fault)
        raise StoreError(f"Writing below {place} failed ({reason}): {advice}.") from None


def keep_failed(folder: Path, store: Path, name: str, files: Sequence[str]) -> Path:
    """Move `files` of a build that failed its gate out of its temporary `folder`, to where the next build removes them."""
    kept = store / name / FAILED
    with telling_os_errors(store), _name_lock(store / name):
        _forget_failed(store / name)
        kept.mkdir()
        for file in files:
            (folder / file).rename(kept / file)
    return kept


def _forget_failed(home: Path) -> None:
    """Remove what a build left that failed its gate; the name's lock is held."""
    shutil.rmtree(home / FAILED, ignore_errors=True)


def publish(folder: Path, store: Path, name: str, version: str) -> Path:
    """Put the finished temporary `folder` in place as `version` and point `latest` to it.

    Where that version is there already (another process was faster, or a rebuild), its shards must be the same. A
    whole one stays as it is; the files of a damaged one are replaced one by one, the manifest last.

    Raises:
        DamagedBuild: the version is there with other shards: the build is not reproducible.
    """
    home, target = store / name, store / name / version
    with telling_os_errors(store), _name_lock(home):
        if target.exists():
            _mend(folder, target)
        else:
            sync(folder)
            folder.rename(target)
            sync(home)
        _point_latest(home, version)
    return target


def _mend(folder: Path, target: Path) -> None:
    before = None
    with suppress(BuildError):  # without a readable manifest there is nothing to compare with
        before = read_manifest(target)
    if before and before.splits != read_manifest(folder).splits:
        raise DamagedBuild(
            f"The rebuild of {target} has other shards than its manifest names: "
            "something outside the recipe changed; move the old version away to keep both."
        )
    with suppress(BuildError):
        if before:
            verify(before)
            return
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    for file in sorted(files, key=lambda path: path.name == MANIFEST):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(folder / file, target / file)


def _point_latest(home: Path, version: str) -> None:
    link = home / f".{LATEST}-{uuid4().hex[:12]}"
    link.symlink_to(version)
    os.replace(link, home / LATEST)


def latest_version(store: Path, name: str) -> str | None:
    """The version that `latest` points to."""
    link = store / name / LATEST
    return os.readlink(link) if link.is_symlink() else None


def parent_of(store: Path, name: str, version: str) -> str | None:
    """The version that `version` is built after: the latest, or for one that is mended what its manifest names."""
    folder = store / name / version
    if not folder.is_dir():
        return latest_version(store, name)
    with suppress(BuildError):
        parent = read_manifest(folder).facts.get("parent")
        return parent if isinstance(parent, str) else None
    return None


def _name_lock(home: Path) -> FileLock:
    """Held for moments only: while a temporary folder or a version appears or goes."""
    return FileLock(home / ".lock", timeout=60)


def _clean(home: Path) -> None:
    """Remove what killed processes left; the name's lock is held."""
    for folder in _abandoned(home):
        shutil.rmtree(folder, ignore_errors=True)
        Path(f"{folder}.lock").unlink(missing_ok=True)
    for link in home.glob(f".{LATEST}-*"):
        link.unlink(missing_ok=True)


def _abandoned(home: Path) -> list[Path]:
    """Temporary folders that nobody writes: their lock is free, and stays so while the name's lock is held."""
    folders = {path.with_suffix("") for path in home.glob(f"{_TEMPORARY}*")}
    return sorted(folder for folder in folders if _is_free(Path(f"{folder}.lock")))


def _is_free(lock: Path) -> bool:
    if not lock.exists():
        return True
    owner = FileLock(lock)
    try:
        owner.acquire(timeout=0)
    except Timeout:
        return False
    owner.release()
    return True


def collect(
    store: Path, name: str, choose: Callable[[], Iterable[str]], *, dry_run: bool = False
) -> list[tuple[Path, int]]:
    """Remove the versions of `name` that `choose` gives, what killed processes left, and what the last build left if it
    failed its gate; safe beside builds.

    `choose` is asked while no version can appear and `latest` cannot move. Each version goes as it came, whole and in
    one rename; its bytes go afterwards, and a kill in between leaves them to the next cleaning.

    Returns: each folder that went (or would go, in a dry run) and its bytes.
    """
    home = store / name
    with telling_os_errors(home, "what was not removed by then is whole"), _name_lock(home):
        doomed = [home / version for version in choose()]
        found = [(path, _bytes_below(path)) for path in (*doomed, *_abandoned(home), home / FAILED) if path.is_dir()]
        if dry_run:
            return found
        _clean(home)
        _forget_failed(home)
        aside = [home / f"{_TEMPORARY}{uuid4().hex[:12]}" for _ in doomed]
        for path, place in zip(doomed, aside, strict=True):
            path.rename(place)
            remembered(path).unlink(missing_ok=True)
    for place in aside:
        shutil.rmtree(place, ignore_errors=True)
    return found


def _bytes_below(folder: Path) -> int:
    sizes = 0
    for home, _, files in os.walk(folder):  # which passes over what a writer that ends takes along
        for file in files:
            with suppress(FileNotFoundError):
                sizes += os.lstat(os.path.join(home, file)).st_size
    return sizes
