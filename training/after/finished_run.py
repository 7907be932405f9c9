"""Open a finished run: its record, options, runtime, tokenizer, build, and model with adapter."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from dataprep.contract import Build
from training.checksums import find_damage
from training.config import TINY, RunConfig, from_record
from training.data.training_data import open_training_build
from training.errors import DataError, ModelError, RunError
from training.log import log_phase
from training.model.added_tokens import load_run_tokenizer
from training.model.base import load_adapted
from training.model.identity import model_revision
from training.model.runtime import Runtime, runtime_of_run
from training.model.tokenizer import ChatTokenizer
from training.run_folder import RunFolder
from training.run_record import RunRecord, has_checksums

if TYPE_CHECKING:
    import torch
    from peft import PeftModel


@dataclass(frozen=True)
class FinishedRun:
    """A run with an adapter, and what it was trained with."""

    folder: RunFolder
    record: RunRecord
    config: RunConfig
    base_model: str  # the name that the base model is loaded by
    runtime: Runtime
    tokenizer: ChatTokenizer


def open_finished_run(path: Path) -> FinishedRun:
    """Open the finished run in the folder `path`.

    Raises:
        RunError: the folder holds no run, or the run has no adapter yet.
        ModelError: the base model is not the one that the run was trained on.
    """
    folder, record = read_finished_run(path)
    config = from_record({**record["options"], **record["operational"]})
    name = str(folder.base) if config.model == TINY else config.model
    revision = record["model"]["revision"]
    if not Path(name).is_dir():
        config = replace(config, revision=revision)  # the commit: a branch may have moved
    elif model_revision(name, None, revision) != revision:
        raise ModelError(f"{name} is not the model that the run in {path} was trained on: restore that model's files.")
    runtime = runtime_of_run(config, record["place"])
    return FinishedRun(folder, record, config, name, runtime, load_run_tokenizer(name, config))


def read_finished_run(path: Path) -> tuple[RunFolder, RunRecord]:
    """The folder and record of the finished run in `path`; its adapter is verified, and its base model need not be there.

    Raises:
        RunError: the folder holds no run, or the run has no adapter yet, or a damaged one.
    """
    folder = RunFolder(path)
    record = folder.read()
    if not (folder.adapter / "adapter_config.json").exists():
        raise RunError(f"The run in {path} has no adapter yet ({record['status']}): continue it with --resume auto.")
    damage = find_damage(folder.adapter, required=has_checksums(record))
    if damage is not None:
        raise RunError(f"The adapter in {folder.adapter} is damaged ({damage}): restore it, or train again.")
    return folder, record


def open_run_build(run: FinishedRun) -> Build:
    """Open the build that the run was trained on.

    Raises:
        DataError: its folder holds another version.
    """
    build = open_training_build(run.config)
    version = run.record["provenance"]["version"]
    if build.manifest.version != version:
        raise DataError(
            f"{run.config.data} holds version {build.manifest.version}, and the run was trained on {version}: "
            "restore that version in this folder."
        )
    return build


def load_run_model(run: FinishedRun) -> PeftModel:
    """Load the base model with the run's adapter."""
    from training.model.output_layer import fuse_output_layer

    log_phase(f"loading {run.config.model} with the adapter")
    adapted = load_adapted(run.base_model, run.config.revision, run.folder.adapter, run.config, run.runtime)
    fuse_output_layer(adapted)
    return adapted


def autocast(runtime: Runtime) -> torch.autocast:
    """Compute in the precision that the run was trained in."""
    import torch

    half = torch.float16 if runtime.precision == "fp16" else torch.bfloat16
    return torch.autocast(runtime.device.split(":")[0], dtype=half, enabled=runtime.precision != "fp32")
