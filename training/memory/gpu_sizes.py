"""Which sizes of GPUs a run fits into by the estimate, and with which batch configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from dataprep.common.text import plural
from training.config import RunConfig
from training.errors import NotEnoughMemory
from training.memory.batches import possible_batches
from training.memory.estimate import CUDA_CONTEXT, GIB
from training.memory.layout import Layout
from training.model import attention
from training.model.runtime import Runtime
from training.model.sizes import ModelSizes

if TYPE_CHECKING:
    from training.data.training_data import TrainingData

GPU_SIZES = (8, 12, 16, 24, 40, 48, 80)  # GB as sold
USABLE = 0.97  # of the memory as sold: the driver keeps part of it (an RTX 4090 has 23.5 GiB, an H100 79.2)

DIVISIONS = (2, 4, 8)  # GPUs in a machine, that a model may be divided among

Fits = dict[str, dict[str, Any] | None]  # size -> batch configuration; None: nothing fits


def usable_bytes(size: int) -> int:
    """Bytes that PyTorch can allocate on a GPU sold with `size` GB."""
    return int(size * USABLE * GIB) - CUDA_CONTEXT


def fits_by_size(
    config: RunConfig,
    sizes: ModelSizes,
    layout: Layout | None,
    prepared: TrainingData | None,
    requested: int,
    shards: int = 1,
) -> Fits:
    """For each common size of a GPU, the fastest batch configuration that fits.

    Args:
        layout, prepared: None: packed windows in which every token is trained.
        requested: windows in a step of the optimizer.
        shards: GPUs that the model is divided among.
    """
    packed = layout is None or layout.packed
    runtime = Runtime("cuda:0", "bf16", attention.VARLEN if packed else attention.STOCK, liger=True)
    fits: Fits = {}
    for size in GPU_SIZES:
        try:
            available = usable_bytes(size)
            batches = possible_batches(config, runtime, sizes, requested, prepared, available, layout, shards)
            fits[str(size)] = asdict(batches[0])
        except NotEnoughMemory:
            fits[str(size)] = None
    return fits


def gpus_to_divide(
    fits: Fits,
    config: RunConfig,
    sizes: ModelSizes,
    layout: Layout | None,
    prepared: TrainingData | None,
    requested: int,
) -> dict[str, int | None]:
    """For each size that the model does not fit, the number of such GPUs that hold it with --shard; None: not even 8."""
    gpus: dict[str, int | None] = {size: None for size, batch in fits.items() if batch is None}
    for count in reversed(DIVISIONS):
        divided = fits_by_size(config, sizes, layout, prepared, max(1, requested // count), count)
        gpus |= {size: count for size in gpus if divided[size] is not None}
    return gpus


def fit_lines(fits: Fits, divided: Mapping[str, int | None]) -> list[str]:
    """One line for each different configuration: the GPU sizes that it is the fastest one for.

    Args:
        divided: what `gpus_to_divide` returns.
    """
    lines: dict[str, list[str]] = {}
    for size, batch in fits.items():
        if batch is None:
            gpus = divided.get(size)
            text = "does not fit; lower --max-tokens or --lora-r"
            text += f", or divide the model among {gpus} of them with --shard" if gpus else ""
        else:
            text = (
                f"{plural(batch['micro_batch'], 'row')} in a pass, {plural(batch['checkpoint_layers'], 'layer')} checkpointed, "
                f"{batch['optimizer']}"
            )
        lines.setdefault(text, []).append(size)
    heading = "On a GPU of"
    return [
        f"{heading if index == 0 else '':12}{', '.join(sizes)} GB: {text}"
        for index, (text, sizes) in enumerate(lines.items())
    ]


def fit_sentence(fits: Fits) -> str:
    """Which sizes fit, in one sentence for the log."""
    smallest = next((size for size, batch in fits.items() if batch is not None), None)
    if smallest is None:
        return f"By the estimate this run fits no single GPU of {GPU_SIZES[-1]} GB or less; --shard divides the model."
    return (
        f"By the estimate this run fits a GPU of {smallest} GB or more; `training plan` shows the speed of each size."
    )
