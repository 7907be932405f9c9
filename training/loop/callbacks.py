"""What goes on beside the training: metrics.jsonl, a progress line, signals, and an eye on the loss."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.errors import Diverged
from training.run_folder import writing

if TYPE_CHECKING:
    import torch


class Metrics(TrainerCallback):
    """Appends one line a logged step to metrics.jsonl, and ends a run whose loss is no number, or exactly 0."""

    def __init__(self, path: Path, tokens_per_step: float) -> None:
        self.path, self.tokens_per_step = path, tokens_per_step
        self.at = (0, time.perf_counter())

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.at = (state.global_step, time.perf_counter())

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not state.is_world_process_zero or not logs or not logs.keys() & {"loss", "eval_loss"}:
            return
        line = {"step": state.global_step, **{name: value for name, value in logs.items() if name != "total_flos"}}
        if "loss" in logs:
            step, then = self.at
            self.at = (state.global_step, time.perf_counter())
            line["tokens_per_s"] = round((self.at[0] - step) * self.tokens_per_step / max(self.at[1] - then, 1e-9), 1)
        with writing(str(self.path), self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        check_loss(logs.get("loss"), state.global_step)


def tensorboard(folder: Path, step: int) -> TrainerCallback:
    """The metrics as TensorBoard's events in `folder`; those after `step`, where a run goes on, count no more."""
    from torch.utils.tensorboard import SummaryWriter
    from transformers.integrations.integration_utils import TensorBoardCallback

    writer = SummaryWriter(str(folder), purge_step=step + 1)
    return TensorBoardCallback(tb_writer=writer)  # type: ignore[no-untyped-call]


def check_loss(loss: float | None, step: int) -> None:
    """Raises:
    Diverged: the loss is no number, or exactly 0. (A skipped fp16 step has a loss like any other.)
    """
    if loss is None:
        return
    if not math.isfinite(loss):
        raise Diverged(
            f"The loss of step {step} is {loss}: lower --lr, take --precision bf16 or fp32, "
            "and look at the rows of the build with `training inspect`."
        )
    if loss == 0:
        raise Diverged(
            f"The loss of step {step} is exactly 0: nothing was trained; look at the labels with `training inspect`."
        )


TWICE = 1.0  # seconds; launchers pass a signal on to processes that have it from the terminal already: asked once


class Stop(TrainerCallback):
    """SIGTERM and Ctrl-C end the run after the step at hand, with a checkpoint; one process that is told ends them all."""

    def __init__(self) -> None:
        self.signal: int | None = None  # that this process got, or another one that it has agreed with
        self._asked: float | None = None  # when this process got its own
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._caught)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _caught(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked is not None:
            if now - self._asked > TWICE:
                raise KeyboardInterrupt
            return
        self.signal, self._asked = number, now
        print("Ending after this step, with a checkpoint (once more ends at once).", file=sys.stderr, flush=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        told = self.signal if args.world_size == 1 else self._agreed(args.device)
        if told is not None:
            self.signal = told
            control.should_save = True
            control.should_training_stop = True

    def _agreed(self, device: torch.device) -> int | None:
        """The signal that any of the processes got: each must stop after the same step, or the others wait for it."""
        import torch
        from torch.distributed import ReduceOp, all_reduce

        caught = torch.tensor(self.signal or 0, device=device)
        all_reduce(caught, ReduceOp.MAX)
        return int(caught) or None


class Progress(TrainerCallback):
    """A bar with loss, tokens a second, time left and memory on a terminal; a line now and then elsewhere."""

    EVERY = 30.0  # seconds between lines where there is no terminal

    def __init__(self, tokens_per_step: float) -> None:
        self.tokens_per_step = tokens_per_step
        self.bar: Any = None
        self.task: Any = None
        self.loss = float("nan")
        self.began, self.first, self.told = 0.0, 0, 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.began, self.first = time.perf_counter(), state.global_step
        if state.is_world_process_zero and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
            self.bar = Progress(*columns, console=Console(stderr=True))
            self.task = self.bar.add_task("", total=state.max_steps, completed=state.global_step)
            self.bar.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        self.loss = (logs or {}).get("loss", self.loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if not state.is_world_process_zero:
            return
        now = time.perf_counter()
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step, description=self.line(state, now))
        elif now - self.told > self.EVERY or state.global_step in (self.first + 1, state.max_steps):
            self.told = now
            print(f"step {state.global_step}/{state.max_steps} {self.line(state, now)}", file=sys.stderr, flush=True)

    def line(self, state: TrainerState, now: float) -> str:
        """`loss 1.234 · 11,000 tokens/s · 8.1 GiB`."""
        import torch

        rate = (state.global_step - self.first) * self.tokens_per_step / max(now - self.began, 1e-9)
        memory = f" · {torch.cuda.max_memory_reserved() / 2**30:.1f} GiB" if torch.cuda.is_available() else ""
        left = (state.max_steps - state.global_step) * (now - self.began) / max(state.global_step - self.first, 1)
        loss = f"loss {self.loss:.4f} · " if math.isfinite(self.loss) else ""  # none was logged yet
        return f"{loss}{rate:,.0f} tokens/s{memory} · {left:.0f} s left"

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
