"""Trackers of a run (--report-to): TensorBoard, Weights & Biases, MLflow and Trackio, by transformers' own integrations.

transformers sends the logged metrics, trl's options and the model's configuration. The entries of `tracked_config` are added:
which build was trained on, with which template, and what the ledger counts. Where a tracker writes to, and under which
account, is set as its own documentation says (WANDB_MODE, WANDB_PROJECT, MLFLOW_TRACKING_URI, TRACKIO_DIR, …). Weights are
never sent. A resumed run continues its tracked run, whose id is in run.json.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import (
    MLflowCallback,
    TensorBoardCallback,
    TrackioCallback,
    WandbCallback,
)

from training.errors import OptionError, first_line
from training.run_folder import RunFolder
from training.run_record import RunRecord

PROJECT = "dataprep-training"  # of runs whose environment names no project
# Environment variables by which transformers uploads checkpoints from a folder that they have left by then.
UPLOADS = {"wandb": "WANDB_LOG_MODEL", "mlflow": "HF_MLFLOW_LOG_ARTIFACTS"}
ADVICE = {
    "tensorboard": "look at the folder",
    "wandb": "run `wandb login`, or set WANDB_MODE=offline to write a folder that `wandb sync` sends later",
    "mlflow": "set MLFLOW_TRACKING_URI to a server or a database, such as sqlite:///mlflow.db",
    "trackio": "set TRACKIO_DIR to a folder that can be written",
}

Entries = Mapping[str, str | int | float]


@dataclass(frozen=True)
class TrackedRun:
    """A run as a tracker shows it."""

    name: str
    folder: Path
    config: Entries
    step: int  # that the run is resumed from; -1: a new run
    id: str | None = None  # the tracker's id of a run that is resumed


def tracked_config(record: RunRecord) -> Entries:
    """The build's name@version, template, gate and ledger, and the decided step, by the names that trackers show."""
    data, ledger, resolved = record["provenance"], record["ledger"], record["resolved"]
    counts = {name: count for name, count in ledger["train"].items() if isinstance(count, int)}
    entries: dict[str, str | int | float] = {
        "build": f"{data['build']}@{data['version']}",
        "template": str(data["template"]),
        "gate": data["gate"],
        "base_model": Path(record["model"]["name"]).name,
        "steps": resolved["steps"],
        "tokens_per_step": resolved.get("tokens_per_step", 0),
        **{f"rows/{use}": rows for use, rows in ledger["rows"].items()},
        **{f"ledger/{name}": count for name, count in counts.items()},
    }
    return {f"dataprep/{name}": value for name, value in entries.items()}


@contextmanager
def tracking(kind: str, folder: RunFolder, step: int) -> Iterator[list[TrainerCallback]]:
    """Begin the tracked run of --report-to, and end it with the block; an exception marks it as failed.

    Args:
        kind: `none` or a key of `TRACKERS`.
        step: of the checkpoint that the run is resumed from; -1: a new run.

    Yields:
        The callbacks that report to the tracker.

    Raises:
        OptionError: the tracker cannot begin, or would upload weights.
    """
    if kind == "none":
        yield []
        return
    variable = UPLOADS.get(kind, "")
    if os.environ.get(variable, "false").lower() not in ("false", "0", ""):
        raise OptionError(
            f"{variable} is set, and a run uploads no weights: unset it, and send the run's adapter/ yourself."
        )
    record = folder.read()
    before = record.get("tracked_run", {})
    known = before.get("id") if before.get("tracker") == kind else None
    run = TrackedRun(folder.path.name, folder.path, tracked_config(record), step, known)
    with TRACKERS[kind](run) as (callback, run_id):
        if run_id is not None:
            folder.update(tracked_run={"tracker": kind, "id": run_id})
        yield [callback]


@contextmanager
def _start_errors(kind: str) -> Iterator[None]:
    """Turn any error of a tracker's start into one sentence, as an OptionError."""
    try:
        yield
    except Exception as fault:  # each tracker raises errors of its own
        raise OptionError(
            f"--report-to {kind}: the tracked run cannot begin ({first_line(fault)}): {ADVICE[kind]}."
        ) from None


Started = tuple[TrainerCallback, str | None]  # the callback, and the tracker's id of the run


@contextmanager
def _tensorboard(run: TrackedRun) -> Iterator[Started]:
    """Write events to tensorboard/ in the run's folder; a resumed run replaces the events after its checkpoint."""
    from torch.utils.tensorboard import SummaryWriter

    with _start_errors("tensorboard"):
        writer = SummaryWriter(str(RunFolder(run.folder).tensorboard), purge_step=run.step + 1)
    writer.add_text("dataprep", "\n".join(f"- {name}: {value}" for name, value in run.config.items()))
    yield TensorBoardCallback(tb_writer=writer), None  # type: ignore[no-untyped-call]


@contextmanager
def _wandb(run: TrackedRun) -> Iterator[Started]:
    """Begin a run of Weights & Biases, with its files in wandb/ in the run's folder; it records no terminal output."""
    import wandb

    with _start_errors("wandb"):
        tracked = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run.name,
            id=run.id,
            resume="allow",
            dir=str(run.folder),
            config=dict(run.config),
            settings=wandb.Settings(console="off"),
        )
    try:
        yield WandbCallback(), tracked.id  # type: ignore[no-untyped-call]
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    wandb.finish()


@contextmanager
def _mlflow(run: TrackedRun) -> Iterator[Started]:
    """Begin a run of MLflow, at MLFLOW_TRACKING_URI or MLflow's own default."""
    import mlflow

    with _start_errors("mlflow"):
        mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
        tracked = mlflow.start_run(run_id=run.id, run_name=run.name)
        mlflow.set_tags(dict(run.config))  # parameters cannot change when the run is resumed
    try:
        yield _MLflow(resumed=run.id is not None), tracked.info.run_id
    except BaseException:
        mlflow.end_run("FAILED")
        raise
    mlflow.end_run()


class _MLflow(MLflowCallback):
    """Log transformers' parameters in a new run only: MLflow refuses to change them, as resuming would."""

    def __init__(self, *, resumed: bool) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.resumed = resumed

    def setup(self, args: Any, state: Any, model: Any) -> None:
        """Log the parameters of a new run."""
        if self.resumed:
            self._initialized = self._async_log = True
        else:
            super().setup(args, state, model)  # type: ignore[no-untyped-call]


@contextmanager
def _trackio(run: TrackedRun) -> Iterator[Started]:
    """Begin a run of Trackio. It continues runs by their name, so a new one has a unique name."""
    from trackio import finish

    name = run.id or f"{run.name}-{secrets.token_hex(2)}"
    callback = _Trackio(name, run.config)
    try:
        yield callback, name
    finally:
        if callback._initialized:  # the run ended before transformers ended it
            with redirect_stdout(sys.stderr):
                finish()  # type: ignore[no-untyped-call]


class _Trackio(TrackioCallback):
    """Add the entries of `tracked_config` to Trackio's run, and keep its messages out of stdout."""

    def __init__(self, name: str, config: Entries) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.name, self.config = name, config

    def setup(self, args: Any, state: Any, model: Any, **more: Any) -> None:
        """Begin the run."""
        args.project, args.run_name = os.environ.get("TRACKIO_PROJECT", PROJECT), self.name
        with redirect_stdout(sys.stderr), _start_errors("trackio"):
            super().setup(args, state, model, **more)  # type: ignore[no-untyped-call]
            self._trackio.config.update(dict(self.config), allow_val_change=True)

    def on_train_end(self, *arguments: Any, **more: Any) -> None:
        """End the run."""
        with redirect_stdout(sys.stderr):
            super().on_train_end(*arguments, **more)


TRACKERS: dict[str, Callable[[TrackedRun], AbstractContextManager[Started]]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
    "trackio": _trackio,
}
