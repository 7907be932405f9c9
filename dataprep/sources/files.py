"""From what a user names (files, folders, globs, Hub ids) to the files that are read, in a fixed order."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dataprep.common.errors import BuildError, InputError
from dataprep.contract import MANIFEST, read_manifest
from dataprep.sources import hub
from dataprep.sources.containers import EXTENSIONS

Progress = Callable[[int, int], None]

# Files that lie beside data and are none: of datasets, of the Hub, and of our own builds.
_BESIDE_DATA = {
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
    "manifest.json",
    "quality.json",
}
_ROWS = "data"  # the folder of a published data set that its rows are in
_SHARD = re.compile(r"data-\d+-of-\d+\.arrow|dataset\.arrow")  # as save_to_disk names them, today and before 2022


@dataclass(frozen=True)
class SourceFile:
    """One file that is read.

    `name` is what people and fates call it: the file's name, its path in the named folder, or `org/name:path`; with
    folders in front where several files would have the same.
    `digest` identifies its content: the SHA-256 of its bytes in hex, or `<commit>:<path>` where `datasets` made it
    from a Hub repository. `format` and `records` (blank lines are none) are known when it has been read.
    """

    name: str
    path: Path
    bytes: int
    digest: str = ""
    commit: str = ""  # of the Hub; empty for local files
    format: str = ""
    records: int = 0

    def facts(self) -> dict[str, str | int]:
        """The file as a manifest names it: all but its folder."""
        facts = asdict(self)
        del facts["path"]
        return facts


def pin(sources: Sequence[str]) -> list[str]:
    """`sources` with each Hub id bound to the commit that it names now; all else as it is.

    Raises:
        InputError: a Hub repository or revision that is not there, or no way to it.
    """
    return [hub.pinned(source) if _is_on_hub(source) else source for source in sources]


def _is_on_hub(source: str) -> bool:
    """Whether `source` means a Hub repository: it has an id's form, and nothing of that name lies here."""
    return hub.is_id(source) and not source.endswith(EXTENSIONS) and not Path(source).expanduser().exists()


def find_files(sources: Sequence[str]) -> list[SourceFile]:
    """The files that `sources` name, in that order; those of a folder or a glob sorted by path.

    Raises:
        InputError: a source that is not there, or holds no data file; a Hub repository that cannot be read.
    """
    files: dict[Path, SourceFile] = {}
    for source in sources:
        for file in _expand(os.fspath(source)):
            files.setdefault(file.path.resolve(), file)
    return _told_apart(files.values())


def _told_apart(files: Iterable[SourceFile]) -> list[SourceFile]:
    """`files`, those of one name with as many of their folders in front of it as tell them apart."""
    named = [(file, file.path.absolute().parts) for file in files]
    for depth in range(2, 1 + max((len(parts) for _, parts in named), default=0)):
        count = Counter(file.name for file, _ in named)
        named = [
            (replace(file, name=_shown("/".join(parts[-depth:]))) if count[file.name] > 1 else file, parts)
            for file, parts in named
        ]
    return [file for file, _ in named]


def hash_files(files: Iterable[SourceFile], progress: Progress = lambda done, total: None) -> list[SourceFile]:
    """`files` with the digest of each; a file that has one already is not read."""
    files = list(files)
    waiting = [file for file in files if not file.digest]
    total, done = sum(file.bytes for file in waiting), 0
    digests: dict[Path, str] = {}
    # hashing and reading both leave Python's lock, so two files go at the speed of two cores
    with ThreadPoolExecutor(max_workers=2) as pool:
        for file, digest in zip(waiting, pool.map(lambda file: _sha256(file.path), waiting), strict=True):
            digests[file.path] = digest
            done += file.bytes
            progress(done, total)
    return [replace(file, digest=file.digest or digests[file.path]) for file in files]


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as fault:
        raise InputError(f"{path} cannot be read: {fault.strerror}.") from None


def _expand(source: str) -> Iterator[SourceFile]:
    path = Path(source).expanduser()
    if path.is_dir():
        yield from _in_folder(path)
    elif path.exists():
        yield _checked(path, path.name)
    elif glob.has_magic(source):
        found = sorted(match for match in glob.glob(str(path), recursive=True) if match.endswith(EXTENSIONS))
        if not found:
            raise InputError(f"No data file matches {source}: {_READABLE}.")
        for match in found:
            yield _checked(Path(match), Path(match).name)
    elif _is_on_hub(source):
        for file in hub.files(source):
            yield SourceFile(file.name, file.path, file.path.stat().st_size, file.digest, file.commit)
    else:
        raise InputError(f"There is no file or folder {source}, and it is no Hub id (org/name) either.")


_READABLE = f"files that can be read end in {', '.join(EXTENSIONS)}"


def _checked(path: Path, name: str) -> SourceFile:
    if not name.endswith(EXTENSIONS):
        raise InputError(f"{path} is of no kind that can be read: {_READABLE}.")
    return SourceFile(_shown(name), path, path.stat().st_size)


def _shown(name: str) -> str:
    """A file's name as text, which it need not be."""
    return name.encode("utf-8", "surrogateescape").decode(errors="replace")


def _in_folder(folder: Path) -> list[SourceFile]:
    """The data files below `folder`; of what `save_to_disk` wrote (our builds too) only the shards that it names, and of
    what `dataprep publish` wrote only the rows, not its papers."""
    paths = sorted(_data_files(folder))
    if not paths:
        raise InputError(f"{folder} holds no data file: {_READABLE}.")
    return [_checked(path, path.relative_to(folder).as_posix()) for path in paths]


def _data_files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        place = Path(where)
        saved = _saved(place, names)
        if saved is not None:
            folders.clear()  # what else lies there is no data
            yield from saved
            continue
        folders[:] = [name for name in folders if not name.startswith(".")]
        if _ROWS in folders and _is_published(place, names):
            folders[:] = [_ROWS]
            continue
        for name in names:
            if name.endswith(EXTENSIONS) and name not in _BESIDE_DATA and not name.startswith("."):
                yield place / name


def _saved(folder: Path, names: Sequence[str]) -> list[Path] | None:
    """The shards of the data set, or of its splits, that `save_to_disk` wrote into `folder`; None where it did not."""
    if "dataset_dict.json" in names:
        splits = [folder / split for split in _named(folder / "dataset_dict.json", lambda facts: facts["splits"])]
        return [shard for split in splits for shard in _shards(split)]
    if "state.json" in names and any(_SHARD.fullmatch(name) for name in names):
        return _shards(folder)
    return None


def _is_published(folder: Path, names: Sequence[str]) -> bool:
    """Whether the manifest of a build lies in `folder`, whose rows were published beside it."""
    try:
        return MANIFEST in names and bool(read_manifest(folder))
    except BuildError:
        return False


def _shards(folder: Path) -> list[Path]:
    return [
        folder / name
        for name in _named(folder / "state.json", lambda facts: [entry["filename"] for entry in facts["_data_files"]])
    ]


def _named(file: Path, names: Callable[[Any], list[str]]) -> list[str]:
    """The files or folders that a file of `save_to_disk` names."""
    try:
        return [str(name) for name in names(json.loads(file.read_bytes()))]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{file} does not name its data files as datasets' save_to_disk does.") from None
