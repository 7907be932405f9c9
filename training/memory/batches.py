"""The batch configurations that a run can use, ordered by expected speed and filtered by memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from training.config import RunConfig
from training.errors import NotEnoughMemory, OptionError
from training.memory.estimate import GIB, MemoryInputs, estimate_memory
from training.memory.layout import Layout, longest_row, packed
from training.model.adapters import saved_modules
from training.model.attention import EAGER
from training.model.runtime import Runtime
from training.model.sizes import ModelSizes

if TYPE_CHECKING:
    from training.data.training_data import TrainingData

RESERVE = 0.06  # share of the memory that is left free for fragmentation of the allocator

# Cost model of a token's forward and backward pass, relative to one without these costs. Measured on an H100 with a 7B
# model (docs/qlora.md).
RECOMPUTE = 0.4  # computing every layer's activations again
PASS_TOKENS = 1340  # tokens that could be trained in the time that a micro-batch takes besides: dequantising, its start
LAUNCH_TOKENS = 5400  # a micro-batch of fewer tokens takes as long as launching its kernels
PAGED = 0.07  # a paged optimizer with moments in 8 bits


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
        """Time per token, relative to one without recomputation, paging and what each micro-batch takes."""
        tokens = self.micro_batch * window
        recompute = RECOMPUTE * self.checkpoint_layers / layers
        paged = 0.0 if self.optimizer == "adamw" else PAGED
        return max(1 + recompute + PASS_TOKENS / tokens, (1 + recompute) * LAUNCH_TOKENS / tokens) + paged


def candidate_batches(
    layers: int, windows_per_step: int, window: int, fixed: dict[str, Any], *, on_gpu: bool
) -> list[BatchConfig]:
    """All configurations that agree with the options in `fixed`, the fastest by the cost model first."""
    micro_batches = [size for size in range(1, windows_per_step + 1) if windows_per_step % size == 0]
    optimizers = ["adamw", "paged_adamw_8bit"] if on_gpu else ["adamw"]
    batches = [
        BatchConfig(micro_batch, checkpointed, optimizer)
        for micro_batch in ([fixed["micro_batch"]] if fixed.get("micro_batch") else micro_batches)
        for checkpointed in (
            range(layers + 1) if fixed.get("checkpoint_layers") is None else [fixed["checkpoint_layers"]]
        )
        for optimizer in ([fixed["optimizer"]] if fixed.get("optimizer") else optimizers)
    ]
    return sorted(batches, key=lambda batch: (batch.cost(layers, window), batch.optimizer != "adamw"))


def fitting_batches(
    batches: Sequence[BatchConfig],
    need: Callable[[BatchConfig], int],
    available: int,
    alternatives: Sequence[BatchConfig] = (),
) -> list[BatchConfig]:
    """The first of `batches` whose `need(batch)` (bytes) fits into `available` bytes, and those to try if memory runs out.

    They stay in their order, and each needs at least 5 % less than the one before.

    Raises:
        NotEnoughMemory: none fits; the message names what the smallest needs, and the first of `alternatives` that fits.
    """

    need = cache(need)

    def that_fit(candidates: Sequence[BatchConfig]) -> list[BatchConfig]:
        return [batch for batch in candidates if need(batch) <= available * (1 - RESERVE)]

    fitting = that_fit(batches)
    if not fitting:
        smallest = min(batches, key=need)
        others = that_fit(alternatives)
        remedy = (
            f"{others[0].flags()} will fit"
            if others
            else "lower --max-tokens or --lora-r, use a larger GPU, or --shard with several"
        )
        raise NotEnoughMemory(
            f"{available / GIB:.1f} GiB of GPU memory are available, and {smallest.flags()} needs "
            f"{need(smallest) / GIB / (1 - RESERVE):.1f}: {remedy}."
        )
    smaller = fitting[:1]
    for batch in fitting[1:]:
        if need(batch) <= 0.95 * need(smaller[-1]):
            smaller.append(batch)
    return smaller


def possible_batches(
    config: RunConfig,
    runtime: Runtime,
    sizes: ModelSizes,
    windows_per_step: int,
    prepared: TrainingData | None,
    available: int | None,
    layout: Layout | None = None,
    shards: int = 1,
) -> list[BatchConfig]:
    """The batch configurations to try, fastest first.

    Args:
        available: bytes of GPU memory that the estimate must fit into; None on a CPU.
        layout: how rows are filled; None: packed windows.
        shards: processes that the model is divided among.

    Raises:
        OptionError: more layers to checkpoint than the model has, or a micro-batch that the layout does not allow.
        NotEnoughMemory: nothing fits; the message names settings that would.
    """
    layout, layers = layout or packed(config), sizes.layers
    if (config.checkpoint_layers or 0) > layers:
        raise OptionError(f"--checkpoint-layers is {config.checkpoint_layers}: the model has {layers} layers.")
    fixed = {name: getattr(config, name) for name in ("micro_batch", "checkpoint_layers", "optimizer")}
    fixed = {name: value for name, value in fixed.items() if value is not None}
    if layout.one_row and fixed.setdefault("micro_batch", 1) > 1:
        raise OptionError(f"--micro-batch {config.micro_batch} must be 1 for this model, because {layout.obstacle}.")
    if available is None:  # memory does not limit a CPU run, and one window at a time is as fast as several
        fixed = {"micro_batch": 1, "checkpoint_layers": 0, "optimizer": "adamw"} | fixed
        return candidate_batches(layers, windows_per_step, layout.row_tokens, fixed, on_gpu=False)

    def need(batch: BatchConfig) -> int:
        accumulates = batch.micro_batch < windows_per_step
        inputs = memory_inputs(config, runtime, sizes, batch, prepared, layout, shards, accumulates=accumulates)
        return estimate_memory(sizes, inputs).total

    alternatives = candidate_batches(layers, windows_per_step, layout.row_tokens, {}, on_gpu=True)
    batches = candidate_batches(layers, windows_per_step, layout.row_tokens, fixed, on_gpu=True)
    return fitting_batches(batches, need, available, alternatives)


def memory_inputs(
    config: RunConfig,
    runtime: Runtime,
    sizes: ModelSizes,
    batch: BatchConfig,
    prepared: TrainingData | None,
    layout: Layout | None = None,
    shards: int = 1,
    *,
    accumulates: bool = False,
) -> MemoryInputs:
    """The estimate's inputs for a batch configuration. Without data, every token counts as trained.

    Args:
        accumulates: whether a step has several micro-batches.
    """
    layout = layout or packed(config)
    tokens = batch.micro_batch * layout.row_tokens
    longest = longest_row(prepared) if prepared is not None else layout.row_tokens
    trained_share = 1.0
    if prepared is not None:
        ledger = prepared.train.labelled.ledger
        trained_share = ledger.tokens_trained / max(1, ledger.tokens_trained + ledger.tokens_masked)
    return MemoryInputs(
        micro_tokens=tokens,
        trained_tokens=int(tokens * min(1.0, trained_share * 1.2)),  # the worst window has more than the mean
        checkpoint_layers=batch.checkpoint_layers,
        optimizer=batch.optimizer,
        rank=config.lora_r,
        targets=config.targets,
        quantized=config.quantization == "nf4",
        bytes_per_value=4 if runtime.precision == "fp32" else 2,
        fused=runtime.liger,
        dropout=config.lora_dropout > 0,
        dora=config.dora,
        whole_weights=len(saved_modules(config)) * sizes.vocabulary * sizes.hidden,
        whole_output=sizes.output in saved_modules(config),
        score_tokens=longest if sizes.keeps_scores or runtime.attention == EAGER else 0,
        shards=shards,
        accumulates=accumulates,
    )
