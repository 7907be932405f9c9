"""Publishing to a folder: the same files as on the Hub, once, and nothing at all in a dry run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import load_dataset

from dataprep.cli.publishing import publish as publish_command
from dataprep.common.errors import StoreError
from dataprep.common.lookup import latest_version
from dataprep.contract import open_build
from dataprep.publish.data_files import data_files
from dataprep.publish.layouts import Layout
from dataprep.publish.publishing import publish
from dataprep.store import history, verification
from dataprep.store.verification import Verified
from tests.support.builds import GUANACO_TEXTS, guanaco_file, guanaco_text, make_build
from tests.support.paths import ROOT
from tests.support.publishing import column_of


def test_a_folder_gets_the_published_files_and_loads_with_the_rows_of_the_build(
    tmp_path: Path, published_build: Path
) -> None:
    sent = publish(open_build(published_build), str(tmp_path / "out"))
    files = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert files == sent.files.keys()
    cache = str(tmp_path / "cache")
    data = load_dataset(str(tmp_path / "out"), cache_dir=cache)
    assert list(data["test"]["text"]) == column_of(published_build, "test", "text")
    globs = {split: str(tmp_path / f"out/data/{split}-*.parquet") for split in ("train", "test")}
    data = load_dataset("parquet", data_files=globs, cache_dir=cache)
    for split in globs:
        assert list(data[split]["text"]) == column_of(published_build, split, "text")


def test_a_folder_is_published_to_once(tmp_path: Path, published_build: Path) -> None:
    build, target = open_build(published_build), str(tmp_path / "out")
    publish(build, target)
    for dry_run in (False, True):
        assert publish(build, target, dry_run=dry_run).there_already
    with pytest.raises(StoreError, match="no empty folder"):
        publish(build, target, "full")


def snapshot(folder: Path) -> dict[str, os.stat_result]:
    """What lstat says of everything below a folder; access times aside."""
    return {
        str(path): os.stat_result((*path.lstat()[:7], 0, *path.lstat()[8:10])) for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def read_only(tmp_path: Path, published_build: Path) -> Iterator[Path]:
    """A folder that cannot be written."""
    target = tmp_path / "read_only"
    target.mkdir()
    target.chmod(0o555)
    yield target
    target.chmod(0o755)


@pytest.mark.parametrize("layout", ["text", "full"])
def test_a_dry_run_writes_nothing_anywhere(
    tmp_path: Path, published_build: Path, read_only: Path, layout: Layout
) -> None:
    store = published_build.parents[1]
    for record in published_build.parent.glob(".verified-*"):
        record.unlink()
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    before = [snapshot(folder) for folder in (store, tmp_path)]
    target = read_only / "out"
    command = ["publish", str(published_build), "--to", str(target), "--layout", layout, "--dry-run", "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "dataprep", *command], env=environment, capture_output=True, text=True, check=True
    )
    assert [snapshot(folder) for folder in (store, tmp_path)] == before
    listed = json.loads(done.stdout)["files"]
    written = publish(open_build(published_build), str(tmp_path / "out"), layout).files
    assert {name: size for name, size in listed.items() if name != "README.md"} == {
        name: size for name, size in written.items() if name != "README.md"
    }  # the card has the folder's name


def test_a_published_folder_can_be_built_from(tmp_path: Path) -> None:
    bread = [guanaco_text("how do I bake bread", "flour, water, salt and yeast " * 20 + end) for end in ("", "now")]
    first = make_build(tmp_path / "s", source=(guanaco_file(tmp_path, [*GUANACO_TEXTS, *bread]),), split="test=5").path
    assert first is not None
    assert (first / "duplicates.parquet").exists()
    publish(open_build(first), str(tmp_path / "sets" / "out"), "messages")
    train, test = (sorted(column_of(first, split, "text")) for split in ("train", "test"))
    options = {"gate": "off", "near_dup": "off", "name": "again"}
    for source, texts in (("sets/out", train), ("sets", train), ("sets/out:test", test)):
        # the manifest, fates and near-duplicates beside the rows are no conversations
        again = make_build(tmp_path / "s", source=(str(tmp_path / source),), **options).path
        assert again is not None
        assert sorted(column_of(again, "train", "text")) == texts


@pytest.fixture
def two_versions(tmp_path: Path) -> tuple[Path, Path]:
    """Versions of 5 and of 7 rows in tmp_path/store; the second is latest."""
    source = guanaco_file(tmp_path, GUANACO_TEXTS)
    first, second = (make_build(tmp_path / "store", source=(source,), sample=n).path for n in (5, 7))
    assert first is not None and second is not None
    return first, second


def test_the_version_that_was_verified_is_published_although_latest_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_versions: tuple[Path, Path]
) -> None:
    first, second = two_versions
    verify = verification.verify_build

    def verify_and_move(folder: Path, *, record: bool) -> Verified:
        verified = verify(folder, record=record)
        make_build(tmp_path / "store", source=(str(tmp_path / "rows.jsonl"),), sample=5)
        return verified

    monkeypatch.setattr(verification, "verify_build", verify_and_move)
    publish_command("n", to=str(tmp_path / "out"), store=tmp_path / "store")
    assert latest_version(tmp_path / "store", "n") == first.name
    assert json.loads((tmp_path / "out/manifest.json").read_bytes())["version"] == second.name


def test_a_version_that_is_removed_meanwhile_leaves_nothing_in_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, two_versions: tuple[Path, Path]
) -> None:
    first, _ = two_versions

    def data_files_then_gc(*arguments: object) -> Iterator[tuple[str, memoryview]]:
        yield from data_files(*arguments)  # type: ignore[arg-type]
        history.gc(tmp_path / "store", 0)

    monkeypatch.setattr("dataprep.publish.contents.data_files", data_files_then_gc)
    with pytest.raises(StoreError, match=f"{first}.* cannot be read any more .*was removed meanwhile"):
        publish(open_build(first), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
