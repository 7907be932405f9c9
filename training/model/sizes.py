"""A model's sizes, from which its memory and its time are estimated."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch.nn import Module, Parameter


# Names under which peft adapts the experts and routers of a mixture of experts, whatever layer has them. They get no
# adapters: peft computes those of all experts for every token, and NF4 does not hold the experts.
EXPERT_LAYERS = frozenset({"gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"})

# Names of linear layers whose weight the kernels of state-space layers read themselves.
STATE_SPACE_LAYERS = frozenset({"out_proj", "dt_proj"})


class Linear(NamedTuple):
    """A linear layer of the text decoder: its path, and its input and output width."""

    path: str
    inputs: int
    outputs: int
    quantised: bool = True  # whether NF4 holds it
    transposed: bool = False  # the weight is inputs x outputs (GPT-2's Conv1D)

    @property
    def name(self) -> str:
        """The last part of the path, which `--targets` names."""
        return self.path.rpartition(".")[2]


@dataclass(frozen=True, eq=False)  # compared and hashed by identity, so that sums over its layers can be cached
class ModelSizes:
    """The sizes of a decoder that memory and time depend on. Numbers of weights cover the whole model."""

    hidden: int
    ffn: int  # width of the MLP that one token passes through
    layers: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int  # rows of the input embeddings
    linears: tuple[Linear, ...]  # of all decoder layers
    quantised_weights: int  # that NF4 holds in 4 bits
    expert_weights: int  # of experts that are one parameter for a whole layer, which stays in 16 bits
    active_expert_weights: int  # of the experts that one token passes through
    weights: int
    keeps_scores: bool = False  # attention with a soft cap or sinks, which keeps every score for the backward pass
    whole_logits: bool = False  # the loss is computed from the logits of every token (training/model/output_layer.py)
    without_adapter: frozenset[str] = frozenset()  # names of layers that cannot have adapters
    decoder: str = ""  # path of the text decoder within the model
    output: str = ""  # name of the layer with the output layer's weight: that of the embeddings if they are tied

    def module_path(self, path: str) -> str:
        """The path within the model of a layer of its decoder."""
        return f"{self.decoder}.{path}".lstrip(".")

    def adapter_weights(self, rank: int, targets: str) -> int:
        """The adapters' weights: rank x (inputs + outputs) for each adapted layer."""
        return sum(rank * (linear.inputs + linear.outputs) for linear in self.adapted(targets))

    def adapted_per_layer(self, targets: str) -> float:
        """Adapted linear layers in one decoder layer, on average."""
        return len(self.adapted(targets)) / self.layers

    def adapted(self, targets: str) -> list[Linear]:
        """The linear layers that `--targets` gives adapters."""
        names = target_names(targets)
        if names is None:
            return [linear for linear in self.linears if linear.name not in self.without_adapter]
        return [
            linear
            for linear in self.linears
            if any(targets_path(name, self.module_path(linear.path)) for name in names)
        ]

    @property
    def active_weights(self) -> int:
        """Weights of the decoder's linear layers and experts that one token is multiplied with."""
        return sum(linear.inputs * linear.outputs for linear in self.linears) + self.active_expert_weights

    @property
    def largest_linear(self) -> int:
        """Weights of the largest linear layer."""
        return max((linear.inputs * linear.outputs for linear in self.linears), default=0)


def target_names(targets: str) -> list[str] | None:
    """`--targets` as a list of names, or one pattern; None for all-linear."""
    if targets == "all-linear":
        return None
    return [targets] if is_pattern(targets) else [name.strip() for name in targets.split(",")]


def is_pattern(targets: str) -> bool:
    """Whether `--targets` is a regular expression over whole paths, as peft reads a string, rather than names."""
    return any(character in targets for character in r"*+?()[]{}|\^$")


def targets_path(target: str, path: str) -> bool:
    """Whether a name or pattern of `--targets` stands for the layer with this path in the model, by peft's rules."""
    return re.fullmatch(target, path) is not None if is_pattern(target) else f".{path}".endswith(f".{target}")


def text_decoder(model: Any) -> Any:
    """The text model below the output layer; transformers finds another module in some classes (Llama 4, ModernBERT)."""
    from transformers import PreTrainedModel

    decoder = model.get_decoder()
    inner = [child for child in model.children() if isinstance(child, PreTrainedModel)]
    found = decoder is not model and isinstance(decoder, PreTrainedModel)
    return inner[0] if not found and len(inner) == 1 else decoder


def path_within(model: Module, wanted: Module) -> str:
    """The path of a module within the model."""
    found: str = next(path for path, module in model.named_modules() if module is wanted)
    return found


def names_without_adapter(decoder: Module) -> frozenset[str]:
    """Names of layers that cannot have adapters: those of experts and routers, and projections of state-space layers.

    The kernels of state-space layers (Mamba) read the weights of these projections themselves, which would ignore an adapter.
    Some routers are linear layers that return more than one tensor.
    """
    experts = any(is_expert(path, parameter) for path, parameter in decoder.named_parameters())
    names = set(EXPERT_LAYERS) if experts else set()
    for path, module in decoder.named_modules():
        if type(module).__name__.endswith("Router"):
            names.add(path.rpartition(".")[2])
        if "conv1d" in module._modules:
            names |= STATE_SPACE_LAYERS & module._modules.keys()
    return frozenset(names)


def is_expert(path: str, parameter: Parameter) -> bool:
    """Whether a parameter holds all experts of a layer (experts x outputs x inputs)."""
    return ".experts." in path and parameter.dim() == 3
