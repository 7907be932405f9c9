"""Contents of config.json files of real models, for tests that need a model's sizes and no weights."""

from __future__ import annotations

LLAMA_2_7B = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000, "model_type": "llama",
}  # fmt: skip
