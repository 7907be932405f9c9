"""What a run has decided before its first step, for run.json and for the log."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from dataprep.common.text import plural
from training.data.windows import Packing
from training.memory.batches import BatchConfig
from training.memory.estimate import GIB, MemoryEstimate
from training.memory.gpu_sizes import Fits, fit_sentence
from training.memory.layout import Layout
from training.memory.schedule import StepSchedule
from training.model.runtime import Runtime

if TYPE_CHECKING:
    from datasets import Dataset

    from training.memory.probe import Measurement


@dataclass(frozen=True)
class RunPlan:
    """What was decided before the first step."""

    runtime: Runtime  # with transformers' own attention if the model cannot be packed
    layout: Layout
    batch: BatchConfig
    schedule: StepSchedule
    processes: int
    tokens_per_step: float  # real tokens, on average, over all processes
    packing: Packing
    windows: Dataset  # the packed windows, and empty ones that make their number a multiple of the processes' share
    test: Dataset | None
    estimate: MemoryEstimate
    measured: Measurement | None
    leak: float | None  # None: not packed, so not checked
    off_stock: float | None
    fits: Fits = field(default_factory=dict)  # by size of a GPU
    held: tuple[int, int] | None = None  # bytes of a divided model that this process holds, and of the whole model

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
        measured = asdict(self.measured) if self.measured else {}
        measured.pop("unused", None)  # a note names them
        held = {"held_bytes": self.held[0], "model_bytes": self.held[1]} if self.held else {}
        return {
            "place": self.runtime.as_record(),
            "resolved": {
                **asdict(self.batch),
                "processes": self.processes,
                **self.schedule.as_record(),
                "tokens_per_step": round(self.schedule.requested_windows * self.layout.step_tokens),
            },
            "packing": {
                "windows": len(self.packing.windows),
                "fill": round(self.packing.fill, 4),
                "empty": len(self.windows) - len(self.packing.windows),
            },
            "memory": {"estimate_gib": self.estimate.in_gib(), "measured": measured or None, "fits": self.fits, **held},
            "self_test": {"leak": self.leak, "off_stock": self.off_stock},
        }

    def unused_notes(self) -> list[str]:
        """A note if adapters, or layers that are trained whole, got no gradient in the measured step."""
        unused = self.measured.unused if self.measured else ()
        layers = {path.partition(".lora_")[0].removeprefix("base_model.model.") for path in unused}
        if not layers:
            return []
        names = sorted({path.rpartition(".")[2] for path in layers})
        return [
            f"{plural(len(layers), 'adapted layer')} got no gradient in the measured step ({', '.join(names)}): adapters that "
            "get none stay as they are. --targets can leave them out."
        ]

    def sentence(self) -> str:
        """The plan in one line of the log."""
        batch, schedule = self.batch, self.schedule
        step = f"{schedule.accumulate} x {plural(batch.micro_batch, 'window')}"
        if self.processes > 1:
            step += f" on each of {self.processes} processes"
        if schedule.windows_per_step != schedule.requested_windows:
            step += f" ({schedule.windows_per_step} in a step; --tokens-per-step gives {schedule.requested_windows})"
        count = len(self.packing.windows)
        rows = (
            plural(count, "window") if self.layout.packed else f"{plural(count, 'conversation')} in rows of their own"
        )
        line = (
            f"{rows}, {self.packing.fill:.1%} full; {plural(schedule.steps, 'step')} of {step}, "
            f"{plural(batch.checkpoint_layers, 'layer')} checkpointed, {batch.optimizer}; "
            f"estimated {self.estimate.total / GIB:.1f} GiB"
        )
        if self.measured and self.measured.allocated:
            line += f", measured {self.measured.allocated / GIB:.1f} GiB"
        if self.held:
            held, whole = (size / GIB for size in self.held)
            line += f". Each of the {self.processes} processes holds {held:.2f} of the model's {whole:.2f} GiB"
        line += "."
        return line if self.runtime.device == "cpu" else f"{line} {fit_sentence(self.fits)}"
