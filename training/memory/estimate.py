"""What a run takes: memory by part, and the choice of what was left open. Estimated first, then measured (run.py).

All sizes in bytes unless said otherwise. Tokens are those of one micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.errors import MemoryShort

GIB = 2**30

# NF4 with double quantisation (QLoRA, section 3): 4 bits, an 8-bit scale for 64 weights, a float for 256 scales.
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
# Two moments a weight; paged ones are on the GPU while there is room, so that they count like the others.
OPTIMIZER_BYTES = {"adamw": 8, "paged_adamw_32bit": 8, "paged_adamw_8bit": 2.03}
RESERVE = 0.06  # of the memory that is left to the allocator's gaps
CONTEXT = int(0.6 * GIB)  # CUDA's own context and its libraries' workspaces, outside the allocator

# Cost model for the choice, relative to a token's forward and backward pass, measured on an H200 with a 7B model
# (docs/qlora.md): what computing every layer again adds; the tokens that could be trained while a micro-batch's weights are
# dequantised; and the tokens below which a micro-batch takes as long as the launching of its kernels.
RECOMPUTE = 0.42
DEQUANTIZE_TOKENS = 700
LAUNCH_TOKENS = 6600


@dataclass(frozen=True)
class Weights:
    """Numbers of weights: `linear` those of the layers that are held in 4 bits, `rest` all others."""

    linear: int
    rest: int

    @property
    def total(self) -> int:
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
        """In and out of each linear layer of a decoder layer, by name."""
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


def dimensions(shape: dict[str, Any]) -> Dimensions:
    """Read a config.json; Llama's names, which most decoders share."""
    heads = int(shape.get("num_attention_heads", 1))
    hidden = int(shape.get("hidden_size", 0))
    return Dimensions(
        hidden=hidden,
        ffn=int(shape.get("intermediate_size") or 4 * hidden),
        layers=int(shape.get("num_hidden_layers", 0)),
        heads=heads,
        kv_heads=int(shape.get("num_key_value_heads") or heads),
        head=int(shape.get("head_dim") or hidden // heads),
        vocabulary=int(shape.get("vocab_size", 0)),
        tied=bool(shape.get("tie_word_embeddings", False)),
    )


def count_weights(shape: dict[str, Any]) -> Weights:
    """The weights of a decoder of this shape."""
    size = dimensions(shape)
    linear = size.layers * sum(a * b for a, b in size.linears.values())
    embeddings = size.vocabulary * size.hidden * (1 if size.tied else 2)
    return Weights(linear, embeddings + (2 * size.layers + 1) * size.hidden)


def count_adapters(shape: dict[str, Any], rank: int, targets: str) -> int:
    """The adapters' weights: rank times (in + out) for each adapted layer."""
    size = dimensions(shape)
    chosen = size.linears if targets == "all-linear" else {name.strip() for name in targets.split(",")}
    return size.layers * sum(rank * sum(sides) for name, sides in size.linears.items() if name in chosen)


@dataclass(frozen=True)
class Load:
    """What memory depends on besides the model's shape."""

    micro_tokens: int  # tokens in one forward pass
    trained_tokens: int  # of them, those whose logits are computed
    checkpoint_layers: int
    optimizer: str
    rank: int
    targets: str
    quantized: bool
    bytes_per_value: int  # of activations: 2, or 4 in fp32
    fused: bool  # liger's kernels: norms and MLP keep less
    dropout: bool


@dataclass(frozen=True)
class Estimate:
    """Peak memory by part."""

    weights: int
    adapters: int
    optimizer: int
    gradients: int  # whole at the end of the backward pass, when the activations are gone
    activations: int  # whole at its beginning, when there are no gradients yet
    logits: int
    workspace: int

    @property
    def total(self) -> int:
        lasting = self.weights + self.adapters + self.optimizer
        return lasting + max(self.gradients, self.activations + self.logits) + self.workspace

    def table(self) -> dict[str, float]:
        """GiB by part and in total."""
        return {name: round(value / GIB, 3) for name, value in {**asdict(self), "total": self.total}.items()}


def estimate(shape: dict[str, Any], load: Load) -> Estimate:
    """The peak that the allocator will see: where the forward pass ends and the backward pass begins."""
    size, weights = dimensions(shape), count_weights(shape)
    adapters = count_adapters(shape, load.rank, load.targets)
    b = load.bytes_per_value
    layer = layer_activations(size, load)
    kept = (size.layers - load.checkpoint_layers) * layer + load.checkpoint_layers * size.hidden * b * load.micro_tokens
    again = layer if load.checkpoint_layers else 0  # one layer at a time is computed again
    largest = max(a * c for a, c in size.linears.values())
    return Estimate(
        weights=int(weights.linear * (NF4_BYTES if load.quantized else b) + weights.rest * b),
        adapters=4 * adapters,
        optimizer=int(OPTIMIZER_BYTES[load.optimizer] * adapters),
        gradients=4 * adapters,
        activations=int(kept + again),
        logits=_logits(size, load),
        workspace=2 * largest * b,  # a layer's weight, dequantised, and its adapters' products
    )


def layer_activations(size: Dimensions, load: Load) -> int:
    """Bytes that one decoder layer keeps for its backward pass.

    Counted from transformers' Llama with bitsandbytes and peft: a 4-bit layer keeps nothing of its input (its weight has no
    gradient), its adapter keeps the input and the rank-sized product; norms, attention and the gated MLP keep theirs.
    """
    b, hidden, ffn = load.bytes_per_value, size.hidden, size.ffn
    query, keys = size.heads * size.head, size.kv_heads * size.head
    adapted = len(size.linears) if load.targets == "all-linear" else len(load.targets.split(","))
    norms = 2 * hidden * (b if load.fused else 2 * b)  # the input; without fused kernels the normalised one too
    inputs = 2 * hidden * b  # the norms' outputs, shared by q, k, v and by gate, up
    attended = (query + 2 * keys + query) * b + 4 * size.heads  # q, k, v, what comes out, and a float for each head
    mlp = (2 + 1 + (0 if load.fused else 1)) * ffn * b  # gate, up, their product, and silu(gate)
    ranks = adapted * load.rank * b
    dropped = sum(a * (b + 1) for a, _ in size.linears.values()) if load.dropout else 0
    return int((norms + inputs + attended + mlp + ranks + dropped) * load.micro_tokens)


def _logits(size: Dimensions, load: Load) -> int:
    """trl's fused head: the trained tokens' hidden states, in float32 once more, and three tiles of logits."""
    tile = 3 * 1024 * size.vocabulary * 4
    return int(min(tile, 3 * load.trained_tokens * size.vocabulary * 4) + load.trained_tokens * size.hidden * 6)


@dataclass(frozen=True)
class Choice:
    """What was left open, decided: windows in a forward pass, checkpointed layers, optimiser."""

    micro_batch: int
    checkpoint_layers: int
    optimizer: str

    def flags(self) -> str:
        """The choice as one would set it by hand."""
        return f"--micro-batch {self.micro_batch} --checkpoint-layers {self.checkpoint_layers} --optimizer {self.optimizer}"

    def cost(self, layers: int, window: int) -> float:
        """Time for one token, relative to one without recomputing or launching."""
        tokens = self.micro_batch * window
        again = RECOMPUTE * self.checkpoint_layers / layers
        return max(1 + again + DEQUANTIZE_TOKENS / tokens, (1 + again) * LAUNCH_TOKENS / tokens)


def candidates(layers: int, windows_per_step: int, window: int, fixed: dict[str, Any], *, on_gpu: bool) -> list[Choice]:
    """All choices that agree with what the user `fixed`, the fastest by the cost model first."""
    micros = [n for n in range(1, windows_per_step + 1) if windows_per_step % n == 0]
    steps = sorted({0, layers, *(round(layers * part / 8) for part in range(1, 8))})
    optimizers = ["adamw", "paged_adamw_8bit"] if on_gpu else ["adamw"]
    choices = [
        Choice(micro, checkpointed, optimizer)
        for micro in ([fixed["micro_batch"]] if fixed.get("micro_batch") else micros)
        for checkpointed in (steps if fixed.get("checkpoint_layers") is None else [fixed["checkpoint_layers"]])
        for optimizer in ([fixed["optimizer"]] if fixed.get("optimizer") else optimizers)
    ]
    return sorted(choices, key=lambda c: (c.cost(layers, window), c.optimizer != "adamw"))


def fitting(choices: list[Choice], need: Any, room: int, otherwise: Sequence[Choice] = ()) -> list[Choice]:
    """Those of `choices` whose `need(choice)` (bytes) is within `room`, in their order.

    Raises:
        MemoryShort: none is; says what the smallest needs, and the first of `otherwise` that would fit.
    """

    def fit(these: Sequence[Choice]) -> list[Choice]:
        return [choice for choice in these if need(choice) <= room * (1 - RESERVE)]

    found = fit(choices)
    if not found:
        least = min(choices, key=need)
        would = fit(otherwise)
        cure = f"{would[0].flags()} will fit" if would else "lower --max-tokens or --lora-r, or take a larger GPU"
        raise MemoryShort(
            f"There are {room / GIB:.1f} GiB of GPU memory, and {least.flags()} needs "
            f"{need(least) / GIB / (1 - RESERVE):.1f}: {cure}."
        )
    return found
