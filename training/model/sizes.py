"""A model's sizes, read from its config.json without loading the weights."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import ModelError
from training.model.files import CONFIG, locate, read_json_object
from training.model.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    from training.model.runtime import Runtime

CPU_LIMIT = 2_000_000_000  # weights; a larger model takes days to train on a CPU


@dataclass(frozen=True)
class WeightCounts:
    """Numbers of weights: `linear` in the linear layers, which are held in 4 bits, and `rest` in all others."""

    linear: int
    rest: int

    @property
    def total(self) -> int:
        """All weights of the model."""
        return self.linear + self.rest


@dataclass(frozen=True)
class Dimensions:
    """The sizes in a model's config.json that memory depends on."""

    hidden: int
    ffn: int
    layers: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tied: bool

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Input and output width of each linear layer of one decoder layer, by name."""
        query, keys = self.heads * self.head, self.kv_heads * self.head
        return {
            "q_proj": (self.hidden, query),
            "k_proj": (self.hidden, keys),
            "v_proj": (self.hidden, keys),
            "o_proj": (query, self.hidden),
            "gate_proj": (self.hidden, self.ffn),
            "up_proj": (self.hidden, self.ffn),
            "down_proj": (self.ffn, self.hidden),
        }


def dimensions(model_config: dict[str, Any]) -> Dimensions:
    """Read the sizes from the content of a config.json, by the names that Llama and most other decoders use."""
    heads = int(model_config.get("num_attention_heads", 1))
    hidden = int(model_config.get("hidden_size", 0))
    return Dimensions(
        hidden=hidden,
        ffn=int(model_config.get("intermediate_size") or 4 * hidden),
        layers=int(model_config.get("num_hidden_layers", 0)),
        heads=heads,
        kv_heads=int(model_config.get("num_key_value_heads") or heads),
        head=int(model_config.get("head_dim") or hidden // heads),
        vocabulary=int(model_config.get("vocab_size", 0)),
        tied=bool(model_config.get("tie_word_embeddings", False)),
    )


def count_weights(model_config: dict[str, Any]) -> WeightCounts:
    """Count the weights of a decoder with this config.json."""
    size = dimensions(model_config)
    linear = size.layers * sum(inputs * outputs for inputs, outputs in size.linears.values())
    embeddings = size.vocabulary * size.hidden * (1 if size.tied else 2)
    return WeightCounts(linear, embeddings + (2 * size.layers + 1) * size.hidden)


def count_adapter_weights(model_config: dict[str, Any], rank: int, targets: str) -> int:
    """Count the adapters' weights: rank x (inputs + outputs) for each adapted layer."""
    size = dimensions(model_config)
    adapted = size.linears if targets == "all-linear" else {name.strip() for name in targets.split(",")}
    return size.layers * sum(rank * sum(widths) for name, widths in size.linears.items() if name in adapted)


def read_model_config(model: str, revision: str | None) -> dict[str, Any]:
    """Read the model's config.json.

    Raises:
        ModelError: the model has no config.json, or an unreadable one.
    """
    return read_json_object(_config_path(model, revision))


def _config_path(model: str, revision: str | None) -> Path:
    path = locate(model, CONFIG, revision)
    if path is None:
        raise ModelError(f"{model} has no config.json, so it is not a transformers model.")
    return path


def model_revision(model: str, revision: str | None) -> str:
    """Identify the model's files: the commit on the Hub, or a digest of a folder's config.json and file sizes."""
    path = _config_path(model, revision)
    if not Path(model).expanduser().is_dir():
        return path.parent.name
    digest = hashlib.sha256(path.read_bytes())
    for file in sorted(path.parent.glob("*.safetensors")):
        digest.update(f"{file.name}:{file.stat().st_size}".encode())
    return digest.hexdigest()[:16]


def check_model_fits(model_config: dict[str, Any], tokenizer: ChatTokenizer, runtime: Runtime, name: str) -> None:
    """Check that the model has an embedding for every id of the tokenizer, and that this machine can train it.

    Raises:
        ModelError: one of them does not hold.
    """
    if tokenizer.size > int(model_config.get("vocab_size", 0)):
        raise ModelError(
            f"The tokenizer of {name} has {tokenizer.size} ids and the model has {model_config.get('vocab_size')} "
            "embeddings: use the tokenizer that belongs to the model (embeddings are never resized)."
        )
    weights = count_weights(model_config).total
    if runtime.device == "cpu" and weights > CPU_LIMIT:
        raise ModelError(
            f"{name} has {weights / 1e9:.1f} billion weights and this machine has no GPU: QLoRA on it needs a GPU with "
            f"about {max(6.0, weights * 1.1 / 2**30):.0f} GB; --model tiny runs the whole path without one."
        )
