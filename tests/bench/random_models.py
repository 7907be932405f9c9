"""Models with random weights in the shapes of Llama 2, for benchmarks that need real sizes and no download."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.paths import REAL

SHARED_VALUES: dict[str, Any] = {"vocab_size": 32000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
SHAPES: dict[str, dict[str, Any]] = {
    name: SHARED_VALUES
    | dict(
        zip(
            ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
            sizes,
            strict=True,
        )
    )
    for name, sizes in {
        "7b": (4096, 11008, 32, 32, 32),
        "13b": (5120, 13824, 40, 40, 40),
        "70b": (8192, 28672, 80, 64, 8),
    }.items()
}
QUANTISED = ("13b", "70b")  # written in NF4, as bitsandbytes saves them; the others in bf16
SHARD_BYTES = 2e9


def write_model(name: str, folder: Path) -> None:
    """Write a model of `SHAPES` with random weights, in shards, and the Llama 2 tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder.mkdir(parents=True)
    config = LlamaConfig(**SHAPES[name], bos_token_id=1, eos_token_id=2, pad_token_id=0, dtype=torch.bfloat16)
    config.architectures = ["LlamaForCausalLM"]
    if name in QUANTISED:
        config.quantization_config = {
            "quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True, "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8",
        }  # fmt: skip
    config.save_pretrained(folder)
    with torch.device("meta"):
        skeleton = LlamaForCausalLM(config)
    torch.manual_seed(0)
    writer = _Writer(folder)
    quantised: dict[str, dict[str, Any]] = {}  # each matrix of a layer is quantised once, for all layers
    for parameter_name, parameter in skeleton.state_dict().items():
        if name not in QUANTISED or parameter.dim() < 2 or ".layers." not in parameter_name:
            writer.add({parameter_name: _random(parameter_name, parameter.shape)})
            continue
        kind = parameter_name.split(".", 3)[3]
        if kind not in quantised:
            quantised[kind] = _nf4(_random(parameter_name, parameter.shape))
        writer.add({parameter_name + suffix: tensor for suffix, tensor in quantised[kind].items()})
    writer.finish()
    (folder / "tokenizer.json").write_bytes((REAL / "llama2" / "tokenizer.json").read_bytes())
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "tokenizer_class": "LlamaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))


def _random(name: str, shape: Any) -> Any:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    weight = torch.empty(shape, dtype=torch.bfloat16, device=device)
    return (weight.fill_(1) if "norm" in name else weight.normal_(std=0.02)).cpu()


def _nf4(weight: Any) -> dict[str, Any]:
    """The tensors of one quantised weight, by the suffix of their names."""
    import torch
    from bitsandbytes.functional import quantize_4bit

    device = "cuda" if torch.cuda.is_available() else "cpu"
    packed, state = quantize_4bit(weight.to(device), compress_statistics=True, quant_type="nf4")
    tensors = {"": packed} | {f".{name}": value for name, value in state.as_dict(packed=True).items()}
    return {suffix: tensor.cpu() for suffix, tensor in tensors.items()}


class _Writer:
    """Writes tensors to numbered safetensors files of about `SHARD_BYTES`, and their index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.index: dict[str, str] = {}
        self.shard: dict[str, Any] = {}
        self.bytes, self.number = 0, 1

    def add(self, tensors: dict[str, Any]) -> None:
        self.shard |= tensors
        self.bytes += sum(tensor.nbytes for tensor in tensors.values())
        if self.bytes > SHARD_BYTES:
            self._flush()

    def _flush(self) -> None:
        from safetensors.torch import save_file

        name = f"model-{self.number:05d}.safetensors"
        # safetensors refuses tensors that share memory, as the quantised matrices of all layers do
        save_file(
            {key: tensor.clone() for key, tensor in self.shard.items()}, str(self.folder / name), {"format": "pt"}
        )
        self.index.update(dict.fromkeys(self.shard, name))
        self.shard, self.bytes, self.number = {}, 0, self.number + 1

    def finish(self) -> None:
        self._flush()
        content = {"metadata": {}, "weight_map": self.index}
        (self.folder / "model.safetensors.index.json").write_text(json.dumps(content))
