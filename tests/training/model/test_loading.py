"""A checkpoint that lacks weights is refused before training, and adapters go where they can be computed."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from tests.support.tiny_models import tiny_tokenizer, write_tiny_model
from training.config import RunConfig
from training.errors import ModelError, OptionError
from training.model.adapters import add_adapters, check_targets
from training.model.architecture import read_architecture
from training.model.base import load_base
from training.model.identity import read_model_config
from training.model.runtime import Runtime

RUNTIME = Runtime("cpu", "fp32", "dataprep_segments", liger=False)


def config_for(folder: Path, **options: Any) -> RunConfig:
    return RunConfig(data=folder, model=str(folder), device="cpu", **options)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("tensor", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_checkpoint_without_a_tensor_is_refused(tmp_path: Path, quantization: Any, tensor: str) -> None:
    write_tiny_model("llama", tmp_path, tiny_tokenizer())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors[tensor]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=tensor.replace(".", r"\.")):
        load_base(str(tmp_path), None, config_for(tmp_path, quantization=quantization), RUNTIME)


@pytest.mark.parametrize("quantization", ["nf4", "none"])
@pytest.mark.parametrize("tensor", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_a_tensor_of_another_shape_is_refused(tmp_path: Path, quantization: Any, tensor: str) -> None:
    write_tiny_model("llama", tmp_path, tiny_tokenizer())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors[tensor] = tensors[tensor][:-1].clone()
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelError, match=rf"has the shape \({len(tensors[tensor])}, ?.*\) for {re.escape(tensor)}, and the model"
    ):
        load_base(str(tmp_path), None, config_for(tmp_path, quantization=quantization), RUNTIME)


def test_tensors_that_the_model_does_not_use_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tiny_model("llama", tmp_path, tiny_tokenizer())
    config = json.loads((tmp_path / "config.json").read_text()) | {"num_hidden_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    load_base(str(tmp_path), None, config_for(tmp_path, quantization="none"), RUNTIME)
    assert "has model.layers.1.input_layernorm.weight, " in capsys.readouterr().err


def test_adapters_of_a_mixture_of_experts_are_on_attention_only(tmp_path: Path) -> None:
    write_tiny_model("qwen3_moe", tmp_path, tiny_tokenizer())
    config = config_for(tmp_path, quantization="none", lora_r=4)
    adapted = add_adapters(load_base(str(tmp_path), None, config, RUNTIME), config)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".self_attn." in name for name in trained)
    architecture = read_architecture(read_model_config(str(tmp_path), None), "m")
    with pytest.raises(OptionError, match="gate_proj"):
        check_targets(replace(config, targets="gate_proj"), architecture)


def test_adapters_of_a_multimodal_model_are_in_its_text_decoder_only(tmp_path: Path) -> None:
    write_tiny_model("gemma3", tmp_path, tiny_tokenizer())
    config = config_for(tmp_path, quantization="none", lora_r=4, targets="q_proj,v_proj")
    adapted = add_adapters(load_base(str(tmp_path), None, config, RUNTIME), config)
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(".language_model." in name for name in trained)
