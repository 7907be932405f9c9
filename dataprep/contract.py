"""Read a build: its schema, its manifest, and `open_build`.

This is all that other programs (`training` among them) need to know about a build; it needs nothing but the standard
library and pyarrow. A build is a folder:

    manifest.json            written last: its presence means that the build is whole
    dataset_dict.json        with train/ and perhaps test/: the layout of datasets' save_to_disk
    train/data-00000-of-00001.arrow   Arrow IPC streams of `SHARD_SCHEMA`
    fates/fates-00000.parquet, README.md, template.jinja, …
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NotRequired, TypedDict

import pyarrow as pa

from dataprep.common.checksums import FileEntry, problem_of, sha256_of, stamp_of
from dataprep.common.errors import BuildError, DamagedBuild
from dataprep.common.files import write_file
from dataprep.common.jsonfile import InvalidJson, read_json, typed
from dataprep.common.lookup import MANIFEST
from dataprep.common.text import excerpt

__all__ = [
    "CONTRACT",
    "MANIFEST",
    "SHARD_SCHEMA",
    "Build",
    "BuildError",
    "DamagedBuild",
    "Manifest",
    "open_build",
    "open_split",
    "read_manifest",
    "read_manifest_data",
    "sha256_of",
    "verify",
]

CONTRACT = 2  # raised when a reader of an older build would misread a newer one; this program reads all up to it

_COARSEST_CLOCK = 2 * 10**9  # ns, of FAT: a file changed more recently than this may change again with the same times
_FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")

_SPAN = pa.struct([("start", pa.int32()), ("end", pa.int32())])
_MESSAGE_FIELDS = {
    "role": pa.string(),
    "content": pa.string(),
    "reasoning_content": pa.string(),
    "tool_calls": pa.string(),  # JSON text
    "name": pa.string(),
    "tool_call_id": pa.string(),
    "trained": pa.bool_(),  # false: context only
}


def shard_schema(message_fields: Sequence[str] = ("role", "content"), tools: bool = False) -> pa.Schema:
    """Return the schema of a build's shards.

    Args:
        message_fields: fields of a message; those beyond role and content are in builds that have such a value.
        tools: with the column `tools`, JSON text, in builds that have such a value.
    """
    message = pa.struct([(name, kind) for name, kind in _MESSAGE_FIELDS.items() if name in message_fields])
    return pa.schema(
        [
            ("id", pa.string()),
            ("tree_id", pa.string()),
            ("source", pa.string()),
            ("lang", pa.string()),
            ("messages", pa.list_(message)),
            *([("tools", pa.string())] if tools else []),
            # `spans` and `controls` count Unicode code points of `text`, half-open. `spans`: the trained parts, one for
            # each answer, from the end of the generation prompt to the end of the end token. `controls`: the special
            # tokens that the template wrote; the same characters elsewhere in `text` are content.
            ("text", pa.string()),
            ("spans", pa.list_(_SPAN)),
            ("controls", pa.list_(_SPAN)),
            ("message_ids", pa.list_(pa.string())),
        ]
    )


SHARD_SCHEMA = shard_schema()  # of a build whose messages have role and content only


class ShardEntry(FileEntry):
    """A shard in the manifest; `file` is its path in the build."""

    file: str
    rows: int


class SplitEntry(TypedDict):
    """A split in the manifest."""

    rows: int
    shards: list[ShardEntry]


class SourceEntry(TypedDict):
    """A source file in the manifest."""

    name: str
    digest: str


# The records that entered and left a stage, and the rules that dropped some. (`in` is no name that a class could hold.)
FunnelStage = TypedDict(
    "FunnelStage",
    {"stage": str, "in": int, "out": int, "dropped": int, "not_sampled": int, "rules": dict[str, int]},
)


class FateCounts(TypedDict):
    """The records by fate, and the dropped ones by rule."""

    kept: int
    dropped: int
    not_sampled: int
    rules: dict[str, int]


class TemplateEntry(TypedDict):
    """The chat template in the manifest, as far as `dataprep` reads it back."""

    name: str
    sha256: str


class RecipeEntry(TypedDict):
    """The options of a build in the manifest, as far as `dataprep` reads them back."""

    source: list[str]
    seed: int


class NearDupEntry(TypedDict):
    """The near-duplicate search in the manifest, as far as `dataprep` reads it back."""

    algorithm: str
    threshold: float


class ManifestData(TypedDict):
    """The parts of manifest.json that a reader of a build needs."""

    contract: int
    name: str
    version: str
    gate: str
    recipe: dict[str, Any]
    template: dict[str, Any]
    splits: dict[str, SplitEntry]
    files: dict[str, FileEntry]
    created: NotRequired[str]
    parent: NotRequired[str | None]
    dataprep: NotRequired[str]
    libraries: NotRequired[dict[str, str]]
    sources: NotRequired[list[SourceEntry]]
    unused_fields: NotRequired[dict[str, int]]  # values of keys that no stage uses; messages.key for keys of turns


class BuildData(ManifestData):
    """All of manifest.json, as `dataprep build` writes it."""

    rows: int
    fates: FateCounts
    kinds: dict[str, int]
    repairs: dict[str, int]
    languages: dict[str, int]
    funnel: list[FunnelStage]
    notes: list[str]
    unused_fields: NotRequired[dict[str, int]]
    near_dup: dict[str, Any] | None
    split: dict[str, Any] | None


@dataclass(frozen=True)
class Manifest:
    """The manifest of the build in the folder `path`; `data` is the whole JSON object."""

    path: Path
    data: ManifestData

    @property
    def name(self) -> str:
        return self.data["name"]

    @property
    def version(self) -> str:
        return self.data["version"]

    @property
    def recipe(self) -> dict[str, Any]:
        return self.data["recipe"]

    @property
    def template(self) -> dict[str, Any]:
        """`name, sha256, bos_token, eos_token, end_token, special_tokens` of the chat template."""
        return self.data["template"]

    @property
    def splits(self) -> dict[str, SplitEntry]:
        """The rows and shards of each split."""
        return self.data["splits"]

    @property
    def files(self) -> dict[str, FileEntry]:
        """Size and checksum of each other file, by its path in the build."""
        return self.data["files"]

    @property
    def gate(self) -> str:
        """`off`, `passed` or `failed`."""
        return self.data["gate"]

    def entries(self) -> Iterator[tuple[str, FileEntry]]:
        """Yield the path in the build, and the entry, of each file that the manifest names: shards first."""
        for split in self.splits.values():
            yield from ((shard["file"], shard) for shard in split["shards"])
        yield from self.files.items()

    def complete(self) -> BuildData:
        """Return the manifest with all the parts that `dataprep build` writes.

        Raises:
            DamagedBuild: a part is missing or of another type.
        """
        try:
            missing = [part for part in ("created", "dataprep", "libraries", "sources") if part not in self.data]
            if missing:
                raise InvalidJson(f"lacks {', '.join(missing)}")
            data = typed(self.data, BuildData)
            typed(data["template"], TemplateEntry)
            typed(data["recipe"], RecipeEntry)
            if data["near_dup"] is not None:
                typed(data["near_dup"], NearDupEntry)
            return data
        except InvalidJson as fault:
            raise _damaged_manifest(self.path / MANIFEST, str(fault)) from None


@dataclass(frozen=True)
class Build:
    """An opened build; `splits` has the memory-mapped table of each split."""

    path: Path
    manifest: Manifest
    splits: Mapping[str, pa.Table]


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of the build in `folder`: of the right types, and naming files of that folder only.

    Raises:
        BuildError: there is no manifest, or it is of a newer contract.
        DamagedBuild: the manifest cannot be read, or is not what `dataprep build` writes.
    """
    manifest = Manifest(folder, read_manifest_data(folder / MANIFEST))
    try:
        _check_names(manifest)
    except InvalidJson as fault:
        raise _damaged_manifest(folder / MANIFEST, str(fault)) from None
    return manifest


def read_manifest_data(path: Path) -> ManifestData:
    """Return the content of a manifest.json, wherever it lies; the files that it names may be elsewhere.

    Raises:
        BuildError, DamagedBuild: as `read_manifest`.
    """
    try:
        data = read_json(path, dict[str, Any])
        if type(data.get("contract")) is int and data["contract"] > CONTRACT:
            raise BuildError(
                f"{path} was written under contract {data['contract']}, and this version reads contracts up to {CONTRACT}: "
                "use a newer version of dataprep."
            )
        return typed(data, ManifestData)
    except FileNotFoundError:
        raise BuildError(f"There is no build in {path.parent}: it has no {MANIFEST}.") from None
    except OSError as fault:
        raise BuildError(f"{path} cannot be read ({fault.strerror or fault}).") from None
    except InvalidJson as fault:
        raise _damaged_manifest(path, str(fault)) from None


def _damaged_manifest(path: Path, problem: str) -> DamagedBuild:
    return DamagedBuild(f"{path} {problem}: the build is damaged, rebuild it with --force.")


def _check_names(manifest: Manifest) -> None:
    """Refuse names and paths that lead out of the build's folder: whoever copies or deletes a build follows them.

    Raises:
        InvalidJson: names the first one.
    """
    if manifest.gate not in ("off", "passed", "failed"):
        raise InvalidJson(f"has the unknown gate {manifest.gate[:100]!r}")
    if not manifest.splits:
        raise InvalidJson("names no split")
    for name in (manifest.name, manifest.version, *manifest.splits):
        if not _FOLDER_NAME.fullmatch(name):
            raise InvalidJson(f"holds the name {name[:100]!r}, which is no plain name")
    root = os.path.realpath(manifest.path)
    for file, entry in manifest.entries():
        path = PurePosixPath(file)
        plain = file == str(path) and "\\" not in file and "\0" not in file
        if not plain or path.is_absolute() or ".." in path.parts or file in (".", "", MANIFEST):
            raise InvalidJson(f"names the file {file[:100]!r}, which is no relative path inside the build")
        if not os.path.realpath(os.path.join(root, file)).startswith(root + os.sep):
            raise InvalidJson(f"names the file {file[:100]!r}, which links lead out of the build")
        if entry["bytes"] < 0:
            raise InvalidJson(f"gives {file[:100]} a negative size")
    for name, split in manifest.splits.items():
        if any(not shard["file"].startswith(f"{name}/") or shard["rows"] < 0 for shard in split["shards"]):
            raise InvalidJson(f"names a shard of {name} outside of {name}/, or with a negative number of rows")


def verify(manifest: Manifest, *, record: bool = True) -> None:
    """Check every file of a build from its bytes: present, of its size and checksum; then the content of its shards.

    Args:
        manifest: of the build.
        record: write the result beside the build, so that `open_build` need not read an unchanged build again.

    Raises:
        DamagedBuild: names the first file that differs.
        BuildError: the build was removed meanwhile.
    """
    began = time.time_ns()
    files = dict(manifest.entries())
    try:
        stamps = {file: stamp_of(manifest.path / file) for file in (MANIFEST, *files)}
    except OSError:
        stamps = {}
    with ThreadPoolExecutor(2) as pool:  # hashing releases the GIL
        problems = pool.map(problem_of, [manifest.path / file for file in files], files.values())
        for file, problem in zip(files, problems, strict=True):
            if problem and not (manifest.path / MANIFEST).exists():  # a version is removed as a whole
                raise BuildError(f"There is no build in {manifest.path} any more: it was removed meanwhile.")
            if problem:
                raise DamagedBuild(f"{manifest.path / file} {problem}; rebuild with --force.")
    for split in manifest.splits:
        _validate(open_split(manifest, split), manifest.path / split)
    if (
        record
        and stamps
        and max(changed for _, *times in stamps.values() for changed in times) < began - _COARSEST_CLOCK
    ):
        _record_verified(manifest.path, stamps)


def _validate(table: pa.Table, place: Path) -> None:
    """Check what Arrow does not check when it maps a file: offsets, UTF-8, and spans inside of their texts.

    Raises:
        DamagedBuild: a value is invalid.
    """
    import pyarrow.compute as pc  # takes a tenth of a second

    try:
        table.validate(full=True)
    except Exception as fault:
        raise DamagedBuild(f"{place} has invalid Arrow data ({excerpt(str(fault))}); rebuild with --force.") from None
    for name in ("id", "messages", "text", "spans", "controls"):
        if table[name].null_count:
            raise DamagedBuild(f"{place} has rows without {name}; rebuild with --force.")
    lengths = pc.utf8_length(table["text"])
    for name in ("spans", "controls"):
        parts = pc.list_flatten(table[name])
        start, end = (pc.struct_field(parts, field) for field in ("start", "end"))
        length = pc.take(lengths, pc.list_parent_indices(table[name]))
        inside = pc.and_(pc.and_(pc.less_equal(0, start), pc.less(start, end)), pc.less_equal(end, length))
        if start.null_count or end.null_count or not pc.all(inside, min_count=0).as_py():
            raise DamagedBuild(f"{place} has {name} that are not inside of their text; rebuild with --force.")


def verified_file(folder: Path) -> Path:
    """Return the file beside a build that records the stamps of its files when their checksums were last right."""
    return folder.parent / f".verified-{folder.name}.json"


def _record_verified(folder: Path, stamps: Mapping[str, list[int]]) -> None:
    try:
        write_file(verified_file(folder), json.dumps(stamps), durable=False)
    except OSError:
        return  # a store that cannot be written: the checksums are read each time


def _is_unchanged(manifest: Manifest) -> bool:
    """Return whether no file of a build has changed since it was verified."""
    try:
        stamps = read_json(verified_file(manifest.path), dict[str, list[int]])
        files = [MANIFEST, *(file for file, _ in manifest.entries())]
        return all(stamps.get(file) == stamp_of(manifest.path / file) for file in files)
    except (OSError, InvalidJson):
        return False


def open_split(manifest: Manifest, split: str) -> pa.Table:
    """Return one split as a table over its memory-mapped shards, without copying; the values are not checked.

    Raises:
        DamagedBuild: a shard is no Arrow stream of `shard_schema`, or has another number of rows.
    """
    tables: list[pa.Table] = []
    for shard in manifest.splits[split]["shards"]:
        path = manifest.path / shard["file"]
        try:
            with pa.memory_map(str(path)) as source:
                table = _with_plain_json(pa.ipc.open_stream(source).read_all())
            has_columns = _is_shard_schema(table.schema)
        except Exception as fault:  # of many kinds: damaged metadata gives UnicodeDecodeError, OverflowError, …
            raise DamagedBuild(
                f"{path} is not a readable Arrow stream ({excerpt(str(fault))}); rebuild with --force."
            ) from None
        if not has_columns or table.num_rows != shard["rows"]:
            raise DamagedBuild(f"{path} has other columns or rows than its manifest says; rebuild with --force.")
        tables.append(table.replace_schema_metadata(None))
    return pa.concat_tables(tables) if tables else SHARD_SCHEMA.empty_table()


def _with_plain_json(table: pa.Table) -> pa.Table:
    """Return the table with JSON text as plain strings; in the files it is marked as `arrow.json`, for datasets.

    Raises:
        ArrowException: values of a table with such columns are invalid.
    """
    schema = pa.schema([field.with_type(_storage_type(field.type)) for field in table.schema])
    if schema.equals(table.schema):
        return table
    table.validate(full=True)  # the conversion reads the values
    return table.cast(schema)


def _storage_type(kind: pa.DataType) -> pa.DataType:
    if isinstance(kind, pa.JsonType):
        return kind.storage_type
    if pa.types.is_list(kind):
        return pa.list_(kind.value_field.with_type(_storage_type(kind.value_type)))
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_storage_type(field.type)) for field in kind])
    return kind


def _is_shard_schema(schema: pa.Schema) -> bool:
    """Return whether a schema is `shard_schema` of some message fields, with or without `tools`."""
    index = schema.get_field_index("messages")
    messages = schema.field(index).type if index >= 0 else None
    if not (messages and pa.types.is_list(messages) and pa.types.is_struct(messages.value_type)):
        return False
    fields = [field.name for field in messages.value_type]
    expected = shard_schema(fields, "tools" in schema.names)
    # Metadata of fields is compared too: a build has none, and Polars aborts where it is no UTF-8.
    return fields[:2] == ["role", "content"] and bool(schema.remove_metadata().equals(expected, check_metadata=True))


def open_build(folder: Path | str, *, check: bool = True) -> Build:
    """Open the build in `folder`, verified unless `check` is false.

    The bytes of the build are read once, and again when a file's size or times have changed; `verify` always reads them.

    Raises:
        BuildError: there is no build, or one of a newer contract.
        DamagedBuild: a file is not what the manifest says.
    """
    manifest = read_manifest(Path(folder).resolve())
    if check and not _is_unchanged(manifest):
        verify(manifest)
    return Build(manifest.path, manifest, {name: open_split(manifest, name) for name in manifest.splits})
