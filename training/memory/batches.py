"""The batch configurations that a run can use, ordered by expected speed and filtered by memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from training.errors import NotEnoughMemory
from training.memory.estimate import GIB

RESERVE = 0.06  # share of the memory that is left free for fragmentation of the allocator

# Cost model of a token's forward and backward pass, relative to one without these costs. Measured on an H200 with a 7B
# model (docs/qlora.md).
RECOMPUTE = 0.42  # computing every layer's activations again
DEQUANTIZE_TOKENS = 700  # tokens that could be trained in the time that dequantising a micro-batch's weights takes
LAUNCH_TOKENS = 6600  # a micro-batch of fewer tokens takes as long as launching its kernels


@dataclass(frozen=True)
class BatchConfig:
    """Micro-batch, gradient checkpointing and optimizer: the options that the run may choose by memory."""

    micro_batch: int  # windows in one forward pass
    checkpoint_layers: int
    optimizer: str

    def flags(self) -> str:
        """The command-line flags for this configuration."""
        return f"--micro-batch {self.micro_batch} --checkpoint-layers {self.checkpoint_layers} --optimizer {self.optimizer}"

    def cost(self, layers: int, window: int) -> float:
        """Time per token, relative to one without recomputation, dequantisation and kernel launches."""
        tokens = self.micro_batch * window
        recompute = RECOMPUTE * self.checkpoint_layers / layers
        return max(1 + recompute + DEQUANTIZE_TOKENS / tokens, (1 + recompute) * LAUNCH_TOKENS / tokens)


def candidate_batches(
    layers: int, windows_per_step: int, window: int, fixed: dict[str, Any], *, on_gpu: bool
) -> list[BatchConfig]:
    """All configurations that agree with the options in `fixed`, the fastest by the cost model first."""
    micro_batches = [size for size in range(1, windows_per_step + 1) if windows_per_step % size == 0]
    layer_counts = sorted({0, layers, *(round(layers * eighths / 8) for eighths in range(1, 8))})
    optimizers = ["adamw", "paged_adamw_8bit"] if on_gpu else ["adamw"]
    batches = [
        BatchConfig(micro_batch, checkpointed, optimizer)
        for micro_batch in ([fixed["micro_batch"]] if fixed.get("micro_batch") else micro_batches)
        for checkpointed in (layer_counts if fixed.get("checkpoint_layers") is None else [fixed["checkpoint_layers"]])
        for optimizer in ([fixed["optimizer"]] if fixed.get("optimizer") else optimizers)
    ]
    return sorted(batches, key=lambda batch: (batch.cost(layers, window), batch.optimizer != "adamw"))


def fitting_batches(
    batches: Sequence[BatchConfig],
    need: Callable[[BatchConfig], int],
    available: int,
    alternatives: Sequence[BatchConfig] = (),
) -> list[BatchConfig]:
    """The `batches` whose `need(batch)` (bytes) fits into `available` bytes, in their order.

    Raises:
        NotEnoughMemory: none fits; the message names what the smallest needs, and the first of `alternatives` that fits.
    """

    def that_fit(candidates: Sequence[BatchConfig]) -> list[BatchConfig]:
        return [batch for batch in candidates if need(batch) <= available * (1 - RESERVE)]

    fitting = that_fit(batches)
    if not fitting:
        smallest = min(batches, key=need)
        others = that_fit(alternatives)
        remedy = f"{others[0].flags()} will fit" if others else "lower --max-tokens or --lora-r, or use a larger GPU"
        raise NotEnoughMemory(
            f"{available / GIB:.1f} GiB of GPU memory are available, and {smallest.flags()} needs "
            f"{need(smallest) / GIB / (1 - RESERVE):.1f}: {remedy}."
        )
    return fitting
