"""What a run decides before its first step: the batch configuration, the windows and the number of steps."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from training.config import RunConfig
from training.data.training_data import TrainingData
from training.data.windows import with_empty_windows
from training.memory.batches import BatchConfig, memory_inputs, possible_batches
from training.memory.estimate import GIB, estimate_memory
from training.memory.gpu_sizes import fits_by_size
from training.memory.layout import Layout, unpacked, windows_for
from training.memory.run_plan import RunPlan
from training.memory.schedule import requested_windows, step_schedule
from training.model.architecture import Architecture
from training.model.attention import PackingUnsupported, set_attention, without_adapters
from training.model.checks import check_against_stock, check_causal, check_leaks
from training.model.runtime import Runtime
from training.model.sharding import held_bytes
from training.run_folder import RunFolder, refuse_changes
from training.run_record import RunRecord

if TYPE_CHECKING:
    from peft import PeftModel
    from trl.trainer.sft_config import SFTConfig


# Bounds of the leak check, relative to the logits' standard deviation. The conversation before or after changes no
# rounding in dense models; experts are computed for all tokens together, which changes the rounding of half precision.
LEAK_BOUND = {"fp32": 1e-4, "bf16": 0.02, "fp16": 0.02}
EXPERTS_LEAK_BOUND = {"fp32": 1e-4, "bf16": 0.06, "fp16": 0.06}
# Bounds of the difference from transformers' own attention: rounding gives 5 % on a random 32-layer 7B model in bf16.
STOCK_BOUND = {"fp32": 1e-3, "bf16": 0.2, "fp16": 0.2}


def choose_run_plan(
    config: RunConfig,
    runtime: Runtime,
    architecture: Architecture,
    layout: Layout,
    prepared: TrainingData,
    adapted: PeftModel,
    folder: RunFolder,
    recorded: RunRecord | None,
    processes: int,
) -> RunPlan:
    """Check packing, choose the batch configuration, try one step on the worst batch, and count the steps.

    A model that turns out to leak between packed conversations is not packed, and its attention is set to transformers' own.

    Args:
        recorded: run.json of a run that is resumed, which keeps its batch configuration; None for a new run.

    Raises:
        NotEnoughMemory: no batch configuration fits.
        ModelError: the model is an encoder.
        RunError: a resumed run would train with another runtime, on other windows, or for other steps than before.
    """
    from training.loop.arguments import trainer_arguments
    from training.memory.probe import first_that_runs

    labelled = prepared.train.labelled
    windows, packing = windows_for(layout, config, labelled)
    leak = off_stock = None
    rounding = (EXPERTS_LEAK_BOUND if architecture.sizes.expert_weights else LEAK_BOUND)[runtime.precision]
    check_causal(adapted, windows, name=config.model, bound=rounding)
    if layout.packed:
        try:
            leak = check_leaks(adapted, windows, bound=rounding)
            off_stock = check_against_stock(adapted, windows, bound=STOCK_BOUND[runtime.precision])
        except PackingUnsupported as obstacle:
            layout, leak = unpacked(labelled, str(obstacle)), None
            runtime = replace(runtime, attention=architecture.stock_attention)
            set_attention(without_adapters(adapted), runtime.attention)
            windows, packing = windows_for(layout, config, labelled)
    requested = requested_windows(config, len(windows), layout.step_tokens)
    per_process = max(1, round(requested / processes))

    def arguments_for(batch: BatchConfig) -> SFTConfig:
        passes = max(1, per_process // batch.micro_batch)
        return trainer_arguments(config, runtime, batch, folder, accumulate=passes, steps=1)

    available = available_memory(config, runtime)  # also when resuming: it limits the run to --memory-gb
    shards = processes if config.shard else 1
    if recorded is not None:
        resolved = recorded["resolved"]
        batches = [BatchConfig(resolved["micro_batch"], resolved["checkpoint_layers"], resolved["optimizer"])]
    else:
        batches = possible_batches(
            config, runtime, architecture.sizes, per_process, prepared, available, layout, shards
        )
    if config.shard:  # processes that compute a model together cannot recover from running out of memory
        batches = [_agree(batches[0], processes)]
    batch, measured = first_that_runs(adapted, batches, windows, arguments_for, packed=layout.packed)
    batch = _agree(batch, processes)
    share = batch.micro_batch * processes if processes > 1 else 1  # a single process only has a smaller last batch
    windows = with_empty_windows(windows, share)
    test = None
    if prepared.test is not None:
        test = with_empty_windows(windows_for(layout, config, prepared.test.labelled)[0], share)
    schedule = step_schedule(config, batch, len(windows), requested, processes)
    inputs = memory_inputs(
        config, runtime, architecture.sizes, batch, prepared, layout, shards, accumulates=schedule.accumulate > 1
    )
    plan = RunPlan(
        runtime=runtime,
        layout=layout,
        batch=batch,
        schedule=schedule,
        processes=processes,
        tokens_per_step=float(labelled.rows.lengths.sum()) / schedule.steps_per_epoch,
        packing=packing,
        windows=windows,
        test=test,
        estimate=estimate_memory(architecture.sizes, inputs),
        fits=fits_by_size(config, architecture.sizes, layout, prepared, requested, shards),
        held=held_bytes(adapted) if config.shard else None,
        measured=measured,
        leak=leak,
        off_stock=off_stock,
    )
    if recorded is not None:  # it may be resumed with another number of processes, for example
        record = plan.as_record()
        bound = {"place": tuple(record["place"]), "resolved": ("per_step", "steps"), "packing": ("windows", "empty")}
        now = {part: {name: record[part][name] for name in names} for part, names in bound.items()}
        refuse_changes(recorded, now, folder.path)
    return plan


def available_memory(config: RunConfig, runtime: Runtime) -> int | None:
    """Bytes of GPU memory that this process may use: free and already reserved memory, at most --memory-gb.

    PyTorch is limited to --memory-gb as a side effect. None on a CPU.
    """
    import torch

    if runtime.device == "cpu":
        return None
    free, _ = torch.cuda.mem_get_info(runtime.device)
    usable = int(free + torch.cuda.memory_reserved(runtime.device))
    if config.memory_gb is None:
        return usable
    limit = int(config.memory_gb * GIB)
    total = torch.cuda.get_device_properties(runtime.device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit / total), runtime.device)
    return min(limit, usable)


def _agree(batch: BatchConfig, processes: int) -> BatchConfig:
    """Take the first process's choice in all processes."""
    if processes == 1:
        return batch
    from accelerate.utils import broadcast_object_list

    agreed: BatchConfig = broadcast_object_list([batch])[0]
    return agreed
