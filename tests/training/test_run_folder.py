"""The folder of a run: what may be in it at the start, and one sentence for a disk that refuses a write."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.support.disk import limited_file_size
from tests.support.training_builds import chatter, write_build
from training.config import RunConfig
from training.data.training_data import open_training_build
from training.errors import ModelError, RunError
from training.metrics import read_metrics, truncate_metrics
from training.model import tiny
from training.run_folder import RunFolder, prepare_folder, write_atomically, write_errors

torch.set_num_threads(1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", disk], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)  # torch keeps its file open


def with_torch(path: Path) -> None:
    torch.save({"a": torch.zeros(2**20)}, path)


def with_safetensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2**20)}, path)


def with_tokenizers(path: Path) -> None:
    tokenizer = tiny.train_tokenizer(["a text"], [f"<{n:0100}>" for n in range(2**13)], size=2**14)
    tokenizer.backend.save(str(path))


def with_python(path: Path) -> None:
    path.write_bytes(bytes(2**22))


WRITERS = [with_torch, with_safetensors, with_tokenizers, with_python]


@pytest.mark.parametrize("write", WRITERS)
def test_a_full_disk_is_one_sentence(small_disk: Path, write: Callable[[Path], None]) -> None:
    sentence = r"^The file could not be written \(the disk is full\): .*--resume auto\.$"
    with pytest.raises(RunError, match=sentence), write_errors("The file", small_disk):
        write(small_disk / "file")


@pytest.mark.parametrize("write", WRITERS)
def test_a_refused_write_is_one_sentence(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with (
        limited_file_size(2**16),
        pytest.raises(RunError, match=r"^The file could not be written \(.+\): merge again\.$"),
        write_errors("The file", tmp_path / "not" / "created", "merge again"),
    ):
        write(tmp_path / "file")


@pytest.mark.parametrize("error", [ValueError("other"), ModelError("a sentence"), RuntimeError("CUDA error")])
def test_an_error_that_is_no_failed_write_passes_unchanged(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error), match=str(error)), write_errors("The file", tmp_path):
        raise error


def test_a_failed_write_leaves_the_old_run_json(small_disk: Path) -> None:
    write_atomically(small_disk / "run.json", "{}")
    with pytest.raises(RunError, match=r"run.json could not be written \(the disk is full\)"):
        RunFolder(small_disk).write({"a": "b" * 2**21})
    assert json.loads((small_disk / "run.json").read_text()) == {}


def test_a_base_model_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    build = open_training_build(RunConfig(data=write_build(tmp_path / "b", chatter(20)), model="tiny"))
    with limited_file_size(2**18), pytest.raises(RunError, match="base could not be written"):
        tiny.write_model(tmp_path / "base", build, 0)


def test_only_an_empty_folder_or_a_run_to_resume_is_accepted(tmp_path: Path) -> None:
    """--resume never and auto."""
    folder = tmp_path / "run"
    assert prepare_folder(folder, "never").checkpoints.is_dir()
    (folder / "note").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        prepare_folder(folder, "never")
    with pytest.raises(RunError, match="holds no run"):
        prepare_folder(folder, "auto")


def test_metrics_are_cut_after_a_step_and_before_an_unreadable_line(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 2.0}\n{"step": 2, "loss": 1.0}\n{"step": 3}\n\xff{"st')
    truncate_metrics(path, 2)
    assert [line["step"] for line in read_metrics(path)] == [1, 2]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[" * 50_000, b"null", b'{"step": "1"}', b'{"loss": 1}'])
def test_unreadable_metrics_are_one_sentence(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + content)
    with pytest.raises(RunError, match="Line 2 of .*metrics.jsonl"):
        read_metrics(path)
