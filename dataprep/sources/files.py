"""Resolve what a user names (files, folders, globs, Hub ids) to the files that are read, in a fixed order."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataprep.common.errors import BuildError, InputError
from dataprep.common.jsonfile import read_json
from dataprep.common.progress import Advance
from dataprep.common.text import without_credentials
from dataprep.contract import MANIFEST, read_manifest_data
from dataprep.sources import hub
from dataprep.sources.bytestream import COMPRESSED
from dataprep.sources.containers import EXTENSIONS
from dataprep.sources.hashing import FileHash, FileState, hash_of, state_of
from dataprep.sources.splits import TRAIN, is_of_split, left_out_note, split_of, standard_name

# Files with a data extension that describe data and hold none: of datasets, of the Hub, and of our own builds.
_METADATA_FILES = {
    "dataset_dict.json",
    "dataset_info.json",
    "dataset_infos.json",
    "state.json",
    "manifest.json",
    "quality.json",
}
_PUBLISHED_ROWS = "data"  # the folder with the rows of a published data set
_SHARD = re.compile(r"data-\d+-of-\d+\.arrow|dataset\.arrow")  # names that save_to_disk uses, now and before 2022
_READABLE = f"files that can be read end in {', '.join(EXTENSIONS)}"


@dataclass(frozen=True)
class SourceFile:
    """One file to read.

    `name` identifies it to people and in fates: the file's name, its path in the named folder, or `org/name:path`, with
    parent folders in front if several files would have the same name. `digest` identifies its content: the SHA-256 of its
    bytes in hex. `format` and `records` (blank lines do not count) are known once it has been read.
    `split` is the split that the file's path names, `split_stated` whether the user named it; `note` says which files
    beside this one are left out.
    """

    name: str
    path: Path
    bytes: int
    digest: str = ""
    commit: str = ""  # of the Hub; empty for local files
    format: str = ""
    records: int = 0
    split: str = ""
    split_stated: bool = False
    note: str = ""
    state: FileState | None = None  # before it was hashed
    hashed: FileHash | None = None  # if it was hashed here

    @property
    def may_expand(self) -> bool:
        """Whether it may hold far more than its own bytes: it is compressed, or repeats values as columns can."""
        return self.path.suffix in (*COMPRESSED, ".parquet", ".arrow")

    def content_of(self, start: int, stop: int | None) -> list[str | int | None]:
        """Return what identifies the part from `start` to `stop` (see `containers.cut_points`).

        For a part of a file that was hashed here, that is the digests of all bytes before both, so the first parts keep
        their identity when lines are appended.

        Raises:
            InputError: the file cannot be read.
        """
        if self.hashed is None or stop is None or self.path.name.endswith(".parquet"):
            return [self.digest, start, stop]
        return [self.hashed.before(start), self.hashed.before(stop)]

    def to_manifest(self) -> dict[str, str | int]:
        """Return the file's entry in a manifest."""
        names = ("name", "bytes", "digest", "commit", "format", "records", *(["split"] if self.split else []))
        return {name: getattr(self, name) for name in names}


def pin(sources: Sequence[str]) -> list[str]:
    """Bind each Hub id among `sources` to the commit that it names now; leave other sources as they are.

    Raises:
        InputError: a Hub repository or revision does not exist, or the Hub cannot be reached.
    """
    return [hub.pinned(source) if _is_on_hub(source) else source for source in sources]


def _is_on_hub(source: str) -> bool:
    """Whether `source` is a Hub repository: it has the form of an id, and no local file or folder has that name."""
    paths = (Path(name).expanduser() for name in (source, source.partition(":")[0]))
    return hub.is_id(source) and not source.endswith(EXTENSIONS) and not any(path.exists() for path in paths)


def find_files(sources: Sequence[str], all_splits: bool = False) -> list[SourceFile]:
    """Return the files that `sources` name, each once, in that order; those of a folder or glob are sorted by path.

    Of a folder, glob or Hub repository with a training split, only that split is read, unless the source names another
    one (`PATH:test`) or `all_splits` are wanted.

    Raises:
        InputError: a source does not exist or holds no data file, or a Hub repository cannot be read.
    """
    files: dict[Path, SourceFile] = {}
    for source in sources:
        for file in _expand(os.fspath(source), all_splits):
            files.setdefault(file.path.resolve(), file)
    return _with_unique_names(files.values())


def _with_unique_names(files: Iterable[SourceFile]) -> list[SourceFile]:
    """Put parent folders in front of names that occur more than once, as many as it takes to make them unique."""
    named = [(file, file.path.absolute().parts) for file in files]
    for depth in range(2, 1 + max((len(parts) for _, parts in named), default=0)):
        count = Counter(file.name for file, _ in named)
        named = [
            (replace(file, name=_as_text("/".join(parts[-depth:]))) if count[file.name] > 1 else file, parts)
            for file, parts in named
        ]
    return [file for file, _ in named]


def hash_files(
    files: Iterable[SourceFile], advance: Advance = lambda done: None, part_bytes: int = 32 << 20
) -> list[SourceFile]:
    """Return `files` with their digests; a file that has a digest is not read again.

    Args:
        files: as `find_files` returns them.
        advance: called with the number of bytes hashed so far.
        part_bytes: size of the parts in which the files will be read.

    Raises:
        InputError: a file cannot be read.
    """

    def hashed(file: SourceFile) -> SourceFile:
        if file.digest:
            return replace(file, state=state_of(file.path))
        computed = hash_of(file.path, part_bytes)
        return replace(file, digest=computed.compute(), state=computed.state, hashed=computed)

    done = 0
    results: list[SourceFile] = []
    # hashing and reading both release the GIL, so two files at a time use two cores
    with ThreadPoolExecutor(max_workers=2) as pool:
        for file in pool.map(hashed, list(files)):
            results.append(file)
            done += file.bytes
            advance(done)
    return results


def require_unchanged(files: Iterable[SourceFile]) -> None:
    """Check that no file was changed since it was hashed, so that what was read is what was hashed.

    Raises:
        InputError: names the first that was.
    """
    for file in files:
        if is_changed(file):
            raise InputError(f"{file.path} changed while it was read: build again when nothing writes to it.")


def is_changed(file: SourceFile) -> bool:
    """Whether a file was changed since it was hashed.

    Raises:
        InputError: it cannot be read any more.
    """
    return file.state is not None and state_of(file.path) != file.state


def _expand(source: str, all_splits: bool) -> Iterator[SourceFile]:
    path = Path(source).expanduser()
    if path.is_dir():
        yield from _select_split(_files_in_folder(path), source, None, all_splits)
    elif path.exists():
        yield _source_file(path, path.name)
    elif "://" in source:
        raise InputError(f"{without_credentials(source)} is a URL: download the data and name the file.")
    elif glob.has_magic(source):
        matches = sorted(match for match in glob.glob(str(path), recursive=True) if match.endswith(EXTENSIONS))
        if not matches:
            raise InputError(f"No data file matches {source}: {_READABLE}.")
        files = [_source_file(Path(match), Path(match).name) for match in matches]
        yield from _select_split(files, source, None, all_splits)
    elif _is_on_hub(source):
        for file in hub.files(source, all_splits):
            split = split_of(file.name.partition(":")[2])
            size = file.path.stat().st_size
            yield SourceFile(file.name, file.path, size, commit=file.commit, split=split, note=file.note)
    else:
        yield from _files_of_split(source)


def _files_of_split(source: str) -> list[SourceFile]:
    """Return the files of the split that `PATH:split` names."""
    folder, _, split = source.rpartition(":")
    path = Path(folder).expanduser()
    if not folder or not path.exists():
        raise InputError(f"There is no file or folder {source}, and it is not a Hub id (org/name) either.")
    if not path.is_dir():
        raise InputError(f"{source} names a split of the file {folder}, but only folders have splits.")
    return _select_split(_files_in_folder(path), folder, split, False)


def _select_split(files: list[SourceFile], source: str, split: str | None, all_splits: bool) -> list[SourceFile]:
    """Return the files of one split of a folder or glob, the training split by default; a note names what is left out.

    Files that name no split belong to the training split.
    """
    if split is not None:
        selected = [file for file in files if is_of_split(file.name, split) or split in file.name.split("/")]
        if not selected:
            known_splits = sorted({file.split for file in files if file.split})
            has = f"its splits are: {', '.join(known_splits)}" if known_splits else "no file in it names a split"
            raise InputError(f"{source} has no split '{split}'; {has}.")
        return [replace(file, split=standard_name(split), split_stated=True) for file in selected]
    left_out = [file.name for file in files if file.split not in ("", TRAIN)]
    if all_splits or not left_out or not any(file.split == TRAIN for file in files):
        return files
    selected = [file for file in files if file.split in ("", TRAIN)]
    return [replace(selected[0], note=left_out_note(source, left_out)), *selected[1:]]


def _source_file(path: Path, name: str) -> SourceFile:
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a pipe, a device or a folder: save the data to a regular file first.")
    if not name.endswith(EXTENSIONS):
        raise InputError(f"{path} cannot be read, because its extension is not known: {_READABLE}.")
    name = _as_text(name)
    return SourceFile(name, path, path.stat().st_size, split=split_of(name))


def _as_text(name: str) -> str:
    """Replace the bytes of a file's name that are not UTF-8."""
    return name.encode("utf-8", "surrogateescape").decode(errors="replace")


def _files_in_folder(folder: Path) -> list[SourceFile]:
    """Return the data files below `folder`.

    Of what `save_to_disk` wrote (our builds too), these are the shards that it names; of what `dataprep publish`
    wrote, the rows without the files that describe them.
    """
    paths = sorted(_data_paths(folder))
    if not paths:
        raise InputError(f"{folder} holds no data file: {_READABLE}.")
    return [_source_file(path, path.relative_to(folder).as_posix()) for path in paths]


def _data_paths(folder: Path) -> Iterator[Path]:
    for name, subfolders, names in os.walk(folder):
        current = Path(name)
        shards = _saved_shards(current, names)
        if shards is not None:
            subfolders.clear()  # other files and folders in it are not data
            yield from shards
            continue
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        if _PUBLISHED_ROWS in subfolders and _is_published(current, names):
            subfolders[:] = [_PUBLISHED_ROWS]
            continue
        for name in names:
            if name.endswith(EXTENSIONS) and name not in _METADATA_FILES and not name.startswith("."):
                yield current / name


def _saved_shards(folder: Path, names: Sequence[str]) -> list[Path] | None:
    """Return the shards of the data set, or of its splits, that `save_to_disk` wrote to `folder`; None if it did not."""
    if "dataset_dict.json" in names:
        splits = [folder / split for split in _listed(folder / "dataset_dict.json", lambda content: content["splits"])]
        return [shard for split in splits for shard in _shards(split)]
    if "state.json" in names and any(_SHARD.fullmatch(name) for name in names):
        return _shards(folder)
    return None


def _is_published(folder: Path, names: Sequence[str]) -> bool:
    """Whether `folder` holds the manifest of a published build."""
    try:
        return MANIFEST in names and bool(read_manifest_data(folder / MANIFEST))
    except BuildError:
        return False


def _shards(folder: Path) -> list[Path]:
    names = _listed(folder / "state.json", lambda content: [entry["filename"] for entry in content["_data_files"]])
    return [folder / name for name in names]


def _listed(file: Path, select: Callable[[Any], list[str]]) -> list[str]:
    """Return the names of files or folders that `select` takes from a JSON file of `save_to_disk`.

    Raises:
        InputError: it is another file, or names something outside of its folder.
    """
    try:
        names = [str(name) for name in select(read_json(file, dict[str, Any]))]
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(f"{file} does not name its data files in the way of datasets' save_to_disk.") from None
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
            raise InputError(f"{file} names {name[:100]!r}, which is not in its folder.")
    return names
