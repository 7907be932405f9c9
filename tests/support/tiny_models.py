"""Tiny random models of several architectures."""

from __future__ import annotations

from typing import Any

import torch

from training.model import attention

SIZES: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "initializer_range": 0.3,
}  # fmt: skip


def tiny_mistral(**settings: Any) -> Any:
    """A Mistral with this project's attention, in evaluation mode."""
    from transformers import MistralConfig, MistralForCausalLM

    attention.register()
    torch.manual_seed(0)
    config = MistralConfig(**SIZES, **settings)
    config._attn_implementation = attention.SEGMENTS
    return MistralForCausalLM(config).eval()
