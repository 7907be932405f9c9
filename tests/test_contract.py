"""Reading a build: manifests of the right shape, files that are verified once, and paths that stay inside."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from dataprep import contract
from dataprep.common import checksums
from dataprep.common.errors import BuildError, DamagedBuild
from dataprep.contract import MANIFEST, open_build, read_manifest, verified_file, verify
from tests.support.commands import dataprep_error
from tests.support.versions import edit_manifest, make_old, write_version

DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"template": None}, "needs an object as template"),
        ({"recipe": None}, "needs an object as recipe"),
        ({"created": None}, "needs a string as created"),
        ({"splits": []}, "needs an object as splits"),
        ({"splits": {}}, "names no split"),
        ({"gate": "on"}, "has the unknown gate 'on'"),
        ({"splits": {"train": {}}}, "lacks rows, shards in splits.train"),
        ({"splits": {"train": {"rows": "x", "shards": []}}}, "needs an integer as splits.train.rows"),
        ({"splits": {"train": {"rows": 1, "shards": [[]]}}}, "needs an object as splits.train.shards[0]"),
        ({"files": []}, "needs an object as files"),
        ({"files": {"README.md": {}}}, "lacks bytes, sha256 in files.README.md"),
        ({"files": {"README.md": {"bytes": -1, "sha256": DIGEST}}}, "negative size"),
        ({"sources": [{"name": "x"}]}, "lacks digest in sources[0]"),
        ({"libraries": None}, "needs an object as libraries"),
        ({"contract": True}, "needs an integer as contract"),
        ({"version": "../x"}, "no plain name"),
        ({"name": "a/b"}, "no plain name"),
        ({"splits": {"../train": {"rows": 0, "shards": []}}}, "no plain name"),
        ({"note": "\ud800"}, "holds a lone surrogate"),
    ],
)
def test_a_manifest_of_another_shape_is_refused_with_the_place(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    path = write_version(tmp_path)
    edit_manifest(path, **changes)
    with pytest.raises(DamagedBuild, match=re.escape(problem)):
        open_build(path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "3",
        "[" * 100_000,
        "[" * 101 + "]" * 101,
        '{"contract": ' + "1" * 5000 + "}",
        '{"a":' * 100_000,
        '{"contract": NaN}',
        "\xff",
    ],
)
def test_a_manifest_that_is_no_json_object_is_refused(tmp_path: Path, text: str) -> None:
    path = write_version(tmp_path)
    (path / MANIFEST).write_bytes(text.encode("latin-1"))
    with pytest.raises(DamagedBuild, match="the build is damaged"):
        read_manifest(path)


def test_a_manifest_of_a_newer_contract_is_refused(tmp_path: Path) -> None:
    path = write_version(tmp_path)
    edit_manifest(path, contract=99)
    with pytest.raises(BuildError, match="contract 99"):
        read_manifest(path)


OUTSIDE = [
    "/etc/passwd",
    "../precious",
    "train/../../precious",
    "./a",
    "a//b",
    "",
    ".",
    "..",
    "a\\b",
    "a\0b",
    "link/precious",
]


@pytest.mark.parametrize("file", OUTSIDE)
@pytest.mark.parametrize("part", ["files", "shards"])
def test_a_manifest_that_names_a_file_outside_of_the_build_is_refused(tmp_path: Path, file: str, part: str) -> None:
    path = write_version(tmp_path / "store")
    (path.parent / "precious").write_text("x")
    (path / "link").symlink_to("..")
    manifest = json.loads((path / MANIFEST).read_bytes())
    entry = {"bytes": 1, "sha256": DIGEST}
    if part == "files":
        manifest["files"][file] = entry
    else:
        manifest["splits"]["train"]["shards"].append({"file": file, "rows": 0, **entry})
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DamagedBuild, match="names the file|names a shard"):
        read_manifest(path)
    dataprep_error(4, "publish", path, "--to", tmp_path / "out", "--dry-run")
    assert (path.parent / "precious").read_text() == "x"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files whose checksum is computed; files count as old enough however new they are."""
    files: list[Path] = []
    real: Callable[[Path], str] = checksums.sha256_of

    def sha256_of(path: Path) -> str:
        files.append(path)
        return real(path)

    monkeypatch.setattr(checksums, "sha256_of", sha256_of)
    monkeypatch.setattr(contract, "_COARSEST_CLOCK", -(10**12))
    return files


def test_a_verified_build_is_not_read_again(tmp_path: Path, hashed: list[Path]) -> None:
    path = write_version(tmp_path)
    make_old(path)
    open_build(path)
    assert hashed
    hashed.clear()
    open_build(path)
    assert not hashed
    verify(read_manifest(path))
    assert hashed


def test_a_build_that_was_just_written_is_not_recorded_as_verified(tmp_path: Path) -> None:
    path = write_version(tmp_path)
    open_build(path)
    assert not verified_file(path).exists()


def test_a_changed_file_is_read_again_although_its_time_was_set_back(tmp_path: Path, hashed: list[Path]) -> None:
    path = write_version(tmp_path)
    make_old(path)
    open_build(path)
    shard = next(path.glob("train/*.arrow"))
    data = bytearray(shard.read_bytes())
    times = shard.stat()
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))  # the time of its inode still changes
    with pytest.raises(DamagedBuild, match=shard.name):
        open_build(path)


@pytest.mark.parametrize("record", ["[]", "{}", "", '{"manifest.json": 3}'])
def test_a_damaged_record_of_verification_is_ignored(tmp_path: Path, hashed: list[Path], record: str) -> None:
    path = write_version(tmp_path)
    verified_file(path).write_text(record)
    open_build(path)
    assert hashed


def test_a_build_beside_which_nothing_can_be_written_is_read_each_time(
    tmp_path: Path, hashed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_version(tmp_path)
    monkeypatch.setattr(contract, "verified_file", lambda folder: tmp_path / "none/there.json")
    assert open_build(path).splits["train"].num_rows == 2
    hashed.clear()
    open_build(path)
    assert hashed
