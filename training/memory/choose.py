"""What a run decides before its first step: the batch configuration, the windows and the number of steps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from training.config import RunConfig
from training.data.training_data import TrainingData
from training.data.windows import Packing, window_dataset, with_empty_windows
from training.errors import OptionError
from training.memory.batches import BatchConfig, candidate_batches, fitting_batches
from training.memory.estimate import GIB, MemoryEstimate, MemoryInputs, estimate_memory
from training.memory.schedule import StepSchedule, requested_windows, step_schedule
from training.model import attention
from training.model.checks import check_against_stock, check_leaks
from training.model.runtime import Runtime
from training.model.sizes import dimensions
from training.run_folder import RunFolder, refuse_changes
from training.run_record import RunRecord

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel
    from trl.trainer.sft_config import SFTConfig

    from training.memory.probe import Measurement

# Bounds of the leak test: SDPA is bit-equal, but a flash kernel may split the work of another window differently.
LEAK_BOUND = {attention.SEGMENTS: 1e-4, attention.VARLEN: 0.05}
# Bounds of the difference from transformers' own attention: rounding gives 5 % on a random 32-layer 7B model in bf16.
STOCK_BOUND = {"fp32": 1e-3, "bf16": 0.2, "fp16": 0.2}


@dataclass(frozen=True)
class RunPlan:
    """What was decided before the first step."""

    batch: BatchConfig
    schedule: StepSchedule
    processes: int
    tokens_per_step: float  # real tokens, on average, over all processes
    packed: Packing
    windows: Dataset  # the packed windows, and empty ones that make their number a multiple of the processes' share
    test: Dataset | None
    estimate: MemoryEstimate
    measured: Measurement | None
    leak: float
    off_stock: float

    @property
    def steps(self) -> int:
        """Steps of the whole run."""
        return self.schedule.steps

    @property
    def accumulate(self) -> int:
        """Micro-batches that each process accumulates in a step."""
        return self.schedule.accumulate

    def as_record(self) -> dict[str, Any]:
        """The plan as run.json holds it."""
        measured = asdict(self.measured) if self.measured else None
        return {
            "resolved": {**asdict(self.batch), "processes": self.processes, **self.schedule.as_record()},
            "packing": {
                "windows": len(self.packed.windows),
                "fill": round(self.packed.fill, 4),
                "empty": len(self.windows) - len(self.packed.windows),
            },
            "memory": {"estimate_gib": self.estimate.in_gib(), "measured": measured},
            "self_test": {"leak": self.leak, "off_stock": self.off_stock},
        }

    def sentence(self) -> str:
        """The plan in one line of the log."""
        batch, schedule = self.batch, self.schedule
        step = f"{schedule.accumulate} x {batch.micro_batch} windows"
        if self.processes > 1:
            step += f" on each of {self.processes} processes"
        if schedule.windows_per_step != schedule.requested_windows:
            step += f" ({schedule.windows_per_step} in a step; --tokens-per-step asks for {schedule.requested_windows})"
        line = (
            f"{len(self.packed.windows)} windows, {self.packed.fill:.1%} full; {schedule.steps} steps of {step}, "
            f"{batch.checkpoint_layers} layers checkpointed, {batch.optimizer}; "
            f"estimated {self.estimate.total / GIB:.1f} GiB"
        )
        if self.measured and self.measured.allocated:
            line += f", measured {self.measured.allocated / GIB:.1f} GiB"
        return line + "."


def choose_run_plan(
    config: RunConfig,
    runtime: Runtime,
    model_config: dict[str, Any],
    prepared: TrainingData,
    adapted: PeftModel,
    folder: RunFolder,
    recorded: RunRecord | None,
    processes: int,
) -> RunPlan:
    """Pack the windows, check attention, choose the batch configuration and try one step on the worst batch.

    Args:
        recorded: run.json of a run that is resumed, which keeps its batch configuration; None for a new run.

    Raises:
        TrainingError: attention leaks between conversations, or differs from transformers' own.
        NotEnoughMemory: no batch configuration fits.
        RunError: a resumed run would train on other windows or steps than before.
    """
    from training.loop.arguments import trainer_arguments
    from training.memory.probe import first_that_runs

    windows, packed = window_dataset(prepared.train.labelled, config.max_tokens, seed=config.seed)
    requested = requested_windows(config, len(windows))
    leak = check_leaks(adapted, windows, bound=LEAK_BOUND[runtime.attention])
    off_stock = check_against_stock(adapted, windows, bound=STOCK_BOUND[runtime.precision])

    def arguments_for(batch: BatchConfig) -> SFTConfig:
        return trainer_arguments(config, runtime, batch, folder, accumulate=1, steps=1)

    available = available_memory(config, runtime)  # also when resuming: it limits the run to --memory-gb
    if recorded is not None:
        resolved = recorded["resolved"]
        batches = [BatchConfig(resolved["micro_batch"], resolved["checkpoint_layers"], resolved["optimizer"])]
    else:
        share = max(1, round(requested / processes))
        batches = possible_batches(config, runtime, model_config, share, prepared, available)
    batch, measured = first_that_runs(adapted, batches, windows, arguments_for)
    batch = _agree(batch, processes)
    share = batch.micro_batch * processes if processes > 1 else 1  # a single process only has a smaller last batch
    windows = with_empty_windows(windows, share)
    test = None
    if prepared.test is not None:
        test = with_empty_windows(window_dataset(prepared.test.labelled, config.max_tokens, seed=config.seed)[0], share)
    schedule = step_schedule(config, batch, len(windows), requested, processes)
    tokens_per_step = float(prepared.train.labelled.rows.lengths.sum()) / schedule.steps_per_epoch
    estimate = estimate_memory(model_config, memory_inputs(config, runtime, batch, prepared))
    plan = RunPlan(
        batch, schedule, processes, tokens_per_step, packed, windows, test, estimate, measured, leak, off_stock
    )
    if recorded is not None:  # it may be resumed with another number of processes, for example
        record = plan.as_record()
        bound = {"resolved": ("per_step", "steps"), "packing": ("windows", "empty")}
        now = {part: {name: record[part][name] for name in names} for part, names in bound.items()}
        refuse_changes(recorded, now, folder.path)
    return plan


def possible_batches(
    config: RunConfig,
    runtime: Runtime,
    model_config: dict[str, Any],
    windows_per_step: int,
    prepared: TrainingData | None,
    available: int | None,
) -> list[BatchConfig]:
    """The batch configurations to try, fastest first.

    Args:
        available: bytes of GPU memory that the estimate must fit into; None on a CPU.

    Raises:
        OptionError: more layers to checkpoint than the model has.
        NotEnoughMemory: nothing fits; the message names settings that would.
    """
    layers = dimensions(model_config).layers
    if (config.checkpoint_layers or 0) > layers:
        raise OptionError(f"--checkpoint-layers is {config.checkpoint_layers}: the model has {layers} layers.")
    fixed = {name: getattr(config, name) for name in ("micro_batch", "checkpoint_layers", "optimizer")}
    fixed = {name: value for name, value in fixed.items() if value is not None}
    if available is None:  # memory does not limit a CPU run, and one window at a time is as fast as several
        fixed = {"micro_batch": 1, "checkpoint_layers": 0, "optimizer": "adamw"} | fixed
        return candidate_batches(layers, windows_per_step, config.max_tokens, fixed, on_gpu=False)

    def need(batch: BatchConfig) -> int:
        return estimate_memory(model_config, memory_inputs(config, runtime, batch, prepared)).total

    alternatives = candidate_batches(layers, windows_per_step, config.max_tokens, {}, on_gpu=True)
    batches = candidate_batches(layers, windows_per_step, config.max_tokens, fixed, on_gpu=True)
    return fitting_batches(batches, need, available, alternatives)


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


def memory_inputs(
    config: RunConfig, runtime: Runtime, batch: BatchConfig, prepared: TrainingData | None
) -> MemoryInputs:
    """The estimate's inputs for a batch configuration. Without data, every token counts as trained."""
    tokens = batch.micro_batch * config.max_tokens
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
    )


def _agree(batch: BatchConfig, processes: int) -> BatchConfig:
    """Take the first process's choice in all processes."""
    if processes == 1:
        return batch
    from accelerate.utils import broadcast_object_list

    agreed: BatchConfig = broadcast_object_list([batch])[0]
    return agreed
