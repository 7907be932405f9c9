"""What a run settles before its first step: the choice of what was left open, the windows, the number of steps."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from training.config import TINY, TINY_STEPS, RunConfig
from training.data import holdout as data
from training.data.windows import Packed
from training.errors import OptionError
from training.memory import estimate as memory
from training.memory.estimate import Choice
from training.model.base import Place, attention
from training.run_folder import Folder, refuse_other

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel

    from training.memory.probe import Measured

# Bound of the attention self-test: bit-equal on SDPA; a flash kernel may split a longer window's work otherwise.
LEAK_BOUND = {attention.SEGMENTS: 1e-4, attention.VARLEN: 0.05}
# Bound of what transformers' own attention may give else: rounding, 5 % on the 32 layers of a random 7B model in bf16.
STOCK_BOUND = {"fp32": 1e-3, "bf16": 0.2, "fp16": 0.2}


@dataclass(frozen=True)
class Plan:
    """What was resolved before the first step."""

    choice: Choice
    pace: Pace
    processes: int
    tokens_per_step: float  # real tokens, on average, over all processes
    packed: Packed
    windows: Dataset  # the packed ones, and empty ones that make their number even for the processes
    test: Dataset | None
    estimate: memory.Estimate
    measured: Measured | None
    leak: float
    off_stock: float

    @property
    def steps(self) -> int:
        return self.pace.steps

    @property
    def accumulate(self) -> int:
        return self.pace.accumulate

    def as_json(self) -> dict[str, Any]:
        measured = asdict(self.measured) if self.measured else None
        return {
            "resolved": {**asdict(self.choice), "processes": self.processes, **asdict(self.pace)},
            "packing": {
                "windows": len(self.packed.windows),
                "fill": round(self.packed.fill, 4),
                "empty": len(self.windows) - len(self.packed.windows),
            },
            "memory": {"estimate_gib": self.estimate.table(), "measured": measured},
            "self_test": {"leak": self.leak, "off_stock": self.off_stock},
        }

    def sentence(self) -> str:
        choice, pace = self.choice, self.pace
        batch = f"{pace.accumulate} x {choice.micro_batch} windows"
        if self.processes > 1:
            batch += f" on each of {self.processes} processes"
        if pace.per_step != pace.wanted:
            batch += f" ({pace.per_step} in a step; --tokens-per-step asks for {pace.wanted})"
        said = (
            f"{len(self.packed.windows)} windows, {self.packed.fill:.1%} full; {pace.steps} steps of {batch}, "
            f"{choice.checkpoint_layers} layers checkpointed, {choice.optimizer}; "
            f"estimated {self.estimate.total / memory.GIB:.1f} GiB"
        )
        if self.measured and self.measured.allocated:
            said += f", measured {self.measured.allocated / memory.GIB:.1f} GiB"
        return said + "."


def settle(
    config: RunConfig,
    place: Place,
    shape: dict[str, Any],
    prepared: data.Data,
    adapted: PeftModel,
    folder: Folder,
    recorded: dict[str, Any] | None,
    processes: int,
) -> Plan:
    """Choose what was left open, pack, and try one step on the worst batch. A resumed run keeps what it had."""
    from training.loop.trainer import arguments
    from training.memory import probe

    first, _ = data.windows(prepared.train, config.max_tokens, seed=config.seed)
    wanted = wanted_per_step(config, len(first))
    leak = attention.self_test(adapted, first, bound=LEAK_BOUND[place.attention])
    off_stock = attention.against_stock(adapted, first, bound=STOCK_BOUND[place.precision])

    def args_of(choice: Choice) -> Any:
        return arguments(config, place, choice, folder, accumulate=1, steps=1)

    available = room(config, place)  # also on resume: it holds the run to --memory-gb
    if recorded is not None:
        was = recorded["resolved"]
        choices = [Choice(was["micro_batch"], was["checkpoint_layers"], was["optimizer"])]
    else:
        choices = possible(config, place, shape, max(1, round(wanted / processes)), prepared, available)
    choice, measured = probe.settle(adapted, choices, first, args_of)
    choice = _agreed(choice, processes)
    windows, packed = data.windows(
        prepared.train, config.max_tokens, seed=config.seed, multiple_of=_shared(choice, processes)
    )
    test = _test_windows(config, prepared, choice, processes)
    pace = pace_of(config, choice, len(windows), wanted, processes)
    tokens = float(prepared.train.prepared.rows.lengths.sum()) / pace.steps_an_epoch
    guess = memory.estimate(shape, load_of(config, place, choice, prepared))
    plan = Plan(choice, pace, processes, tokens, packed, windows, test, guess, measured, leak, off_stock)
    if recorded is not None:  # on another number of processes, say
        settled = plan.as_json()
        same = {"resolved": ("per_step", "steps"), "packing": ("windows", "empty")}
        now = {part: {name: settled[part][name] for name in names} for part, names in same.items()}
        refuse_other(recorded, now, folder.path)
    return plan


@dataclass(frozen=True)
class Pace:
    """How windows become steps: `accumulate` micro-batches of each process a step of the optimiser."""

    accumulate: int
    per_step: int  # windows, of all processes
    wanted: int  # of them, by --tokens-per-step: whole micro-batches of all processes come as near to it as they can
    steps_an_epoch: int
    steps: int  # of the whole run


def pace_of(config: RunConfig, choice: Choice, windows: int, wanted: int, processes: int = 1) -> Pace:
    """The pace of a run over `windows` windows, `wanted` of them in a step."""
    at_once = choice.micro_batch * processes
    accumulate = max(1, round(wanted / at_once))
    steps_an_epoch = math.ceil(windows / (at_once * accumulate))
    by_epochs = max(1, round(config.epochs * steps_an_epoch))
    steps = config.max_steps or (min(by_epochs, TINY_STEPS) if config.model == TINY else by_epochs)
    return Pace(accumulate, at_once * accumulate, wanted, steps_an_epoch, steps)


def wanted_per_step(config: RunConfig, windows: int) -> int:
    """Windows in a step, of all processes, by --tokens-per-step."""
    return max(1, min(config.tokens_per_step // config.max_tokens, windows))


def possible(
    config: RunConfig,
    place: Place,
    shape: dict[str, Any],
    per_step: int,
    prepared: data.Data | None,
    available: int | None,
) -> list[Choice]:
    """The choices to try, fastest first: what fits into `available` bytes of GPU memory by the estimate (None: a CPU).

    Raises:
        OptionError: more layers to checkpoint than the model has.
        MemoryShort: nothing fits; names settings that would.
    """
    layers = memory.dimensions(shape).layers
    if (config.checkpoint_layers or 0) > layers:
        raise OptionError(f"--checkpoint-layers is {config.checkpoint_layers}: the model has {layers} layers.")
    fixed = {name: getattr(config, name) for name in ("micro_batch", "checkpoint_layers", "optimizer")}
    fixed = {name: value for name, value in fixed.items() if value is not None}
    if available is None:  # memory is no question there; one window at a time is as fast as any
        fixed = {"micro_batch": 1, "checkpoint_layers": 0, "optimizer": "adamw"} | fixed
        return memory.candidates(layers, per_step, config.max_tokens, fixed, on_gpu=False)

    def need(choice: Choice) -> int:
        return memory.estimate(shape, load_of(config, place, choice, prepared)).total

    free = memory.candidates(layers, per_step, config.max_tokens, {}, on_gpu=True)
    wanted = memory.candidates(layers, per_step, config.max_tokens, fixed, on_gpu=True)
    return memory.fitting(wanted, need, available, otherwise=free)


def room(config: RunConfig, place: Place) -> int | None:
    """Bytes of the GPU's memory that this process may take: what is free and what it already holds, or --memory-gb.

    None on a CPU.
    """
    import torch

    if place.device == "cpu":
        return None
    free, _ = torch.cuda.mem_get_info(place.device)
    whole = free + torch.cuda.memory_reserved(place.device)
    if config.memory_gb is None:
        return int(whole)
    wanted = int(config.memory_gb * memory.GIB)
    torch.cuda.set_per_process_memory_fraction(
        min(1.0, wanted / torch.cuda.get_device_properties(place.device).total_memory), place.device
    )
    return min(wanted, whole)


def load_of(config: RunConfig, place: Place, choice: Choice, prepared: data.Data | None) -> memory.Load:
    """What the estimate needs to know. Without data every token counts as trained."""
    tokens = choice.micro_batch * config.max_tokens
    share = 1.0
    if prepared is not None:
        ledger = prepared.train.prepared.ledger
        share = ledger.tokens_trained / max(1, ledger.tokens_trained + ledger.tokens_masked)
    return memory.Load(
        micro_tokens=tokens,
        trained_tokens=int(tokens * min(1.0, share * 1.2)),  # the worst window has more than the mean
        checkpoint_layers=choice.checkpoint_layers,
        optimizer=choice.optimizer,
        rank=config.lora_r,
        targets=config.targets,
        quantized=config.quantization == "nf4",
        bytes_per_value=4 if place.precision == "fp32" else 2,
        fused=place.liger,
        dropout=config.lora_dropout > 0,
    )


def _agreed(choice: Choice, processes: int) -> Choice:
    """The first process's choice, for all."""
    if processes == 1:
        return choice
    from accelerate.utils import broadcast_object_list

    agreed: Choice = broadcast_object_list([choice])[0]
    return agreed


def _test_windows(config: RunConfig, prepared: data.Data, choice: Choice, processes: int) -> Dataset | None:
    if prepared.test is None:
        return None
    return data.windows(prepared.test, config.max_tokens, seed=config.seed, multiple_of=_shared(choice, processes))[0]


def _shared(choice: Choice, processes: int) -> int:
    """What the number of windows must be a multiple of: one process just has a smaller last batch."""
    return choice.micro_batch * processes if processes > 1 else 1
