"""The recipe of a run: a build and a model in, an adapter and run.json out."""

from __future__ import annotations

import shutil
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataprep.contract import Build
from training.config import NOTEBOOK_FAULTS, OPERATIONAL, TINY, RunConfig, as_json, check
from training.data.provenance import provenance
from training.data.training_data import TrainingData, load_training_data, open_training_build
from training.errors import DataError, NotEnoughMemory, Stopped
from training.memory.choose import RunPlan, choose_run_plan
from training.model import attention
from training.model.base import adapters_to_fp32, add_adapters, load_base
from training.model.runtime import Runtime, choose_runtime
from training.model.sizes import check_model_fits, model_revision, read_model_config
from training.model.tokenizer import ChatTokenizer, load_tokenizer
from training.run_folder import RUN, RunFolder, library_versions, prepare_folder, refuse_changes, truncate_metrics

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import TrainerCallback


# What a run is held to when it goes on: entries of run.json. (Its pace and packing are compared when they are settled.)
BOUND = ("bond", "model", "options", "place")
GONE_ON = "The run has gone on with"


def log(text: str) -> None:
    """A line of the log, once over all processes."""
    import os

    if os.environ.get("RANK", "0") == "0":
        print(text, file=sys.stderr, flush=True)


def run(config: RunConfig) -> dict[str, Any]:
    """Train an adapter as `config` says; returns run.json's content.

    Raises:
        TrainingError, BuildError: one sentence.
        Stopped: a signal ended the run; its checkpoint is saved.
    """
    config = _in_full(check(config))
    build = open_training_build(config)
    state = _processes(config)
    config = replace(config, out=config.out or _usual_place(config, build))
    assert config.out is not None
    with state.main_process_first():
        folder, checkpoint = prepare_folder(config.out, config.resume) if state.is_main_process else _joined(config.out)
        name = base_model_name(config, build, folder, make=state.is_main_process)
    place = choose_runtime(config)
    vocabulary = load_tokenizer(name, config.revision)
    shape = read_model_config(name, config.revision)
    check_model_fits(shape, vocabulary, place, config.model)
    facts = _facts(config, build, vocabulary, name, place)
    recorded = folder.read() if (folder.path / RUN).exists() else None  # without a checkpoint too: it has its base/
    if recorded is not None:
        refuse_changes(recorded, {part: facts[part] for part in BOUND}, folder.path)
    prepared = load_training_data(config, build, vocabulary)
    _tell(config, prepared, place)
    warn_of_other_template(build, vocabulary)

    versions = library_versions()
    moved = moved_versions(recorded, versions) if recorded is not None else []
    for note in moved:
        log(note)

    adapted = load_with_new_adapters(name, config, place)
    plan = choose_run_plan(config, place, shape, prepared, adapted, folder, recorded, state.num_processes)
    facts |= plan.as_record() | {
        "ledger": _ledgers(prepared),
        "versions": versions,
        "status": "running",
        "notes": [*prepared.notes, *moved],
    }
    if state.is_main_process:
        folder.write(recorded | facts if recorded else facts)
        truncate_metrics(folder.metrics, _step_of(checkpoint))
    log(plan.sentence())
    try:
        return _train(config, place, plan, prepared, adapted, vocabulary, build, folder, checkpoint, name)
    except Stopped:
        raise
    except BaseException as fault:  # whatever ends it, run.json does not say "running" any more
        if state.is_main_process:
            with suppress(OSError):  # perhaps the disk is full
                folder.update(status=f"failed: {fault or type(fault).__name__}")
        raise


def _in_full(config: RunConfig) -> RunConfig:
    """With the whole paths of build and model, which name the same from any folder and on any day.

    `latest` of a run that has begun is the version that it began with: the link moves on, a run does not.
    """
    path = config.data.expanduser().resolve()
    if config.resume == "auto" and config.out is not None and config.data.is_symlink() and (config.out / RUN).exists():
        began = Path(RunFolder(config.out).read()["operational"]["data"])
        if began != path and began.parent == path.parent:
            log(
                f"The run in {config.out} goes on with {began}, which it began with; {config.data} is {path.name} by now."
            )
            path = began
    folder = Path(config.model).expanduser()
    name = str(folder.resolve()) if config.model != TINY and folder.is_dir() else config.model
    return replace(config, data=path, model=name)


def moved_versions(recorded: dict[str, Any], now: dict[str, str]) -> list[str]:
    """The notes of a run that goes on: those on other versions of libraries that it had, and one for those now."""
    before = recorded["versions"]
    other = [
        f"{name} {now.get(name)} (before: {before.get(name)})"
        for name in sorted(before | now)
        if before.get(name) != now.get(name)
    ]
    notes = [note for note in recorded["notes"] if note.startswith(GONE_ON)]
    said = f"{GONE_ON} {', '.join(other)}: its losses may differ from an uninterrupted run's in their last digits."
    return [*notes, said] if other else notes


def base_model_name(config: RunConfig, build: Build, folder: RunFolder, *, make: bool = True) -> str:
    """The name to load the base model by; `tiny` is made here, by the first process of a run that is not begun yet."""
    if config.model != TINY:
        return config.model
    if make and not (folder.path / RUN).exists():
        from training.model import tiny

        shutil.rmtree(folder.base, ignore_errors=True)  # perhaps half of one
        tiny.write_model(folder.base, build, config.seed)
    return str(folder.base.resolve())  # the adapter's settings name it


def load_with_new_adapters(name: str, config: RunConfig, place: Runtime) -> PeftModel:
    """The base model with fresh adapters, seeded, ready for a pass."""
    from transformers import set_seed

    from training.loop.trainer import fuse_output_layer
    from training.model.fused_lora import fuse_adapters

    set_seed(config.seed)
    adapted = adapters_to_fp32(add_adapters(load_base(name, config.revision, config, place), config))
    fuse_output_layer(adapted)
    if place.liger:  # with the other fused kernels
        fuse_adapters(adapted)
    return adapted


def _train(
    config: RunConfig,
    place: Runtime,
    plan: RunPlan,
    prepared: TrainingData,
    adapted: PeftModel,
    vocabulary: ChatTokenizer,
    build: Build,
    folder: RunFolder,
    checkpoint: Path | None,
    name: str,
) -> dict[str, Any]:
    import torch
    from transformers.trainer_callback import PrinterCallback

    from training.after.adapter import export
    from training.loop.callbacks import Metrics, Progress, Stop, tensorboard
    from training.loop.trainer import QloraTrainer, trainer_arguments

    template = build.manifest.template
    tokenizer = vocabulary.for_transformers(template["end_token"], (build.path / "template.jinja").read_text("utf-8"))
    args = trainer_arguments(config, place, plan.batch, folder, accumulate=plan.accumulate, steps=plan.steps)
    args.eval_on_start = plan.test is not None and checkpoint is None
    watching: list[TrainerCallback] = [Metrics(folder.metrics, plan.tokens_per_step), Progress(plan.tokens_per_step)]
    if config.report_to == "tensorboard" and args.process_index == 0:
        watching.append(tensorboard(folder.tensorboard, _step_of(checkpoint)))
    with Stop() as stop:
        trainer = QloraTrainer(
            adapted,
            args,
            train=plan.windows,
            test=plan.test,
            tokenizer=tokenizer,
            folder=folder,
            config=config,
            choice=plan.batch,
            callbacks=[*watching, stop],
        )
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except torch.OutOfMemoryError as fault:
            raise NotEnoughMemory(
                f"The GPU's memory ran out after step {trainer.state.global_step} ({str(fault).splitlines()[0]}): free the "
                "GPU and go on with --resume auto, or begin anew with a smaller --micro-batch or --memory-gb."
            ) from None
    done = trainer.state.global_step
    if stop.signal is not None and done < plan.steps:
        _note(trainer, folder, {"status": f"stopped at step {done}"})
        raise Stopped(stop.signal, f"Stopped after step {done} of {plan.steps}; go on with --resume auto.")
    return export(trainer, config, plan, prepared, tokenizer, build, folder, name)


def _note(trainer: Any, folder: RunFolder, facts: dict[str, Any]) -> None:
    if trainer.is_world_process_zero():
        folder.update(**facts)


def _processes(config: RunConfig) -> Any:
    """accelerate's state: this process among those that torchrun or `accelerate launch` started."""
    from accelerate import PartialState

    return PartialState(cpu=config.device == "cpu")


def _joined(path: Path) -> tuple[RunFolder, Path | None]:
    """The folder as the first process has prepared it."""
    folder = RunFolder(path)
    whole = folder.complete_checkpoints()
    return folder, whole[-1] if whole else None


def _usual_place(config: RunConfig, build: Build) -> Path:
    return Path("runs") / f"{build.manifest.name}-{build.manifest.version}-{Path(config.model).name}"


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.removeprefix("step-")) if checkpoint else -1


def _ledgers(prepared: TrainingData) -> dict[str, Any]:
    test = prepared.test.labelled.ledger.as_record() if prepared.test else None
    return {"rows": prepared.rows, "train": prepared.train.labelled.ledger.as_record(), "test": test}


def _facts(config: RunConfig, build: Build, vocabulary: ChatTokenizer, name: str, place: Runtime) -> dict[str, Any]:
    options = as_json(config)
    return {
        "bond": provenance(build, vocabulary),
        "model": {"name": config.model, "revision": model_revision(name, config.revision)},
        "options": {key: value for key, value in options.items() if key not in OPERATIONAL},
        "operational": {key: value for key, value in options.items() if key in OPERATIONAL},
        "place": {**asdict(place), "device": place.device.partition(":")[0]},  # its number may be another next time
        "template": dict(build.manifest.template),
    }


def _tell(config: RunConfig, prepared: TrainingData, place: Runtime) -> None:
    ledger = prepared.train.labelled.ledger
    for note in (*(NOTEBOOK_FAULTS if config.preset == "notebook" else ()), *prepared.notes, *ledger.sentences()):
        log(note)
    if prepared.build.manifest.gate == "failed":
        log("The build's quality gate failed; --allow-failed-gate was said, and run.json records it.")
    kind = "one variable-length kernel" if place.attention == attention.VARLEN else "SDPA, conversation by conversation"
    log(
        f"{ledger.rows} conversations, {ledger.tokens_trained} tokens trained and {ledger.tokens_masked} masked; "
        f"on {place.device} in {place.precision}, attention by {kind}{', liger kernels' if place.liger else ''}."
    )
    if not ledger.rows:
        raise DataError("Nothing is left to train on.")


def warn_of_other_template(build: Build, vocabulary: ChatTokenizer) -> str | None:
    """Say when the build was rendered with another template than the model's own, and show both; returns what was said."""
    if vocabulary.chat_template is None:
        return None
    from training.after.prompts import render

    told = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]
    marks = {key: vocabulary.special_token(key) for key in ("bos_token", "eos_token")}
    template = (build.path / "template.jinja").read_text("utf-8")
    try:
        ours = render(template, told, dict(build.manifest.template), answer=False)
        theirs = render(vocabulary.chat_template, told, marks, answer=False)
        if ours.strip() == theirs.strip():
            return None
        message = f"The build's template is not the model's own. The build: {ours!r}  The model: {theirs!r}"
    except DataError as fault:  # some templates want a system text, or tools
        message = f"The build's template could not be compared with the model's own: {fault}"
    log(message)
    return message
