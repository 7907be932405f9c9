"""The tensors of safetensors files are matched with the layers of the loaded model, by name and shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.tiny_models import tiny_tokenizer, write_tiny_model
from training.errors import ModelError
from training.model.architecture import Architecture, read_architecture
from training.model.checkpoint import merge_obstacle, tensor_names, tensor_shapes, weight_files
from training.model.identity import read_model_config


def tiny(name: str, folder: Path) -> Architecture:
    write_tiny_model(name, folder, tiny_tokenizer())
    return read_architecture(read_model_config(str(folder), None), name)


@pytest.mark.parametrize("name", ["qwen2_5_vl", "gpt2"])
def test_every_layer_of_the_decoder_has_a_tensor(name: str, tmp_path: Path) -> None:
    architecture = tiny(name, tmp_path)
    names = tensor_names(architecture, tensor_shapes(str(tmp_path), None))
    assert all(
        f"{architecture.sizes.module_path(linear.path)}.weight" in names for linear in architecture.sizes.linears
    )
    assert merge_obstacle(architecture, str(tmp_path), None) is None


def test_tensors_with_other_names_are_an_obstacle_to_merging(tmp_path: Path) -> None:
    architecture = tiny("llama", tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({f"{name}.x": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    assert "no tensor that is the weight of layers.0" in str(merge_obstacle(architecture, str(tmp_path), None))


def test_a_model_without_safetensors_files_is_an_obstacle_to_merging(tmp_path: Path) -> None:
    architecture = tiny("llama", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    assert merge_obstacle(architecture, str(tmp_path), None) == "it has no safetensors files"


@pytest.mark.parametrize(
    "content", [b"", b"short", b"\xff" * 64, b"\x02\0\0\0\0\0\0\0[]", b'\x08\0\0\0\0\0\0\0{"a": 1}']
)
def test_a_damaged_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelError, match="cannot be read"):
        tensor_shapes(str(tmp_path), None)


@pytest.mark.parametrize("content", [{}, {"weight_map": 3}, {"weight_map": {"a": 3}}])
def test_a_damaged_index_is_one_sentence(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match="no weight_map"):
        weight_files(str(tmp_path), None)


def test_a_file_that_the_index_names_must_exist(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part.safetensors"}}))
    with pytest.raises(ModelError, match="lacks the file part.safetensors"):
        weight_files(str(tmp_path), None)
