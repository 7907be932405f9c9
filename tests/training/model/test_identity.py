"""The revision of a model folder sees other weights of the same size."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from training.errors import ModelError
from training.model import identity
from training.model.identity import model_revision, read_model_config


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file({"a": np.zeros(3_000_000, np.float32)}, tmp_path / "model.safetensors")
    return tmp_path


def test_the_revision_of_a_folder_changes_with_its_weights(folder: Path) -> None:
    before = model_revision(str(folder), None)
    assert before == model_revision(str(folder), None)
    save_file({"a": np.ones(3_000_000, np.float32)}, folder / "model.safetensors")
    assert model_revision(str(folder), None) != before


def test_the_revision_of_a_folder_changes_with_the_names_of_its_tensors(folder: Path) -> None:
    before = model_revision(str(folder), None)
    save_file({"b": np.zeros(3_000_000, np.float32)}, folder / "model.safetensors")
    assert model_revision(str(folder), None) != before


def test_the_revision_of_a_small_model_changes_with_any_weight(folder: Path) -> None:
    before = model_revision(str(folder), None)
    weights = np.zeros(3_000_000, np.float32)
    weights[2_000_001] = 1e-3
    save_file({"a": weights}, folder / "model.safetensors")
    assert model_revision(str(folder), None) != before


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_the_revision_of_a_large_model_changes_with_its_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(identity, "WHOLE", 0)
    content = (folder / "model.safetensors").read_bytes()
    (folder / name).write_bytes(content)
    before = model_revision(str(folder), None)
    (folder / name).write_bytes(content[:-2_500_000] + bytes([1]) * 2_500_000)
    assert model_revision(str(folder), None) != before


def test_a_revision_of_an_older_run_is_compared_by_the_digest_of_that_time(folder: Path) -> None:
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    file = folder / "model.safetensors"
    digest.update(f"{file.name}:{file.stat().st_size}".encode())
    recorded = digest.hexdigest()[:16]
    assert model_revision(str(folder), None, recorded) == recorded


def test_a_folder_without_config_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config\.json"):
        read_model_config(str(tmp_path), None)
