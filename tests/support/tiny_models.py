"""Tiny random models of the architectures that people fine-tune, as folders that transformers opens."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from training.model import attention
from training.model.tiny import train_tokenizer
from training.model.tokenizer import ChatTokenizer

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.3, "max_position_embeddings": 512,
}  # fmt: skip
GPT_SIZES = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512}
ROUTED = {"num_experts_per_tok": 2}
EXPERTS = ROUTED | {"moe_intermediate_size": 32}  # liger reads this width wherever a config has it
LATENT_ATTENTION = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16, "head_dim": 8,
    "n_routed_experts": 4, "first_k_dense_replace": 1, "num_key_value_heads": 4, "n_group": 1, "topk_group": 1,
}  # fmt: skip
STATE_SPACE = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 8, "mamba_chunk_size": 8}
LINEAR_ATTENTION = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8,
}  # fmt: skip
VISION = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
QWEN_ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
QWEN_VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "out_hidden_size": 64}


@dataclass(frozen=True)
class TinyArchitecture:
    """An architecture of transformers: its values besides `SIZES`, and whether its conversations are packed."""

    values: dict[str, Any] = field(default_factory=dict)
    packed: bool = True
    wrapper: bool = False  # `SIZES` belong into text_config


ARCHITECTURES = {
    "llama": TinyArchitecture(),
    "mistral": TinyArchitecture({"sliding_window": 8}),
    "ministral3": TinyArchitecture(),
    "qwen2": TinyArchitecture(),
    "qwen3": TinyArchitecture(),
    "gemma": TinyArchitecture(),
    "gemma2": TinyArchitecture({"query_pre_attn_scalar": 16, "sliding_window": 8}),
    "gemma3_text": TinyArchitecture({"query_pre_attn_scalar": 16, "sliding_window": 8}),
    "phi": TinyArchitecture(),
    "phi3": TinyArchitecture(),
    "olmo2": TinyArchitecture(),
    "olmo3": TinyArchitecture({"sliding_window": 8}),
    "granite": TinyArchitecture(),
    "smollm3": TinyArchitecture(),
    "glm4": TinyArchitecture(),
    "cohere2": TinyArchitecture({"sliding_window": 8}),
    "starcoder2": TinyArchitecture(),
    "exaone4": TinyArchitecture({"sliding_window": 8}),
    "mixtral": TinyArchitecture(ROUTED | {"num_local_experts": 4, "output_router_logits": True}),
    "qwen3_moe": TinyArchitecture(EXPERTS | {"num_experts": 4}),
    "granitemoe": TinyArchitecture(ROUTED | {"num_local_experts": 4}),
    "phimoe": TinyArchitecture(ROUTED | {"num_local_experts": 4, "router_jitter_noise": 0.0, "input_jitter_noise": 0.0}),
    "deepseek_v3": TinyArchitecture(EXPERTS | LATENT_ATTENTION | {"n_shared_experts": 1}),
    "gpt_oss": TinyArchitecture(ROUTED | {"num_local_experts": 4, "sliding_window": 8}),
    "llama4_text": TinyArchitecture(ROUTED | {"num_local_experts": 4, "intermediate_size_mlp": 96}),
    "gpt2": TinyArchitecture(GPT_SIZES),
    "gpt_neox": TinyArchitecture(),
    "opt": TinyArchitecture({"ffn_dim": 96, "word_embed_proj_dim": 64, "dropout": 0.0}),
    "nemotron": TinyArchitecture(packed=False),
    "stablelm": TinyArchitecture(packed=False),
    "falcon": TinyArchitecture({"num_kv_heads": 2, "new_decoder_architecture": True, "alibi": False}, packed=False),
    "gptj": TinyArchitecture(GPT_SIZES | {"rotary_dim": 8}, packed=False),
    "bloom": TinyArchitecture({"n_layer": 2, "n_head": 4}, packed=False),
    "mpt": TinyArchitecture({"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 512}, packed=False),
    "lfm2": TinyArchitecture({"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False}, packed=False),
    "recurrent_gemma": TinyArchitecture(
        {"lru_width": 64, "attention_window_size": 8, "block_types": ["recurrent", "attention"]}, packed=False
    ),
    "bamba": TinyArchitecture(STATE_SPACE | {"attn_layer_indices": [1]}, packed=False),
    "jamba": TinyArchitecture(
        STATE_SPACE | {"num_experts": 2, "attn_layer_offset": 1, "attn_layer_period": 2, "use_mamba_kernels": False},
        packed=False,
    ),
    "falcon_h1": TinyArchitecture(STATE_SPACE | {"mamba_d_ssm": 128}, packed=False),
    "granitemoehybrid": TinyArchitecture(
        ROUTED | STATE_SPACE | {"num_local_experts": 4, "layer_types": ["mamba", "attention"], "shared_intermediate_size": 32},
        packed=False,
    ),
    "qwen3_next": TinyArchitecture(
        EXPERTS | LINEAR_ATTENTION | {"num_experts": 4, "shared_expert_intermediate_size": 32}, packed=False
    ),
    "qwen3_5": TinyArchitecture({"text_config": LINEAR_ATTENTION, "vision_config": QWEN_VISION}, packed=False, wrapper=True),
    "gemma3": TinyArchitecture(
        {
            "text_config": {"model_type": "gemma3_text", "query_pre_attn_scalar": 16, "sliding_window": 8},
            "vision_config": {"model_type": "siglip_vision_model", **VISION},
            "mm_tokens_per_image": 4,
        },
        wrapper=True,
    ),
    "gemma4": TinyArchitecture(
        {
            "text_config": {
                "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8, "hidden_size_per_layer_input": 8,
                "vocab_size_per_layer_input": 345, "global_head_dim": 16, "num_kv_shared_layers": 0,
            },
            "vision_config": VISION, "audio_config": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
        },
        wrapper=True,
    ),
    "aya_vision": TinyArchitecture(
        {"text_config": {"model_type": "cohere2", "sliding_window": 8}, "vision_config": {"model_type": "siglip_vision_model", **VISION}},
        wrapper=True,
    ),
    "mistral3": TinyArchitecture(
        {"text_config": {"model_type": "mistral"}, "vision_config": {"model_type": "pixtral", "head_dim": 16, **VISION}},
        wrapper=True,
    ),
    "qwen2_5_vl": TinyArchitecture(
        {"text_config": QWEN_ROPE, "vision_config": QWEN_VISION | {"fullatt_block_indexes": [0]}}, wrapper=True
    ),
}  # fmt: skip
NO_HEAD_SIZE = ("falcon",)  # whose head_dim cannot be set


def tiny_config(name: str, vocabulary: int) -> Any:
    """The transformers config of a tiny model with `vocabulary` embeddings."""
    from transformers import AutoConfig

    architecture = ARCHITECTURES[name]
    sizes = SIZES | {"vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if name in NO_HEAD_SIZE:
        del sizes["head_dim"]
    if architecture.wrapper:
        values = architecture.values | {"text_config": sizes | architecture.values["text_config"]}
    else:
        values = sizes | architecture.values
    return AutoConfig.for_model(name, **values)


def write_tiny_model(name: str, folder: Path, tokenizer: ChatTokenizer) -> Any:
    """Write a tiny random model with a tokenizer into `folder`; returns the model, in evaluation mode."""
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    config = tiny_config(name, tokenizer.size)
    causal = type(config) in MODEL_FOR_CAUSAL_LM_MAPPING
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForImageTextToText
    torch.manual_seed(0)
    model = auto.from_config(config).eval()
    model.save_pretrained(folder)
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special}))
    return model


def tiny_tokenizer() -> ChatTokenizer:
    """A byte-level tokenizer with the special tokens of Llama 2."""
    return train_tokenizer(["Say apple twice. apple apple. Say moon. moon."], ["<s>", "</s>"], 300)


def tiny_mistral(**settings: Any) -> Any:
    """A Mistral with this project's attention, in evaluation mode."""
    from transformers import MistralConfig, MistralForCausalLM

    attention.register()
    torch.manual_seed(0)
    config = MistralConfig(**SIZES, **settings)
    config._attn_implementation = attention.SEGMENTS
    return MistralForCausalLM(config).eval()
