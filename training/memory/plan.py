"""`training plan`: memory, tokens, steps and time of a run, before it is started."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from dataprep.common.text import duration, plural
from training.config import RunConfig, check
from training.data.training_data import TrainingData, load_training_data, open_training_build
from training.errors import OptionError
from training.memory.batches import BatchConfig, memory_inputs, possible_batches
from training.memory.choose import available_memory
from training.memory.estimate import CUDA_CONTEXT, GIB, estimate_memory
from training.memory.gpu_sizes import fit_lines, fits_by_size, gpus_to_divide
from training.memory.layout import Layout, choose_layout, layout_notes, windows_for
from training.memory.schedule import requested_windows, step_schedule, step_sentence
from training.model import attention
from training.model.adapters import check_targets, saved_modules
from training.model.added_tokens import load_run_tokenizer, with_added_rows
from training.model.architecture import read_architecture
from training.model.fit import check_rows
from training.model.identity import read_model_config
from training.model.runtime import Runtime, choose_runtime
from training.model.sizes import ModelSizes
from training.run_folder import RunFolder

if TYPE_CHECKING:
    from datasets import Dataset

    from training.memory.probe import Measurement

# Memory (GiB that PyTorch sees), dense 16-bit matrix rate (TFLOP/s, from the data sheets) and precision.
GPUS = {"t4": (14.6, 65, "fp16"), "l4": (22.0, 121, "bf16"), "a100": (79.0, 312, "bf16"), "h100": (79.0, 990, "bf16")}
# Share of the matrix rate that a QLoRA step reaches, measured on an H200 (docs/qlora.md) and assumed for the others.
MATRIX_RATE_SHARE = 0.4
# For each weight, 2 in the forward pass and 2 in the backward pass to the activations: the base has no weight gradients.
FLOP_PER_TOKEN = 4


def plan(options: RunConfig, gpu: str | None) -> tuple[dict[str, Any], list[str]]:
    """Plan a run; returns the plan as JSON and as the lines that the command prints.

    Raises:
        OptionError: `--gpu this` without a GPU.
        NotEnoughMemory: nothing fits; the message names settings that would.
    """
    from training.run import base_model_name

    config = check(options)
    build = open_training_build(config)
    with TemporaryDirectory(prefix="training-") as scratch:
        folder = RunFolder(Path(scratch))
        name = base_model_name(config, build, folder)
        tokenizer = load_run_tokenizer(name, config)
        architecture = with_added_rows(
            read_architecture(read_model_config(name, config.revision), config.model), tokenizer, config
        )
        check_targets(config, architecture)
        prepared = load_training_data(config, build, tokenizer)
        notes = check_rows(architecture, prepared, tokenizer, config.model)
        layout = choose_layout(config, architecture, prepared)
        runtime = _runtime(config, gpu)
        if not layout.packed:
            runtime = replace(runtime, attention=architecture.stock_attention)
        windows, packing = windows_for(layout, config, prepared.train.labelled)
        record, batch = _planned(config, architecture.sizes, layout, prepared, runtime, gpu, len(windows))
        record["fill"] = round(packing.fill, 4)
        record["notes"] = [*notes, *layout_notes(config, architecture, layout, prepared.train.labelled)]
        if gpu not in GPUS and runtime.device != "cpu":
            measured = _measure_step(config, name, windows, runtime, batch, folder, record["accumulate"])
            record["measured"] = _measured_record(measured)
            record["seconds"] = round(record["tokens"] * measured.seconds / measured.tokens, 1)
    return record, list(_lines(record))


def _planned(
    config: RunConfig,
    sizes: ModelSizes,
    layout: Layout,
    prepared: TrainingData,
    runtime: Runtime,
    gpu: str | None,
    windows: int,
) -> tuple[dict[str, Any], BatchConfig]:
    requested = requested_windows(config, windows, layout.step_tokens)
    available = int(GPUS[gpu][0] * GIB) - CUDA_CONTEXT if gpu in GPUS else available_memory(config, runtime)
    batch = possible_batches(config, runtime, sizes, requested, prepared, available, layout)[0]
    schedule = step_schedule(config, batch, windows, requested)
    ledger = prepared.train.labelled.ledger
    tokens = schedule.steps * int(prepared.train.labelled.rows.lengths.sum()) / schedule.steps_per_epoch
    fits = fits_by_size(config, sizes, layout, prepared, requested)
    inputs = memory_inputs(config, runtime, sizes, batch, prepared, layout, accumulates=schedule.accumulate > 1)
    record = {
        "gpu": gpu or runtime.device,
        "room_gib": round(available / GIB, 1) if available is not None else None,
        "choice": asdict(batch),
        "memory_gib": estimate_memory(sizes, inputs).in_gib(),
        "weights": sizes.weights,
        "adapters": sizes.adapter_weights(config.lora_r, config.targets)
        + len(saved_modules(config)) * sizes.vocabulary * sizes.hidden,
        "ledger": ledger.as_record(),
        "lost": ledger.sentences(),
        "windows": windows,
        "packed": layout.packed,
        "accumulate": schedule.accumulate,
        "steps": schedule.steps,
        "tokens_per_step": round(requested * layout.step_tokens),
        "step_note": step_sentence(config, requested, layout.step_tokens),
        "tokens": round(tokens),
        "seconds": _seconds(sizes, tokens, batch, layout, gpu),
        "fits": fits,
        "gpus_to_divide": gpus_to_divide(fits, config, sizes, layout, prepared, requested),
    }
    return record, batch


def _runtime(config: RunConfig, gpu: str | None) -> Runtime:
    if gpu in GPUS:
        implementation = attention.SEGMENTS if gpu == "t4" else attention.VARLEN
        return Runtime("cuda:0", GPUS[gpu][2], implementation, liger=True)
    runtime = choose_runtime(config)
    if gpu == "this" and runtime.device == "cpu":
        raise OptionError(f"--gpu this: PyTorch sees no GPU on this machine; plan for one of {', '.join(GPUS)}.")
    return runtime


def _seconds(sizes: ModelSizes, tokens: float, batch: BatchConfig, layout: Layout, gpu: str | None) -> float | None:
    """Time of the training steps from the GPU's matrix rate; None for a GPU without a known rate."""
    if gpu not in GPUS:
        return None
    flop = FLOP_PER_TOKEN * sizes.active_weights * tokens
    slowdown = batch.cost(sizes.layers, layout.row_tokens)
    return round(flop * slowdown / (GPUS[gpu][1] * 1e12 * MATRIX_RATE_SHARE), 1)


def _measure_step(
    config: RunConfig,
    name: str,
    windows: Dataset,
    runtime: Runtime,
    batch: BatchConfig,
    folder: RunFolder,
    accumulate: int,
) -> Measurement:
    """Measure one pass on the worst batch, on this machine's GPU; `accumulate` passes make a step."""
    from training.loop.arguments import trainer_arguments
    from training.memory.probe import first_that_runs
    from training.run import load_with_new_adapters

    adapted = load_with_new_adapters(name, config, runtime)
    _, measured = first_that_runs(
        adapted,
        [batch],
        windows,
        lambda chosen: trainer_arguments(config, runtime, chosen, folder, accumulate=accumulate, steps=1),
        packed=runtime.packed,
        warm=1,
    )
    return measured


def _measured_record(measured: Measurement) -> dict[str, Any]:
    return {
        "allocated_gib": round(measured.allocated / GIB, 3),
        "reserved_gib": round(measured.reserved / GIB, 3),
        "seconds": measured.seconds,
        "tokens": measured.tokens,
    }


def _lines(record: dict[str, Any]) -> list[str]:
    batch, ledger, memory = record["choice"], record["ledger"], record["memory_gib"]
    limit = f" of {record['room_gib']}" if record["room_gib"] is not None else ""
    lines = [
        f"Model       {record['weights'] / 1e9:.2f} billion weights, {record['adapters'] / 1e6:.1f} million in the adapters",
        f"Data        {plural(ledger['rows'], 'conversation')}, {plural(ledger['tokens_trained'], 'token')} trained, "
        f"{ledger['tokens_masked']:,} masked",
        *(f"            {sentence}" for sentence in [*record["lost"], *record["notes"]]),
        f"{'Windows     ' if record['packed'] else 'Rows        '}{record['windows']}, {record['fill']:.1%} full; "
        f"{plural(record['steps'], 'step')}, {plural(record['tokens'], 'token')}",
        *([f"            {record['step_note']}"] if record["step_note"] else []),
        f"Batch       {plural(batch['micro_batch'], 'window')} in a pass, "
        f"{plural(batch['checkpoint_layers'], 'layer')} checkpointed, "
        f"{batch['optimizer']}",
        f"Memory      {memory['total']:.2f} GiB{limit} on {record['gpu']}, estimated; not all parts exist at the same time:",
        *(
            f"            {part.replace('_', ' '):18} {size:8.2f} GiB"
            for part, size in memory.items()
            if part != "total" and size > 0
        ),
    ]
    lines += fit_lines(record["fits"], record["gpus_to_divide"])
    if record.get("measured"):
        measured = record["measured"]
        lines.append(
            f"Measured    {measured['allocated_gib']:.2f} GiB allocated, {measured['seconds']:.2f} s for "
            f"{plural(measured['tokens'], 'token')}"
        )
    if record["seconds"] is not None:
        lines.append(f"Time        about {duration(record['seconds'])} of training")
    return lines
