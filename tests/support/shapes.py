"""Contents of config.json files of real models, for tests that need a model's sizes and no weights."""

from __future__ import annotations

from training.model.architecture import read_architecture
from training.model.sizes import ModelSizes

LLAMA_2_7B = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000, "model_type": "llama",
}  # fmt: skip


def llama_2_7b_sizes() -> ModelSizes:
    """The sizes of Llama 2 7B."""
    return read_architecture(LLAMA_2_7B, "Llama-2-7B").sizes
