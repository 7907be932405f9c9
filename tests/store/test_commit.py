"""A version appears whole or not at all, and what killed processes left is removed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataprep.common.errors import DamagedBuild, StoreError
from dataprep.common.lookup import LATEST
from dataprep.contract import open_build, verified_file
from dataprep.store.commit import new_version, remove_versions, reuse_version
from tests.support.versions import write_version

KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from dataprep.store.commit import new_version
with new_version(Path(sys.argv[1]), "n") as folder:
    (folder / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_exception_while_writing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_version(tmp_path, "n") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert not [entry for entry in (tmp_path / "n").iterdir() if entry.name != ".lock"]


def test_leftovers_of_a_killed_writer_are_removed_and_a_running_one_is_left_alone(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED_WRITER, str(tmp_path)], check=False)
    assert len(list((tmp_path / "n").glob(".tmp-*/version/half"))) == 1
    with new_version(tmp_path, "n") as running:
        assert not list((tmp_path / "n").glob(".tmp-*/version/half"))
        with new_version(tmp_path, "n"):
            assert running.is_dir()


def test_leftover_links_and_records_are_removed_and_never_what_links_point_to(tmp_path: Path) -> None:
    path = write_version(tmp_path / "store")
    home, outside = path.parent, tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    for link in (".tmp-link", ".latest-0123", "failed", "v2"):
        (home / link).symlink_to(outside)
    verified_file(home / "removed").write_text("{}")
    (home / ".page.partial-0123").write_text("x")
    kept = [".lock", "latest", "v1"]
    removed = remove_versions(tmp_path / "store", "n", lambda: [], dry_run=True)
    assert {entry.name for entry, _ in removed} == {".tmp-link", ".latest-0123", "failed", "v2"}
    remove_versions(tmp_path / "store", "n", lambda: [])
    assert sorted(entry.name for entry in home.iterdir()) == kept
    assert (outside / "precious").exists()


def test_a_dry_run_of_a_removal_changes_no_file(tmp_path: Path) -> None:
    path = write_version(tmp_path)
    (path.parent / ".tmp-dead").mkdir()
    (path.parent / ".tmp-dead.lock").touch()
    before = {entry: entry.lstat() for entry in sorted(tmp_path.rglob("*"))}
    assert len(remove_versions(tmp_path, "n", lambda: ["v1"], dry_run=True)) == 2
    assert {entry: entry.lstat() for entry in sorted(tmp_path.rglob("*"))} == before


def test_a_rebuild_repairs_a_damaged_version_and_refuses_other_shards(tmp_path: Path) -> None:
    path = write_version(tmp_path)
    shard = next(path.glob("train/*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(DamagedBuild, match=shard.name):
        reuse_version(tmp_path, "n", "v1")
    write_version(tmp_path)
    assert reuse_version(tmp_path, "n", "v1") == path
    with pytest.raises(DamagedBuild, match="other shards"):
        write_version(tmp_path, texts=("a", "c"))
    assert open_build(path).splits["train"]["text"].to_pylist() == ["a", "b"]


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"), new_version(tmp_path / "file" / "store", "n"):
        pass


def test_a_name_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "n").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="is a link"), new_version(tmp_path / "store", "n"):
        pass
    assert not list((tmp_path / "outside").iterdir())


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    full = pytest.raises(StoreError, match="the disk is full")
    with full, new_version(tmp_path, "n"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list((tmp_path / "n").glob(".tmp-*"))


def test_latest_points_to_the_last_committed_version(tmp_path: Path) -> None:
    for version in ("v1", "v2"):
        write_version(tmp_path, version)
    assert os.readlink(tmp_path / "n" / LATEST) == "v2"
    assert reuse_version(tmp_path, "n", "v1") == tmp_path / "n" / "v1"
    assert os.readlink(tmp_path / "n" / LATEST) == "v1"
    assert reuse_version(tmp_path, "n", "v3") is None
