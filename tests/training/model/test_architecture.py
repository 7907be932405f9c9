"""What a config.json alone says: exact sizes, and sentences about files that describe no model."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

import pytest

from tests.support.shapes import LLAMA_2_7B
from training.errors import ModelError
from training.model.architecture import read_architecture

MIXTRAL_8X7B = {
    "model_type": "mixtral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "num_local_experts": 8, "num_experts_per_tok": 2,
    "vocab_size": 32000,
}  # fmt: skip


def test_the_weights_of_llama_2_7b_are_counted_exactly() -> None:
    sizes = read_architecture(LLAMA_2_7B, "Llama-2-7B").sizes
    assert sizes.weights == 6_738_415_616
    assert sizes.adapter_weights(64, "all-linear") == 159_907_840
    assert sizes.adapter_weights(64, "q_proj,v_proj") == 2 * 32 * 64 * 8192


def test_the_experts_of_mixtral_are_counted_and_are_not_held_in_4_bits() -> None:
    """https://huggingface.co/mistralai/Mixtral-8x7B-v0.1 has 46,702,792,704 weights."""
    sizes = read_architecture(MIXTRAL_8X7B, "Mixtral").sizes
    assert sizes.weights == 46_702_792_704
    assert sizes.expert_weights == 32 * 8 * 3 * 4096 * 14336
    assert sizes.active_expert_weights == sizes.expert_weights // 4
    assert sizes.quantised_weights == 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024)


def test_the_sizes_of_gpt_2_are_read_under_its_own_names() -> None:
    architecture = read_architecture({"model_type": "gpt2"}, "gpt2")
    assert architecture.sizes.weights == 124_439_808
    assert architecture.positions == 1024
    assert architecture.has_position_table


def test_the_text_part_of_a_multimodal_model_gives_the_sizes() -> None:
    architecture = read_architecture({"model_type": "gemma3"}, "gemma3")
    assert architecture.decoder == "model.language_model"
    assert all("vision" not in linear.path for linear in architecture.sizes.linears)
    assert architecture.sizes.layers == 26


def test_a_linear_layer_beside_the_output_layer_is_quantised_too() -> None:
    architecture = read_architecture({"model_type": "modernbert-decoder", "num_hidden_layers": 1}, "modernbert")
    assert "lm_head.dense" in architecture.quantised_layers()
    assert len(architecture.sizes.linears) == 6
    multimodal = read_architecture({"model_type": "gemma3"}, "gemma3").quantised_layers()
    assert all(path.startswith("model.language_model.") for path in multimodal)


def test_an_encoder_inside_the_decoder_is_none_of_its_layers() -> None:
    sizes = read_architecture({"model_type": "git", "num_hidden_layers": 1}, "git").sizes
    assert sizes.linears and not any("image_encoder" in linear.path for linear in sizes.linears)


@pytest.mark.parametrize("config, match", [
    ({"model_type": "lfm2", "layer_types": ["conv", "full_attention"]}, "recurrent or convolution layers"),
    ({"model_type": "axk2"}, "of the kind .* are not known"),
])  # fmt: skip
def test_layers_of_other_kinds_than_attention_are_an_obstacle_to_packing(config: dict[str, Any], match: str) -> None:
    obstacle = read_architecture(config | {"num_hidden_layers": 2}, "tiny").packing_obstacle
    assert re.search(match, obstacle or "")


@pytest.mark.skipif(find_spec("timm") is not None, reason="timm is installed")
def test_a_library_that_an_architecture_needs_is_named() -> None:
    with pytest.raises(
        ModelError, match=r"not installed \(TimmWrapperModel requires the timm library .*\): install it"
    ):
        read_architecture({"model_type": "gemma3n"}, "gemma-3n")


def test_a_rotary_embedding_that_depends_on_the_longest_row_has_a_limit() -> None:
    rope = {"rope_type": "longrope", "short_factor": [1.0] * 64, "long_factor": [2.0] * 64, "rope_theta": 10000.0,
            "original_max_position_embeddings": 64}  # fmt: skip
    config = {"model_type": "phi3", "hidden_size": 4096, "num_attention_heads": 32, "rope_parameters": rope,
              "max_position_embeddings": 128, "original_max_position_embeddings": 64}  # fmt: skip
    assert read_architecture(config, "phi3").rope_limit == 64
    assert read_architecture(LLAMA_2_7B, "llama").rope_limit is None


@pytest.mark.parametrize("config, match", [
    ({"model_type": "no_such_model"}, "does not know"),
    ({}, "has no model_type"),
    ({"model_type": "clip"}, "cannot load as a language model"),
    ({"model_type": "blip"}, "which needs pixel_values"),
    ({"model_type": "bart"}, "an encoder-decoder"),
    ({"model_type": "blt"}, "not one decoder"),
    ({"model_type": "llama", "hidden_size": "wide"}, "invalid"),
    ({"model_type": "llama", "num_hidden_layers": 10**9}, "asks for 1000000000 layers"),
    ({"model_type": "llama", "num_hidden_layers": 0}, "asks for 0 layers"),
    ({"model_type": "llama", "vocab_size": -5}, "does not describe a model"),
    (LLAMA_2_7B | {"quantization_config": {"quant_method": "gptq", "bits": 4}}, "quantised with gptq: use the model in 16"),
    (LLAMA_2_7B | {"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": True}}, "to 8 bits"),
])  # fmt: skip
def test_a_config_that_describes_no_language_model_is_refused_with_a_sentence(
    config: dict[str, Any], match: str
) -> None:
    with pytest.raises(ModelError, match=match):
        read_architecture(config, "some-model")
