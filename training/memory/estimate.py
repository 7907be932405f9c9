"""Estimate of a training step's peak GPU memory, by part.

All sizes are in bytes unless a name says GiB. Tokens are those of one micro-batch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import NamedTuple

from training.model.sizes import ModelSizes

GIB = 2**30

# NF4 with double quantisation (QLoRA, section 3): 4 bits, an 8-bit scale per 64 weights, a float32 per 256 scales.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# Two moments per weight. Paged ones are outside PyTorch's allocator, and move to the host when the GPU's memory runs short.
OPTIMIZER_BYTES = {"adamw": 8, "paged_adamw_32bit": 0, "paged_adamw_8bit": 0}
CUDA_CONTEXT = int(0.6 * GIB)  # CUDA's context and its libraries' workspaces, outside PyTorch's allocator
OUTPUT_ROWS = 32768  # rows of the output layer in one of trl's products
GATHERED_LAYERS = 2  # of a divided model: the one that is computed, and the next one, which is being gathered


@dataclass(frozen=True)
class MemoryInputs:
    """What memory depends on besides the model's sizes."""

    micro_tokens: int  # tokens in one forward pass
    trained_tokens: int  # those of them whose logits are computed
    checkpoint_layers: int
    optimizer: str
    rank: int
    targets: str
    quantized: bool
    bytes_per_value: int  # of activations: 2, or 4 in fp32
    fused: bool  # with liger's kernels, norms and MLP keep fewer activations
    dropout: bool
    dora: bool = False
    whole_weights: int = 0  # of the layers that --modules-to-save trains whole
    whole_output: bool = False  # whether the output layer is one of them
    score_tokens: int = 0  # of the longest conversation, if attention keeps its scores; 0: a fused kernel keeps none
    shards: int = 1  # processes that the decoder's layers are divided among
    accumulates: bool = False  # whether a step has several passes, so that gradients exist before the last one


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory by part."""

    weights: int
    adapters: int
    optimizer: int
    gradients: int  # complete at the end of the backward pass
    earlier_gradients: int  # those of the passes before: as many, or none
    layer_inputs: int  # of the checkpointed layers
    activations: int  # of the other layers; freed before the first checkpointed layer is computed again
    recomputed: int  # of one checkpointed layer, with the gradients of its widest values
    logits: int
    workspace: int

    @property
    def total(self) -> int:
        """The largest of three moments of the backward pass: its beginning, the first recomputed layer, and its end."""
        permanent = self.weights + self.adapters + self.optimizer + self.workspace
        beginning = self.earlier_gradients + self.layer_inputs + max(self.activations + self.logits, self.recomputed)
        return permanent + max(beginning, self.gradients + self.recomputed)

    def in_gib(self) -> dict[str, float]:
        """GiB by part and in total."""
        return {name: round(value / GIB, 3) for name, value in {**asdict(self), "total": self.total}.items()}


class _Sums(NamedTuple):
    """Sums over a model's linear layers."""

    adapter_weights: int
    adapted_per_layer: float
    adapted_outputs: int
    linear_weights: int
    largest_linear: int
    input_widths: int


@lru_cache(maxsize=16)  # a choice compares hundreds of configurations of one model
def _sums(size: ModelSizes, rank: int, targets: str) -> _Sums:
    return _Sums(
        size.adapter_weights(rank, targets),
        size.adapted_per_layer(targets),
        sum(linear.outputs for linear in size.adapted(targets)),
        sum(linear.inputs * linear.outputs for linear in size.linears),
        size.largest_linear,
        sum(linear.inputs for linear in size.linears),
    )


def estimate_memory(size: ModelSizes, inputs: MemoryInputs) -> MemoryEstimate:
    """Estimate the allocator's peak in a training step."""
    sums = _sums(size, inputs.rank, inputs.targets)
    adapters = sums.adapter_weights + inputs.whole_weights + (sums.adapted_outputs if inputs.dora else 0)
    value_bytes = inputs.bytes_per_value
    layer = layer_activations(size, inputs)
    row = value_bytes * inputs.micro_tokens
    return MemoryEstimate(
        weights=_weights(size, inputs),
        adapters=4 * adapters,
        optimizer=int(OPTIMIZER_BYTES[inputs.optimizer] * adapters),
        gradients=4 * adapters,
        earlier_gradients=4 * adapters if inputs.accumulates else 0,
        layer_inputs=inputs.checkpoint_layers * size.hidden * row,
        activations=(size.layers - inputs.checkpoint_layers) * layer,
        recomputed=layer + size.ffn * row if inputs.checkpoint_layers else 0,
        logits=_logits(size, inputs),
        workspace=2 * sums.largest_linear * value_bytes,  # one layer's dequantised weight and its adapters' products
    )


def _weights(size: ModelSizes, inputs: MemoryInputs) -> int:
    """The base model's weights; of a divided model the process's part, and the layers that are gathered."""
    in_4_bits = size.quantised_weights if inputs.quantized else 0
    whole = in_4_bits * NF4_BYTES + (size.weights - in_4_bits) * inputs.bytes_per_value
    if inputs.shards == 1:
        return int(whole)
    linears = _sums(size, inputs.rank, inputs.targets).linear_weights
    # The scales of NF4 are not divided.
    layers = (
        linears * (0.5 if inputs.quantized else inputs.bytes_per_value) + size.expert_weights * inputs.bytes_per_value
    )
    return int(whole - layers + layers / inputs.shards + GATHERED_LAYERS * layers / size.layers)


def layer_activations(size: ModelSizes, inputs: MemoryInputs) -> int:
    """Bytes that one decoder layer keeps for its backward pass.

    Counted from transformers' Llama with bitsandbytes and peft: a 4-bit layer does not keep its input (its weight has no
    gradient), its adapter keeps the input and the rank-sized product; norms, attention and the gated MLP keep their own.
    """
    value_bytes, hidden, ffn = inputs.bytes_per_value, size.hidden, size.ffn
    query, keys = size.heads * size.head, size.kv_heads * size.head
    # The norms' inputs; without fused kernels the normalised values too.
    norms = 2 * hidden * (value_bytes if inputs.fused else 2 * value_bytes)
    norm_outputs = 2 * hidden * value_bytes  # read by q, k, v and by gate, up
    attention = (query + 2 * keys + query) * value_bytes + 4 * size.heads  # q, k, v, output; a float32 per head
    mlp = (2 + 1 + (0 if inputs.fused else 1)) * ffn * value_bytes  # gate, up, their product, and silu(gate)
    sums = _sums(size, inputs.rank, inputs.targets)
    ranks = sums.adapted_per_layer * inputs.rank * value_bytes
    widths = sums.input_widths / size.layers
    dropout = widths * (value_bytes + 1) if inputs.dropout else 0
    # DoRA keeps each adapted layer's output before it is scaled (training/model/dora.py).
    unscaled = sums.adapted_outputs / size.layers * value_bytes if inputs.dora else 0
    # For each pair of tokens and head: the capped scores, the float32 softmax, the shares, and the mask.
    scores = size.heads * inputs.score_tokens * (4 + 2 * value_bytes + 1)
    return int((norms + norm_outputs + attention + mlp + ranks + dropout + unscaled + scores) * inputs.micro_tokens)


def _logits(size: ModelSizes, inputs: MemoryInputs) -> int:
    """trl's fused head: the trained tokens' hidden states, also in float32, and three tiles of logits.

    Whole logits: those of every token and their gradient; and of the trained tokens a copy, and in float32 logits,
    log-probabilities and their gradient.
    """
    hidden_states = inputs.trained_tokens * size.hidden * 6
    # The gradient of an output layer that is trained whole exists before the first activation is freed; so does the part of
    # its float32 weight that is cast for a product.
    rows = min(OUTPUT_ROWS, size.vocabulary)
    whole_output = size.hidden * (4 * size.vocabulary + inputs.bytes_per_value * rows) if inputs.whole_output else 0
    if size.whole_logits:
        trained = inputs.trained_tokens * (inputs.bytes_per_value + 12)
        return size.vocabulary * (2 * inputs.bytes_per_value * inputs.micro_tokens + trained) + whole_output
    tiles = 3 * min(1024, inputs.trained_tokens) * size.vocabulary * 4
    return int(tiles + hidden_states + whole_output)
