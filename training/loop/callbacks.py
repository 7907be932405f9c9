"""Callbacks of the trainer: metrics.jsonl, the progress display, signals, and the check of the loss."""

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

from dataprep.common.interrupt import Interrupted
from dataprep.common.text import duration
from training.errors import Diverged
from training.run_folder import write_errors

if TYPE_CHECKING:
    import torch
    from rich.progress import Progress, TaskID

LINE_INTERVAL = 30.0  # seconds between progress lines without a terminal
REPEAT_INTERVAL = 1.0  # seconds; launchers forward a signal that processes already got from the terminal: counted once


class MetricsCallback(TrainerCallback):
    """Append one line to metrics.jsonl for each logged step, and end the run if the loss is 0 or not finite."""

    def __init__(self, path: Path, tokens_per_step: float) -> None:
        self.path, self.tokens_per_step = path, tokens_per_step
        self._last_step, self._last_time = 0, time.perf_counter()

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the clock."""
        self._last_step, self._last_time = state.global_step, time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Write the line of this step."""
        if not state.is_world_process_zero or not logs or not logs.keys() & {"loss", "eval_loss"}:
            return
        line = {"step": state.global_step, **logs}
        if "loss" in logs:
            now = time.perf_counter()
            tokens = (state.global_step - self._last_step) * self.tokens_per_step
            line["tokens_per_s"] = round(tokens / max(now - self._last_time, 1e-9), 1)
            self._last_step, self._last_time = state.global_step, now
        with write_errors(str(self.path), self.path.parent), self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        check_loss(logs.get("loss"), state.global_step)


def check_loss(loss: float | None, step: int) -> None:
    """Check a logged loss (None: none was logged).

    Raises:
        Diverged: it is not finite, or exactly 0. The loss of a skipped fp16 step is neither.
    """
    if loss is None:
        return
    if not math.isfinite(loss):
        raise Diverged(
            f"The loss of step {step} is {loss}: lower --lr, use --precision bf16 or fp32, "
            "and look at the build's rows with `training inspect`."
        )
    if loss == 0:
        raise Diverged(
            f"The loss of step {step} is exactly 0, so nothing is trained: look at the labels with `training inspect`."
        )


class SignalCallback(TrainerCallback):
    """End the run after the current step, with a checkpoint, on SIGTERM or Ctrl-C in any of its processes.

    A second signal ends the process at once.
    """

    def __init__(self) -> None:
        self.signal: int | None = None  # the signal that this or another process got
        self._caught_at: float | None = None  # when this process got its own
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> SignalCallback:
        for number in (signal.SIGTERM, signal.SIGINT):
            self._handlers[number] = signal.signal(number, self._catch)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _catch(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self._caught_at is not None:
            if now - self._caught_at > REPEAT_INTERVAL:
                raise Interrupted
            return
        self.signal, self._caught_at = number, now
        message = "Stopping after this step, with a checkpoint. Send the signal again to stop at once."
        print(message, file=sys.stderr, flush=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Save and stop if any process got a signal."""
        number = self.signal if args.world_size == 1 else self._any_process(args.device)
        if number is not None:
            self.signal = number
            control.should_save = True
            control.should_training_stop = True

    def _any_process(self, device: torch.device) -> int | None:
        """The signal that any process got: all must stop after the same step, or they wait for each other forever."""
        import torch
        from torch.distributed import ReduceOp, all_reduce

        caught = torch.tensor(self.signal or 0, device=device)
        all_reduce(caught, ReduceOp.MAX)
        return int(caught) or None


class ProgressCallback(TrainerCallback):
    """Show loss, tokens per second, memory and remaining time: as a bar on a terminal, elsewhere as occasional lines."""

    def __init__(self, tokens_per_step: float) -> None:
        self.tokens_per_step = tokens_per_step
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._loss = float("nan")
        self._start_time, self._start_step, self._line_time = 0.0, 0, 0.0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Start the bar, on a terminal."""
        self._start_time, self._start_step = time.perf_counter(), state.global_step
        if state.is_world_process_zero and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            # a short bar leaves the text a line of 80 columns; the text has the remaining time
            columns = (BarColumn(bar_width=12), MofNCompleteColumn(), TextColumn("{task.description}"))
            self._bar = Progress(*columns, console=Console(stderr=True))
            self._task = self._bar.add_task("", total=state.max_steps, completed=state.global_step)
            self._bar.start()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Keep the last loss."""
        self._loss = (logs or {}).get("loss", self._loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Update the bar, or print a line."""
        if not state.is_world_process_zero:
            return
        now = time.perf_counter()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=state.global_step, description=self._line(state, now))
        elif now - self._line_time > LINE_INTERVAL or state.global_step in (self._start_step + 1, state.max_steps):
            self._line_time = now
            print(f"step {state.global_step}/{state.max_steps} {self._line(state, now)}", file=sys.stderr, flush=True)

    def _line(self, state: TrainerState, now: float) -> str:
        """`loss 1.2345 · 11,000 tokens/s · 8.1 GiB · 60 s left`."""
        import torch

        steps, seconds = state.global_step - self._start_step, now - self._start_time
        rate = steps * self.tokens_per_step / max(seconds, 1e-9)
        memory = f" · {torch.cuda.max_memory_reserved() / 2**30:.1f} GiB" if torch.cuda.is_available() else ""
        remaining = (state.max_steps - state.global_step) * seconds / max(steps, 1)
        loss = f"loss {self._loss:.4f} · " if math.isfinite(self._loss) else ""  # not finite before the first log
        return f"{loss}{rate:,.0f} tokens/s{memory} · {duration(remaining)} left"

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
