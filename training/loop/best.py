"""The best step of a run by held-out loss (--keep-best), and the end of a run without improvement (--patience)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

History = Sequence[Mapping[str, Any]]  # transformers' log_history: one entry for each logged step or evaluation


def evaluations(history: History) -> list[tuple[int, float]]:
    """Step and held-out loss of each evaluation after a training step."""
    return [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry and entry["step"] > 0]


def best_step(history: History) -> tuple[int, float] | None:
    """The first step with the lowest held-out loss, and that loss; None without an evaluation."""
    return min(evaluations(history), key=lambda evaluation: evaluation[1], default=None)


def patience_exhausted(history: History, patience: int | None) -> bool:
    """Whether the last `patience` evaluations did not lower the held-out loss."""
    best = best_step(history)
    if best is None or patience is None:
        return False
    return sum(step > best[0] for step, _ in evaluations(history)) >= patience


def checkpoint_history(checkpoint: Path) -> History:
    """The history that transformers saved in a checkpoint."""
    history: History = json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))["log_history"]
    return history


class PatienceCallback(TrainerCallback):
    """End the run after an evaluation that exhausts the patience."""

    def __init__(self, patience: int) -> None:
        self.patience = patience

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Stop if the patience is exhausted; the checkpoint of this step is written as that of any evaluation."""
        if patience_exhausted(state.log_history, self.patience):
            control.should_training_stop = True
