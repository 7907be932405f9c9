"""A run's folder: what cannot be written ends in one sentence and leaves no half of anything."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.support.disk import limited_file_size
from tests.support.training_builds import chatter, write_build
from training.errors import ModelError, RunError
from training.run_folder import RunFolder, explain, write_whole, writing

torch.set_num_threads(1)


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
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


def by_torch(path: Path) -> None:
    torch.save({"a": torch.zeros(2**20)}, path)


def by_safetensors(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(2**20)}, path)


def by_tokenizers(path: Path) -> None:
    from training.model.tiny import train_tokenizer

    vocabulary = train_tokenizer(["a text"], [f"<{n:0100}>" for n in range(2**13)], size=2**14)
    vocabulary.backend.save(str(path))


def by_python(path: Path) -> None:
    path.write_bytes(bytes(2**22))


WAYS = [by_torch, by_safetensors, by_tokenizers, by_python]


@pytest.mark.parametrize("write", WAYS)
def test_a_full_disk_is_one_sentence(small_disk, write):
    with (
        pytest.raises(
            RunError, match="^The thing could not be written: the disk is full; free some room and go on with"
        ),
        writing("The thing", small_disk),
    ):
        write(small_disk / "file")


@pytest.mark.parametrize("write", WAYS)
def test_a_disk_that_refuses_is_one_sentence(tmp_path, write):
    with (
        limited_file_size(2**16),
        pytest.raises(RunError, match=r"^The thing could not be written \(.+\); mend that and merge again\.$"),
        writing("The thing", tmp_path / "not" / "made", "merge again"),
    ):
        write(tmp_path / "file")


def test_what_is_no_fault_of_the_disk_is_left_alone(tmp_path):
    for fault in (ValueError("other"), ModelError("a sentence"), RuntimeError("CUDA error")):
        with pytest.raises(type(fault), match=str(fault)), writing("The thing", tmp_path):
            raise fault
    try:
        try:
            raise OSError(28, "No space left on device")
        except OSError:
            raise ModelError("a sentence") from None
    except ModelError as fault:
        assert explain(fault, "The thing") is None


def test_run_json_stays_whole(small_disk):
    write_whole(small_disk / "run.json", "{}")
    with pytest.raises(RunError, match="run.json could not be written: the disk is full"):
        RunFolder(small_disk).write({"a": "b" * 2**21})
    assert json.loads((small_disk / "run.json").read_text()) == {}


def test_a_base_model_that_cannot_be_written(tmp_path):
    from training.config import RunConfig
    from training.data.training_data import open_training_build
    from training.model import tiny

    build = open_training_build(RunConfig(data=write_build(tmp_path / "b", chatter(20)), model="tiny"))
    with limited_file_size(2**18), pytest.raises(RunError, match="base could not be written"):
        tiny.write_model(tmp_path / "base", build, 0)
