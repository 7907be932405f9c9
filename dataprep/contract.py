"""Reading side of a build: its schemas, its manifest, and `open_build`.

This is all that other programs (`training` among them) need to know about a build; it imports nothing but
the standard library and pyarrow. A build is a folder:

    manifest.json            written last: its presence means that the build is whole
    dataset_dict.json        with train/ and perhaps test/: the layout of datasets' save_to_disk
    train/data-00000-of-00001.arrow   Arrow IPC streams of `SHARD_SCHEMA`
    fates/fates-00000.parquet, README.md, template.jinja, …
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from dataprep.common.errors import BuildError, DamagedBuild

CONTRACT = 1  # raised when a reader of an older build would misread a newer one

MANIFEST = "manifest.json"

# A file that changed less than this before it was looked at could change again without a trace in its times.
_COARSEST_CLOCK = 2 * 10**9  # ns; FAT's

# What a manifest holds that its readers lean on: [shape] is a list of such, {str: shape} a mapping to such.
_ENTRY = {"bytes": int, "sha256": str}
_SHAPE: Mapping[str, Any] = {
    "name": str,
    "version": str,
    "gate": str,
    "recipe": {},
    "template": {},
    "splits": {str: {"rows": int, "shards": [{"file": str, "rows": int, **_ENTRY}]}},
    "files": {str: _ENTRY},
}
_MAY_HOLD: Mapping[str, Any] = {"created": str, "sources": [{"name": str, "digest": str}], "libraries": {}}

_TURN = pa.struct([("role", pa.string()), ("content", pa.string())])
_SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32())])

# `spans` and `controls` count Unicode code points of `text`, half-open. `spans`: what is trained, one for each
# answer, from where the generation prompt ends to the end of the end token. `controls`: the special tokens
# (ids of their own) that the template wrote; the same characters elsewhere in `text` were typed by somebody.
SHARD_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("tree_id", pa.string()),
        ("source", pa.string()),
        ("lang", pa.string()),
        ("messages", pa.list_(_TURN)),
        ("text", pa.string()),
        ("spans", pa.list_(_SPAN)),
        ("controls", pa.list_(_SPAN)),
        ("message_ids", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True)
class Manifest:
    """A build's facts, as its manifest.json holds them; `facts` is the whole JSON object."""

    path: Path
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.facts["name"])

    @property
    def version(self) -> str:
        return str(self.facts["version"])

    @property
    def recipe(self) -> Mapping[str, Any]:
        return dict(self.facts["recipe"])

    @property
    def template(self) -> Mapping[str, Any]:
        """`name, sha256, bos_token, eos_token, end_token, special_tokens` of the chat template."""
        return dict(self.facts["template"])

    @property
    def splits(self) -> Mapping[str, Any]:
        """For each split its `rows` and `shards`, each shard with `file, rows, bytes, sha256`."""
        return dict(self.facts["splits"])

    @property
    def files(self) -> Mapping[str, Any]:
        """For each other file, by its path in the build, its `bytes` and `sha256`."""
        return dict(self.facts["files"])

    @property
    def gate(self) -> str:
        """`off`, `passed` or `failed`."""
        return str(self.facts["gate"])


@dataclass(frozen=True)
class Build:
    """An opened build. `splits` maps a split's name to its memory-mapped table of `SHARD_SCHEMA`."""

    path: Path
    manifest: Manifest
    splits: Mapping[str, pa.Table]


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the build in `folder`.

    Raises:
        BuildError: no manifest, an unreadable one, or one of a newer contract.
    """
    path = folder / MANIFEST
    try:
        facts = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise BuildError(f"There is no build in {folder}: it has no {MANIFEST}.") from None
    except (OSError, ValueError) as fault:
        raise DamagedBuild(f"{path} cannot be read ({fault}): the build is damaged, rebuild it with --force.") from None
    contract = facts.get("contract") if isinstance(facts, dict) else None
    if type(contract) is not int:
        raise DamagedBuild(f"{path} is not a build's manifest: it names no contract.")
    if contract > CONTRACT:
        raise BuildError(
            f"{path} was written under contract {contract} and this program knows {CONTRACT}: use a newer version of it."
        )
    misfit = _misfit(facts, {**_SHAPE, **{key: shape for key, shape in _MAY_HOLD.items() if key in facts}})
    if misfit:
        raise DamagedBuild(f"{path} {misfit}: the build is damaged, rebuild it with --force.")
    return Manifest(folder, facts)


def _misfit(value: Any, shape: Any, place: str = "") -> str:
    """Where `value` is not of `shape`, as the end of a sentence; empty where it is."""
    if isinstance(shape, type):
        return "" if type(value) is shape else f"holds no {shape.__name__} as {place}"
    if type(value) is not type(shape):
        return f"holds no {type(shape).__name__} as {place}"
    if isinstance(shape, list):
        parts = [(entry, shape[0], f"{place}[{number}]") for number, entry in enumerate(value)]
    else:
        keys = value if str in shape else shape
        missing = [str(key) for key in keys if key not in value]
        if missing:
            return f"lacks {', '.join(missing)}" + (f" in {place}" if place else "")
        parts = [(value[key], shape.get(key, shape.get(str)), f"{place}.{key}".lstrip(".")) for key in keys]
    return next(filter(None, (_misfit(*part) for part in parts)), "")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex, read in blocks (1.8 GB/s where the processor helps)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(manifest: Manifest) -> None:
    """Check every file that the manifest names, from its bytes: present, of its size, of its checksum.

    What was found whole is remembered beside the build, for `open_build`.

    Raises:
        DamagedBuild: names the first file that is off.
        BuildError: the build was removed meanwhile.
    """
    began = time.time_ns()
    try:
        looks = {MANIFEST: _look(manifest.path / MANIFEST)}
    except FileNotFoundError:
        raise _removed(manifest.path) from None
    entries = _entries(manifest)
    with ThreadPoolExecutor(2) as pool:  # hashing leaves Python's lock
        for entry, look in zip(entries, pool.map(partial(_checked, manifest.path), entries), strict=True):
            looks[entry["file"]] = look
    if max(changed for _, *times in looks.values() for changed in times) < began - _COARSEST_CLOCK:
        _remember(manifest.path, looks)


def _checked(folder: Path, entry: Mapping[str, Any]) -> list[int]:
    """How a file looked before its bytes were read and found right."""
    path = folder / entry["file"]
    try:
        look = _look(path)
        if look[0] != entry["bytes"]:
            raise DamagedBuild(f"{path} is damaged: {look[0]} bytes instead of {entry['bytes']}; rebuild with --force.")
        if sha256_of(path) != entry["sha256"]:
            raise DamagedBuild(f"{path} is damaged: its checksum is not the manifest's; rebuild with --force.")
    except FileNotFoundError:
        if not (folder / MANIFEST).exists():  # a version goes as a whole
            raise _removed(folder) from None
        raise DamagedBuild(f"{path} is missing: the build is damaged, rebuild it with --force.") from None
    except OSError as fault:
        raise DamagedBuild(f"{path} cannot be read ({fault.strerror}).") from None
    return look


def _removed(folder: Path) -> BuildError:
    return BuildError(f"There is no build in {folder} any more: it was removed meanwhile.")


def _entries(manifest: Manifest) -> list[dict[str, Any]]:
    shards = [shard for split in manifest.splits.values() for shard in split["shards"]]
    return shards + [{"file": name, **facts} for name, facts in manifest.files.items()]


def remembered(folder: Path) -> Path:
    """The file beside a build that says how its files looked when their checksums were last read and right."""
    return folder.parent / f".verified-{folder.name}.json"


def _look(path: Path) -> list[int]:
    """Size, and when the content and the entry of a file last changed, in nanoseconds."""
    facts = os.stat(path)
    return [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]


def _remember(folder: Path, looks: Mapping[str, list[int]]) -> None:
    place = remembered(folder)
    written = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        written.write_text(json.dumps(looks))
        os.replace(written, place)
    except OSError:
        written.unlink(missing_ok=True)  # a place that cannot be written: the checksums are read each time


def _is_as_remembered(manifest: Manifest) -> bool:
    """Whether no file of a build has changed since its checksums were right."""
    try:
        looks = json.loads(remembered(manifest.path).read_bytes())
        files = [MANIFEST, *(entry["file"] for entry in _entries(manifest))]
        return all(looks[file] == _look(manifest.path / file) for file in files)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def open_split(manifest: Manifest, split: str) -> pa.Table:
    """One split as a table over its memory-mapped shards: no bytes are copied.

    Raises:
        DamagedBuild: a shard that is no Arrow stream of `SHARD_SCHEMA`, or of another number of rows.
    """
    tables = []
    for shard in manifest.splits[split]["shards"]:
        path = manifest.path / shard["file"]
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_stream(source).read_all()
        except (OSError, pa.ArrowException) as fault:
            raise DamagedBuild(f"{path} is no readable Arrow stream ({fault}); rebuild with --force.") from None
        if not table.schema.equals(SHARD_SCHEMA, check_metadata=False) or table.num_rows != shard["rows"]:
            raise DamagedBuild(f"{path} has other columns or rows than its manifest says; rebuild with --force.")
        tables.append(table.replace_schema_metadata(None))
    return pa.concat_tables(tables) if tables else SHARD_SCHEMA.empty_table()


def open_build(folder: Path | str, *, check: bool = True) -> Build:
    """Open the build in `folder`, with its checksums verified unless `check` is false.

    Checksums are read once, and again when a file's size or times have changed; `verify` reads them always.

    Raises:
        BuildError: no build there, or one of a newer contract.
        DamagedBuild: a file that is not what the manifest says.
    """
    manifest = read_manifest(Path(folder).resolve())
    if check and not _is_as_remembered(manifest):
        verify(manifest)
    return Build(manifest.path, manifest, {name: open_split(manifest, name) for name in manifest.splits})
