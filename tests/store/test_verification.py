"""`verify_build`: any damaged, missing or additional file, and any count that does not add up, is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dataprep.common.errors import DamagedBuild
from dataprep.contract import MANIFEST
from dataprep.store.verification import verify_build
from tests.support.builds import GUANACO_TEXTS, guanaco_file, make_build


@pytest.fixture
def built(tmp_path: Path) -> Path:
    options = {"split": "test=5", "gate": "off", "near_dup": "off", "name": "rows"}
    path = make_build(tmp_path / "store", source=(guanaco_file(tmp_path, GUANACO_TEXTS),), **options).path
    assert path is not None
    return path


@pytest.mark.parametrize(
    "name", ["train/data-00000-of-00001.arrow", "fates/fates-00000.parquet", "README.md", "manifest.json"]
)
def test_a_truncated_file_is_named(built: Path, name: str) -> None:
    assert verify_build(built)["rows"] == 33
    file = built / name
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DamagedBuild, match=name):
        verify_build(built)


def test_a_missing_file_is_named(built: Path) -> None:
    (built / "template.jinja").unlink()
    with pytest.raises(DamagedBuild, match="template.jinja is missing"):
        verify_build(built)


def test_a_flipped_bit_is_found_before_the_file_is_parsed(built: Path) -> None:
    shard = built / "train/data-00000-of-00001.arrow"
    content = shard.read_bytes()
    for position in range(0, 1200, 50):  # in the schema and in the metadata, where it can mean anything
        shard.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        with pytest.raises(DamagedBuild, match=f"{shard.name} is damaged: its checksum"):
            verify_build(built)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("fates rules no_answer", 2),
        ("fates dropped", 1),
        ("funnel 1 out", 7),
        ("funnel 0 rules", {}),
        ("kinds line", 9),
        ("repairs", {}),
        ("languages", {"en": 33}),
        ("rows", 7),
        ("splits train rows", 7),
        ("splits train shards 0 rows", 1),
        ("splits train", {}),
        ("version", "0" * 12),
        ("funnel", None),
        ("files README.md", None),
        ("files train/state.json", None),
    ],
)
def test_a_manifest_that_differs_from_the_files_is_refused(built: Path, path: str, value: object) -> None:
    manifest = json.loads((built / MANIFEST).read_text())
    *keys, last = (int(key) if key.isdigit() else key for key in path.split())
    part = manifest
    for key in keys:
        part = part[key]
    assert part[last] != value
    if value is None:
        del part[last]
    else:
        part[last] = value
    (built / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DamagedBuild, match=r"manifest\.json|has other rows|other columns or rows"):
        verify_build(built)


def test_files_that_are_no_part_of_the_build_are_refused_except_caches_and_hidden_files(
    built: Path, tmp_path: Path
) -> None:
    for name in ("train/cache-1f.arrow", ".DS_Store"):  # of datasets, and of a file manager
        (built / name).write_text("x")
    copy = Path(shutil.copytree(built, tmp_path / "copy"))
    assert verify_build(built)["rows"] == verify_build(copy)["rows"] == 33
    (copy / "train/extra.arrow").write_text("x")
    with pytest.raises(DamagedBuild, match=r"train/extra.arrow is in no entry of manifest.json"):
        verify_build(copy)


def test_a_folder_named_by_another_version_is_refused(built: Path) -> None:
    renamed = built.rename(built.with_name("0123456789ab"))
    with pytest.raises(DamagedBuild, match=f"is the one of version {built.name}, not of 0123456789ab"):
        verify_build(renamed)
