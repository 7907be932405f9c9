"""Atomic replacement of files, and the sentences for disks that refuse."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataprep.common import files
from dataprep.common.errors import InputError, RecipeError, StoreError
from dataprep.common.files import disk_errors, replace_file, temporary_folder, write_failure, write_file
from tests.support.paths import ROOT


@pytest.fixture(params=["unnamed", "named"])
def any_file_system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems with and without unnamed temporary files."""
    if request.param == "named":
        monkeypatch.setattr(files, "_unnamed_file", lambda folder: None)


@pytest.mark.usefixtures("any_file_system")
def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_file(path, "old")
    path.chmod(0o640)
    with replace_file(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["page.html"]


@pytest.mark.usefixtures("any_file_system")
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    write_file(path, "old")
    with pytest.raises(OSError, match="No space"), replace_file(path) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["page.html"]


def test_a_link_keeps_pointing_to_the_replaced_file(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to("target")
    write_file(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="needs unnamed temporary files")
def test_a_killed_writer_leaves_nothing_behind(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from dataprep.common.files import replace_file\n"
        "with replace_file(Path(sys.argv[1])) as file:\n"
        "    file.write(b'x' * 100_000); file.flush(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path / "page.html")], cwd=ROOT)
    assert process.returncode == -signal.SIGKILL
    assert os.listdir(tmp_path) == []


def test_leftover_temporary_folders_are_removed_and_those_in_use_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    long_ago = time.time() - 1000
    for name in ("dataprep-x-left", "dataprep-x-fresh", "dataprep-other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "part").write_text("x")
        if name != "dataprep-x-fresh":
            os.utime(tmp_path / name, (long_ago, long_ago))
    (tmp_path / "outside").mkdir()
    (tmp_path / "dataprep-x-link").symlink_to("outside")
    with temporary_folder("dataprep-x") as first:
        os.utime(first, (long_ago, long_ago))
        with temporary_folder("dataprep-x") as second:
            assert first.is_dir()
            assert second.is_dir()
    kept = ["dataprep-other", "dataprep-x-fresh", "dataprep-x-link", "outside"]
    assert sorted(os.listdir(tmp_path)) == kept


def test_a_missing_folder_is_an_os_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing"), replace_file(tmp_path / "missing" / "file"):
        pass


def test_a_full_disk_becomes_one_sentence_with_advice() -> None:
    with pytest.raises(StoreError) as error, disk_errors(StoreError, "The page", "choose another --out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(error.value) == "The page could not be written (the disk is full): choose another --out."


def test_a_full_disk_is_recognised_behind_the_exceptions_of_libraries() -> None:
    wrapped = RuntimeError("upload failed")
    wrapped.__cause__ = OSError(errno.EDQUOT, "Disk quota exceeded")
    assert write_failure(wrapped) is None  # the exception itself is not about a write
    assert write_failure(RuntimeError("I/O error: No space left on device (os error 28)")) == "the disk is full"
    assert write_failure(OSError(errno.EACCES, "x")) == "Permission denied"


def test_errors_with_a_sentence_pass_unchanged() -> None:
    with pytest.raises(InputError, match="^It is wrong.$"), disk_errors(StoreError, "The page", "try again"):
        raise InputError("It is wrong.")
    with pytest.raises(ZeroDivisionError), disk_errors(RecipeError, "The page", "try again"):
        raise ZeroDivisionError
