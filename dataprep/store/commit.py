"""Add versions to a store and remove them; each appears, and disappears, as a whole.

A version is written into a temporary folder, its manifest last, and one rename puts it in place. A running writer holds
a lock on its temporary folder, so the next build of that name can tell what killed processes left, and removes it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from dataprep.common.errors import BuildError, DamagedBuild, StoreError
from dataprep.common.files import disk_errors, sync
from dataprep.common.lookup import FAILED, LATEST
from dataprep.contract import MANIFEST, read_manifest, verified_file, verify

_TEMPORARY = ".tmp-"
_VERSION, _SCRATCH = (
    "version",
    "scratch",
)  # in a temporary folder: what becomes the version, and files for the build only


def reuse_version(store: Path, name: str, version: str) -> Path | None:
    """Verify a version that exists already, make it `latest`, and return its folder; None where there is none.

    Raises:
        DamagedBuild: it exists and does not match its manifest.
    """
    home, folder = store / name, store / name / version
    if not os.path.isfile(folder / MANIFEST):
        return None
    try:
        verify(read_manifest(folder))
    except BuildError:
        if os.path.isfile(folder / MANIFEST):
            raise
        return None  # it was removed meanwhile
    with _writing(store), _name_lock(home):
        if not os.path.isfile(folder / MANIFEST):
            return None
        _point_latest(home, version)
        _remove(home / FAILED)
    return folder


@contextmanager
def new_version(store: Path, name: str) -> Iterator[Path]:
    """Yield a temporary folder to write a version into, and remove what is left of it and of its scratch files afterwards.

    Raises:
        StoreError: the store cannot be written, or the disk is full.
    """
    home = store / name
    with _writing(store):
        home.mkdir(parents=True, exist_ok=True)
        if home.is_symlink():
            raise StoreError(f"{home} is a link, and builds are written into real folders only: choose another --name.")
        with _name_lock(home):
            _remove_leftovers(home)
            folder = home / f"{_TEMPORARY}{uuid4().hex[:12]}"
            lock = FileLock(f"{folder}.lock")
            lock.acquire(timeout=0)
        try:
            folder.mkdir()
            (folder / _VERSION).mkdir()
            yield folder / _VERSION
        finally:
            _remove(folder)
            lock.release()
            Path(lock.lock_file).unlink(missing_ok=True)


def scratch_folder(folder: Path) -> Path:
    """Return a folder for temporary files beside the `folder` that `new_version` yields; it is removed with it."""
    scratch = folder.with_name(_SCRATCH)
    scratch.mkdir(exist_ok=True)
    return scratch


def keep_failed(folder: Path, store: Path, name: str, files: Sequence[str]) -> Path:
    """Move `files` of a build that failed its gate out of its temporary `folder`; the next build removes them."""
    home = store / name
    with _writing(store), _name_lock(home):
        _remove(home / FAILED)
        (home / FAILED).mkdir()
        for file in files:
            (folder / file).rename(home / FAILED / file)
    return home / FAILED


def commit_version(folder: Path, store: Path, name: str, version: str) -> Path:
    """Put the finished temporary `folder` in place as `version`, and point `latest` to it.

    If that version exists already (another process was faster, or this is a rebuild), its shards must be the same. A
    whole version stays as it is; the files of a damaged one are replaced one by one, the manifest last.

    Raises:
        DamagedBuild: the version exists with other shards: the build is not reproducible.
    """
    home, target = store / name, store / name / version
    with _writing(store), _name_lock(home):
        if target.exists():
            _repair(target, folder)
        else:
            sync(folder)
            folder.rename(target)
            sync(home)
        _point_latest(home, version)
    return target


def _repair(target: Path, rebuilt: Path) -> None:
    """Replace the files of a damaged version by those of its rebuild."""
    before = None
    with suppress(BuildError):  # without a readable manifest there is nothing to compare
        before = read_manifest(target)
    if before and before.splits != read_manifest(rebuilt).splits:
        raise DamagedBuild(
            f"The rebuild of {target} has other shards than its manifest names: "
            "something outside the recipe changed; move the old version away to keep both."
        )
    with suppress(BuildError):
        if before:
            verify(before)
            return
    files = sorted(path.relative_to(rebuilt) for path in rebuilt.rglob("*") if path.is_file())
    for file in sorted(files, key=lambda path: path.name == MANIFEST):
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        os.replace(rebuilt / file, target / file)


def remove_versions(
    store: Path, name: str, choose: Callable[[], Iterable[str]], *, dry_run: bool = False
) -> list[tuple[Path, int]]:
    """Remove the versions of `name` that `choose` returns, and all leftovers; safe while builds run.

    Leftovers are what killed processes left, links among the versions, and the files of a build that failed its gate.
    `choose` is called while no version can appear and `latest` cannot move. Each version disappears in one rename; its
    bytes are deleted afterwards, and a kill in between leaves them to the next call.

    Returns: each path that was removed (in a dry run: would be) and its bytes.
    """
    home = store / name
    with disk_errors(StoreError, f"What was to be removed from {home}", "the rest is whole"), _name_lock(home, dry_run):
        versions = [home / version for version in choose()]
        links = [path for path in home.iterdir() if path.is_symlink() and path.name != LATEST]
        failed = [home / FAILED] if (home / FAILED).is_dir() else []
        paths = dict.fromkeys([*versions, *_abandoned(home), *failed, *links])
        removed = [(path, _bytes_below(path)) for path in paths if os.path.lexists(path)]
        if dry_run:
            return removed
        _remove_leftovers(home)
        for link in links:
            _remove(link)
        aside = [home / f"{_TEMPORARY}{uuid4().hex[:12]}" for _ in versions]
        for path, hidden in zip(versions, aside, strict=True):
            path.rename(hidden)
            verified_file(path).unlink(missing_ok=True)
    for hidden in aside:
        _remove(hidden)
    return removed


def _writing(store: Path) -> AbstractContextManager[None]:
    return disk_errors(StoreError, f"The build in {store}", "free some space or choose another --store", store)


@contextmanager
def _name_lock(home: Path, dry_run: bool = False) -> Iterator[None]:
    """Hold the lock of a name, for moments only: while a temporary folder or a version appears or disappears.

    A dry run writes nothing, so it takes the lock only where its file exists and may be opened.
    """
    path = home / ".lock"
    if dry_run and not os.access(path, os.W_OK):
        yield
        return
    with FileLock(path, timeout=60):
        yield


def _point_latest(home: Path, version: str) -> None:
    link = home / f".{LATEST}-{uuid4().hex[:12]}"
    link.symlink_to(version)
    os.replace(link, home / LATEST)


def _remove_leftovers(home: Path) -> None:
    """Remove what killed processes and builds that failed their gate left; the name's lock is held."""
    for folder in _abandoned(home):
        _remove(folder)
        Path(f"{folder}.lock").unlink(missing_ok=True)
    _remove(home / FAILED)
    for pattern in (f".{LATEST}-*", ".*.partial-*"):
        for path in home.glob(pattern):
            _remove(path)
    for record in home.glob(".verified-*.json"):
        if not os.path.lexists(home / record.name.removeprefix(".verified-").removesuffix(".json")):
            _remove(record)


def _abandoned(home: Path) -> list[Path]:
    """Return the temporary folders without a running writer: their lock is free, and stays so under the name's lock."""
    folders = {path.with_name(path.name.removesuffix(".lock")) for path in home.glob(f"{_TEMPORARY}*")}
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


def _remove(path: Path) -> None:
    """Remove a folder, a file or a link, never what a link points to."""
    if path.is_symlink() or path.is_file():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def _bytes_below(path: Path) -> int:
    """Return the bytes of all files below a folder, those of running writers that vanish meanwhile left out."""
    if path.is_symlink():
        return 0
    total = 0
    for folder, _, files in os.walk(path):
        for file in files:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(folder, file)).st_size
    return total
