"""Listing the versions of a store, and removing old ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dataprep.common.errors import StoreError
from dataprep.common.lookup import latest_version, versions
from dataprep.contract import MANIFEST, open_build
from dataprep.store.commit import new_version
from dataprep.store.history import gc, listing
from tests.support.builds import guanaco_file, guanaco_text, make_build
from tests.support.commands import dataprep, dataprep_error
from tests.support.versions import edit_manifest

QUICK = {"gate": "off", "near_dup": "off"}
PAIRS = [guanaco_text(f"question {n}", f"answer {n}") for n in range(30)]


def build(folder: Path, **options: object) -> Path:
    """Build 30 conversations into the store of `folder`."""
    path = make_build(folder / "store", source=(guanaco_file(folder, PAIRS),), **QUICK | options).path
    assert path is not None
    return path


def test_the_list_describes_each_version(tmp_path: Path) -> None:
    old, new = build(tmp_path), build(tmp_path, split="test=5")
    described = {entry["version"]: entry for entry in listing(tmp_path / "store")}
    assert set(described) == {old.name, new.name}
    assert [described[path.name]["latest"] for path in (new, old)] == [True, False]
    assert described[new.name]["parent"] == old.name
    assert described[new.name]["splits"] == {"train": 25, "test": 5}
    files = [path for path in new.rglob("*") if path.is_file() and path.name != MANIFEST]
    assert described[new.name]["bytes"] == sum(path.stat().st_size for path in files)


def test_the_list_command_shows_unreadable_versions_beside_the_others(tmp_path: Path) -> None:
    old, _ = build(tmp_path), build(tmp_path, split="test=5")
    (old / MANIFEST).write_text("{")
    output = dataprep("list", "--store", tmp_path / "store").stdout
    assert "25 + 5" in output
    assert "is not valid JSON" in " ".join(output.split())
    assert len(json.loads(dataprep("list", "--json", "--store", tmp_path / "store").stdout)) == 2
    assert "no build" in dataprep("list", "--store", tmp_path / "none").stderr


def test_a_rebuilt_version_keeps_its_parent(tmp_path: Path) -> None:
    paths = [build(tmp_path), build(tmp_path, sample=5)]
    for path, parent in zip(paths, (None, paths[0].name), strict=True):
        shard = next(path.glob("train/*.arrow"))
        shard.write_bytes(shard.read_bytes()[:-1])
        options = {"sample": 5} if parent else {}
        assert build(tmp_path, force=True, **options) == path
        assert open_build(path).manifest.data["parent"] == parent
    (paths[1] / MANIFEST).write_text("{")
    build(tmp_path, sample=5, force=True)
    assert open_build(paths[1]).manifest.data["parent"] is None


def test_gc_keeps_latest_the_newest_and_what_runs_were_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [build(tmp_path, sample=n) for n in range(1, 7)]
    for age, path in enumerate(paths):  # they were created within a second or two
        edit_manifest(path, created=f"2026-01-0{age + 1}")
    build(tmp_path, sample=2)  # exists already: becomes latest again
    in_store, beside_store, elsewhere = tmp_path / "store/runs/a", tmp_path / "runs/b", tmp_path / "away/runs/c"
    runs = ((in_store, "bond", paths[0]), (beside_store, "provenance", paths[2]), (elsewhere, "bond", paths[3]))
    for folder, key, path in runs:
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({key: {"build": "n", "version": path.name}}))
    removed = gc(tmp_path / "store", 1)
    assert [path for path, _ in removed] == [paths[4], paths[3]]  # runs below ./away are not looked for
    assert versions(tmp_path / "store", "n") == sorted(paths[n].name for n in (0, 1, 2, 5))
    assert not list((tmp_path / "store/n").glob(".tmp-*"))
    assert latest_version(tmp_path / "store", "n") == paths[1].name


@pytest.mark.parametrize("record", ["{}", "[]", "null", '{"bond": 1}', '{"bond": {"version": null}}', "[" * 10**5])
def test_gc_removes_nothing_where_a_run_does_not_name_its_build(tmp_path: Path, record: str) -> None:
    path = build(tmp_path)
    (tmp_path / "runs/a").mkdir(parents=True)
    (tmp_path / "runs/a/run.json").write_text(record)
    with pytest.raises(StoreError, match="nothing is removed"):
        gc(tmp_path / "store", 0)
    assert path.is_dir()


def test_gc_removes_leftovers_and_keeps_running_builds_and_unreadable_versions(tmp_path: Path) -> None:
    path, home = build(tmp_path), tmp_path / "store/n"
    (path / MANIFEST).write_text("{")
    with new_version(tmp_path / "store", "n") as running:
        (home / ".tmp-dead").mkdir()
        (home / ".tmp-dead/part").write_bytes(b"12345")
        assert gc(tmp_path / "store", 0, dry_run=True) == [(home / ".tmp-dead", 5)]
        assert (home / ".tmp-dead").is_dir()
        assert gc(tmp_path / "store", 0) == [(home / ".tmp-dead", 5)]
        assert running.is_dir()
    assert path.is_dir()
    assert not (home / ".tmp-dead").exists()


def test_the_gc_command_lists_what_it_removes(tmp_path: Path) -> None:
    old, new = build(tmp_path), build(tmp_path, sample=10)
    store = ("--store", tmp_path / "store")
    assert str(old) in dataprep("gc", "--keep", "1", "--dry-run", *store).stdout
    assert old.is_dir()
    assert json.loads(dataprep("gc", "--keep", "1", "--json", *store).stdout)["folders"][0]["path"] == str(old)
    assert (old.exists(), new.is_dir()) == (False, True)
    assert "--keep is -1" in dataprep_error(1, "gc", "--keep", "-1", *store)


def test_a_malformed_manifest_hides_no_other_version(tmp_path: Path) -> None:
    good, bad = build(tmp_path), build(tmp_path, sample=5)
    edit_manifest(bad, splits={"train": {}})
    described = {entry["version"]: entry for entry in listing(tmp_path / "store")}
    assert "lacks rows, shards in splits.train" in described[bad.name]["problem"]
    assert described[good.name]["rows"] == 30
    assert [path for path, _ in gc(tmp_path / "store", 0)] == [good]
