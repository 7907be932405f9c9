"""The weights of a merged model: those of the base model as the run saw them, plus the adapter's products."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from training.after.finished_run import FinishedRun
from training.errors import ModelError
from training.model.adapters import saved_modules
from training.model.added_tokens import added_ids, mean_row
from training.model.architecture import read_architecture
from training.model.checkpoint import merge_obstacle, tensor_names, tensor_shapes, weight_files
from training.model.files import read_json_object
from training.model.identity import read_model_config

if TYPE_CHECKING:
    from torch import Tensor


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        ModelError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path)))
    except (OSError, SafetensorError) as fault:
        raise ModelError(f"{path} cannot be read ({fault}): restore the file, or train again.") from None


class BaseWeights:
    """The base model's safetensors files. Weights that bitsandbytes has quantised to 4 bits are read dequantised.

    Raises:
        ModelError: a file is missing or damaged, or a layer's weight is in none of them.
    """

    def __init__(self, run: FinishedRun) -> None:
        from safetensors import SafetensorError, safe_open

        self.device, self.dtype = run.runtime.device, run.runtime.dtype
        self.architecture = read_architecture(read_model_config(run.base_model, run.config.revision), run.base_model)
        self.shards = weight_files(run.base_model, run.config.revision)
        obstacle = merge_obstacle(self.architecture, run.base_model, run.config.revision)
        if obstacle is not None:
            raise ModelError(
                f"The adapter cannot be merged into {run.base_model}, because {obstacle}: load it beside the model with peft."
            )
        self._tensors = tensor_names(self.architecture, tensor_shapes(run.base_model, run.config.revision))
        self.names: set[str] = set()
        self._quantization: dict[str, dict[str, Tensor]] = {}  # by the name of the weight
        for shard in self.shards:
            try:
                with safe_open(str(shard), "pt") as file:
                    for name in file.keys():  # noqa: SIM118 - not a dictionary
                        weight, _, part = name.partition(".weight.")
                        if part:
                            self._quantization.setdefault(f"{weight}.weight", {})[part] = file.get_tensor(name)
                        else:
                            self.names.add(name)
            except (OSError, SafetensorError) as fault:
                raise ModelError(f"{shard} cannot be read ({fault}): restore the file.") from None

    def read(self, shard: Path) -> Iterator[tuple[str, Tensor, bool]]:
        """Name and value of each weight, and whether it was dequantised."""
        import torch
        from bitsandbytes.functional import QuantState, dequantize_4bit

        for name, weight in read_weights(shard).items():
            if name not in self.names:
                continue
            if name in self._quantization:
                parts = {part: value.to(self.device) for part, value in self._quantization[name].items()}
                state = QuantState.from_dict(parts, device=torch.device(self.device))
                state.dtype = self.dtype
                yield name, dequantize_4bit(weight.to(self.device), state), True
            else:
                yield name, weight, False

    def name_of(self, path: str) -> str | None:
        """The checkpoint's name of a layer's weight; None if there is none."""
        return self._tensors.get(f"{path}.weight")


def quantized_names(base: BaseWeights) -> set[str]:
    """The checkpoint's names of the weights that transformers quantises: those of plain linear layers.

    Of a multimodal model only the decoder's: text does not pass through the others, which stay as they are.
    """
    names = [base.name_of(path) for path in base.architecture.quantised_layers()]
    return {name for name in names if name is not None}


def transposed_names(base: BaseWeights) -> set[str]:
    """The checkpoint's names of the weights that are stored as inputs x outputs (GPT-2)."""
    linears = [linear for linear in base.architecture.sizes.linears if linear.transposed]
    names = [base.name_of(base.architecture.sizes.module_path(linear.path)) for linear in linears]
    return {name for name in names if name is not None}


class AdapterProducts:
    """The adapter's low-rank products, by the checkpoint's name of the weight that they are added to.

    Raises:
        ModelError: the base model lacks a weight that the adapter changes.
    """

    def __init__(self, run: FinishedRun, base: BaseWeights) -> None:
        settings = read_json_object(run.folder.adapter / "adapter_config.json")
        rank = settings["r"]
        self.scale = settings["lora_alpha"] / (math.sqrt(rank) if settings.get("use_rslora") else rank)
        self.weights = read_weights(run.folder.adapter / "adapter_model.safetensors")
        self.dtype, self.device = run.runtime.dtype, run.runtime.device
        self.keys: dict[str, tuple[str, str]] = {}  # the weight's name -> the names of A and B in the adapter
        self.untied: set[str] = set()  # embeddings that the output layer shared
        self.merged = 0
        tied = base.architecture.tied
        self.transposed = transposed_names(base)
        self.whole, self.rows = self._trained_layers(run, base)
        self.added = added_ids(run.base_model, run.config)
        for key in self.weights:
            for a, b in ((".lora_A.weight", ".lora_B.weight"), (".lora_embedding_A", ".lora_embedding_B")):
                if not key.endswith(a):
                    continue
                path = key.removesuffix(a).removeprefix("base_model.model.")
                name = base.name_of(path)
                if name is None:
                    raise ModelError(
                        f"The adapter changes {path}, which the files of {run.base_model} lack: train again."
                    )
                self.keys[name] = key, key.removesuffix(a) + b
                if tied and "embedding" in a:
                    self.untied.add(name)

    def _trained_layers(self, run: FinishedRun, base: BaseWeights) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Whole layers (--modules-to-save) and rows of added tokens, by the checkpoint's name of the weight or bias.

        Tied weights are one weight in the checkpoint and may be two in the adapter, with equal values.
        """
        whole: dict[str, Tensor] = {}
        rows: dict[str, Tensor] = {}
        saved = saved_modules(run.config)
        for key, weight in self.weights.items():
            path, _, part = key.removeprefix("base_model.model.").partition(".token_adapter.")
            kind = "bias" if path.endswith(".bias") else "weight"
            layer = path.removesuffix(f".{kind}")
            if part:
                found = rows
            elif layer.rpartition(".")[2] in saved:
                found = whole
            else:
                continue
            name = base.name_of(layer)
            if name is not None:
                found[name.removesuffix("weight") + kind] = weight
            elif not base.architecture.tied:
                raise ModelError(f"The adapter has the layer {layer}, which {run.base_model} lacks: train again.")
        return whole, rows

    def _with_rows(self, name: str, weight: Tensor) -> Tensor:
        """A weight of the embeddings or the output layer with the trained rows of added tokens."""
        import torch

        missing = max(self.added) + 1 - len(weight)
        if missing > 0:
            weight = torch.cat([weight, mean_row(weight).expand(missing, -1)])
        index = torch.tensor(self.added, device=weight.device)
        return weight.index_copy(0, index, self.rows[name].to(weight))

    def _product(self, name: str) -> Tensor:
        """B A, outputs x inputs, in float32."""
        a, b = (self.weights[key].to(self.device).float() for key in self.keys[name])
        return b @ a

    def _dora(self, name: str, weight: Tensor) -> Tensor:
        """Scale each output's row of `weight` (outputs x inputs, float32) to its trained length, if DoRA trained one."""
        key = self.keys[name][0].removesuffix(".lora_A.weight") + ".lora_magnitude_vector"
        if key not in self.weights:
            return weight
        lengths = self.weights[key].to(self.device).float()
        scaled: Tensor = weight * (lengths / weight.norm(dim=1))[:, None]
        return scaled

    def add_to(self, name: str, weight: Tensor, *, quantized: bool) -> Tensor:
        """Return `weight` as the run saw it, with what the adapter changes: in float32."""
        if not weight.is_floating_point():
            return weight
        weight = weight.to(self.device, self.dtype)
        if quantized:  # in blocks of outputs x inputs
            weight = nf4_round_trip(weight.T.contiguous()).T if name in self.transposed else nf4_round_trip(weight)
        if name in self.whole:
            self.merged += name.endswith(".weight")  # a layer's bias does not count
            weight = self.whole[name].to(self.device, self.dtype)
        elif name in self.rows:
            self.merged += 1
            weight = self._with_rows(name, weight)
        if name in self.keys:
            # An embedding is tokens x width, and peft has width x rank and rank x tokens.
            turned = self.keys[name][0].endswith("embedding_A") or name in self.transposed
            original = weight.float().T if turned else weight.float()
            changed = self._dora(name, original + self.scale * self._product(name))
            weight = (changed.T if turned else changed).to(self.dtype)
            self.merged += 1
        return weight.cpu().contiguous()


def nf4_round_trip(weight: Tensor) -> Tensor:
    """Quantise to NF4 with double quantisation and dequantise, as bitsandbytes' Params4bit does (blocks of 64)."""
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    return functional.dequantize_4bit(packed, state)
