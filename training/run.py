"""`training run`: train an adapter on a build."""

from __future__ import annotations

import shutil
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dataprep.common.lookup import follows_latest, locate
from dataprep.contract import Build
from training.checksums import find_damage
from training.config import OPERATIONAL, TINY, RunConfig, as_record, check
from training.data.provenance import provenance
from training.data.training_data import TrainingData, load_training_data, open_training_build
from training.errors import DataError, NotEnoughMemory, OptionError, Stopped
from training.log import log, log_phase, log_serving_difference, log_start, log_template_difference
from training.memory.choose import choose_run_plan
from training.memory.layout import choose_layout, layout_notes
from training.memory.run_plan import RunPlan
from training.memory.schedule import step_sentence
from training.metrics import truncate_metrics
from training.model.adapters import adapter_note, add_adapters, check_loadable, check_targets
from training.model.added_tokens import added_ids, added_notes, load_run_tokenizer, read_added_tokens, with_added_rows
from training.model.architecture import read_architecture
from training.model.base import adapters_to_fp32, load_base
from training.model.fit import check_machine, check_rows, merge_notes
from training.model.identity import model_revision, read_model_config
from training.model.initial_adapter import initial_adapter_digest, load_initial_adapter
from training.model.output_layer import WHOLE_LOGITS_NOTE, computes_whole_logits, fuse_output_layer
from training.model.runtime import Runtime, choose_runtime
from training.model.tokenizer import ChatTokenizer, self_contained, written_tokens
from training.run_folder import RunFolder, prepare_folder, refuse_changes
from training.run_lock import lock_run
from training.run_lookup import RUNS
from training.run_record import RunRecord, has_checksums
from training.versions import library_versions, version_notes

if TYPE_CHECKING:
    from accelerate import PartialState
    from peft import PeftModel
    from transformers import TrainerCallback

    from training.loop.trainer import QloraTrainer

T = TypeVar("T")

# Entries of run.json that a resumed run must agree with. (`choose_run_plan` compares its runtime, schedule and windows.)
BOUND = ("provenance", "model", "options")
INSPECTED_ROWS = 100  # for the special tokens that the template writes


@dataclass(frozen=True)
class RunContext:
    """What a run is started with."""

    config: RunConfig
    build: Build
    folder: RunFolder
    checkpoint: Path | None  # to resume from
    base_model: str  # the name that the base model is loaded by
    runtime: Runtime
    tokenizer: ChatTokenizer
    data: TrainingData
    first_process: bool


def run(config: RunConfig) -> RunRecord:
    """Train an adapter; returns the content of run.json. A finished run that is resumed is returned unchanged.

    Raises:
        TrainingError, BuildError: the run is impossible, or failed.
        Stopped: a signal ended the run after its checkpoint was saved.
    """
    config = with_full_paths(check(config))
    build = open_training_build(config)
    processes = _processes(config)
    out = config.out or _default_out(config, build)
    with lock_run(out) if processes.is_main_process else nullcontext():
        return _run_locked(replace(config, out=out), build, out, processes)


def _run_locked(config: RunConfig, build: Build, out: Path, processes: PartialState) -> RunRecord:
    from training.loop.checkpoints import newest_undamaged, step_of

    first = bool(processes.is_main_process)
    with processes.main_process_first():
        folder = prepare_folder(out, config.resume) if first else RunFolder(out)
        name = base_model_name(config, build, folder, create=first)
    if config.shard and processes.num_processes == 1:
        raise OptionError(
            "--shard divides the model among several processes, and there is one: start it with `torchrun "
            "--nproc-per-node 2 -m training.cli run …`, with one process for each GPU."
        )
    runtime = choose_runtime(config)
    tokenizer = load_run_tokenizer(name, config)
    architecture = read_architecture(read_model_config(name, config.revision), config.model)
    architecture = with_added_rows(architecture, tokenizer, config)
    check_targets(config, architecture)
    check_machine(architecture.sizes, runtime, config.model)
    # Even a run without a checkpoint has its base model.
    recorded = folder.read() if folder.record_path.exists() else None
    start = _start_record(config, build, tokenizer, name, recorded)
    if recorded is not None:
        bound = {part: start[part] for part in BOUND} | {"options": _recorded_options(start["options"], recorded)}
        refuse_changes(recorded, bound, folder.path)
        if recorded["status"] == "done" and find_damage(folder.adapter, required=has_checksums(recorded)) is None:
            log(f"The run in {folder.path} is finished: {folder.adapter} is unchanged.")
            return recorded
    data = load_training_data(config, build, tokenizer)
    if config.keep_best and data.test is None:
        raise DataError(
            f"--keep-best needs held-out rows, and {build.path} has none that fit: rebuild with a test split."
        )
    notes = check_rows(architecture, data, tokenizer, config.model)
    notes += added_notes(config, tokenizer)
    notes += merge_notes(architecture, name, config.revision)
    layout = choose_layout(config, architecture, data)
    if not layout.packed:
        runtime = replace(runtime, attention=architecture.stock_attention)
    log_start(config, data, runtime)
    log_template_difference(build, tokenizer)
    log_serving_difference(config, data, tokenizer, name)
    versions = library_versions()
    changed_versions = version_notes(recorded, versions) if recorded is not None else []
    required = recorded is None or has_checksums(recorded)
    checkpoint, damaged = _broadcast(newest_undamaged(folder, required=required) if first else None, processes)
    for note in (*changed_versions, *damaged):
        log(note)
    if damaged:
        log(f"Resuming from {checkpoint}." if checkpoint else "Starting again: no checkpoint is undamaged.")

    log_phase(f"loading {config.model}")
    adapted = load_with_new_adapters(name, config, runtime)
    if computes_whole_logits(adapted):
        architecture = replace(architecture, sizes=replace(architecture.sizes, whole_logits=True))
        notes.append(WHOLE_LOGITS_NOTE)
    plan = choose_run_plan(
        config, runtime, architecture, layout, data, adapted, folder, recorded, processes.num_processes
    )
    runtime = plan.runtime
    notes += [*layout_notes(config, architecture, plan.layout, data.train.labelled), *plan.unused_notes()]
    for note in notes:
        log(note)
    record: dict[str, Any] = {
        **(recorded or {}),  # type: ignore[dict-item]
        **start,
        **plan.as_record(),
        "ledger": _ledgers(data),
        "versions": versions,
        "notes": [*data.notes, *notes, *changed_versions],
        "status": "running",
    }
    if first:
        folder.write(record)
        truncate_metrics(folder.metrics, step_of(checkpoint))
    log(plan.sentence())
    step_note = step_sentence(config, plan.schedule.requested_windows, plan.layout.step_tokens)
    if step_note is not None:
        log(step_note)
    context = RunContext(config, build, folder, checkpoint, name, runtime, tokenizer, data, first)
    try:
        return _train(context, plan, adapted)
    except Stopped:
        raise
    except BaseException as fault:
        if first:
            with suppress(Exception):  # the disk may be full
                folder.update(status=f"failed: {fault or type(fault).__name__}")
        raise


def with_full_paths(config: RunConfig) -> RunConfig:
    """Replace the paths of build and model by absolute ones without links, which stay valid in run.json.

    A run that is resumed keeps the version of the build that it was started with, even if `latest` is another one by now.
    """
    reference = str(config.data.expanduser())
    path = locate(config.store, reference)
    if config.resume == "auto" and config.out is not None and follows_latest(reference):
        folder = RunFolder(config.out)
        if folder.record_path.exists():
            started_with = Path(folder.read()["operational"]["data"])
            if started_with != path and started_with.parent == path.parent:
                log(
                    f"The run in {config.out} continues on {started_with}, with which it was started; "
                    f"{config.data} is now {path.name}."
                )
                path = started_with
    model_folder = Path(config.model).expanduser()
    model = str(model_folder.resolve()) if config.model != TINY and model_folder.is_dir() else config.model
    initial = config.init_adapter.expanduser().resolve() if config.init_adapter is not None else None
    store = config.store.expanduser().resolve()
    tokens = read_added_tokens(config.add_tokens)
    return replace(config, data=path, store=store, model=model, init_adapter=initial, add_tokens=tokens)


def base_model_name(config: RunConfig, build: Build, folder: RunFolder, *, create: bool = True) -> str:
    """The name or folder that the base model is loaded from; creates the model `tiny` in a new run's folder."""
    if config.model != TINY:
        return config.model
    if create and not folder.record_path.exists():
        from training.model import tiny

        shutil.rmtree(folder.base, ignore_errors=True)  # a killed run may have left part of one
        tiny.write_model(folder.base, build, config.seed)
    return str(folder.base.resolve())  # absolute, because the adapter's configuration names it


def load_with_new_adapters(name: str, config: RunConfig, runtime: Runtime) -> PeftModel:
    """Load the base model and add new adapters, initialised from the seed or from --init-adapter."""
    from transformers import set_seed

    from training.model.fused_lora import fuse_adapters

    set_seed(config.seed)
    base = load_base(name, config.revision, config, runtime, shard=config.shard)
    adapted = add_adapters(base, config, added_ids(name, config))
    check_loadable(adapted, config.model)
    if config.init_adapter is not None:
        load_initial_adapter(adapted, config)
    adapted = adapters_to_fp32(adapted)
    fuse_output_layer(adapted)
    fused = fuse_adapters(adapted) if runtime.liger else 0  # fused adapters belong to the fused kernels
    note = adapter_note(config, fused, adapted)
    if note is not None:
        log(note)
    return adapted


def _train(context: RunContext, plan: RunPlan, adapted: PeftModel) -> RunRecord:
    import torch

    from training.after.finish import finish_run
    from training.loop.best import patience_exhausted
    from training.loop.callbacks import SignalCallback
    from training.loop.checkpoints import step_of
    from training.loop.trackers import tracking

    kind = context.config.report_to if context.first_process else "none"
    with SignalCallback() as signals, tracking(kind, context.folder, step_of(context.checkpoint)) as trackers:
        trainer = _trainer(context, plan, adapted, [*trackers, signals])
        try:
            if context.checkpoint is not None and _is_last(context.checkpoint, plan, context.config):
                trainer.restore_finished(context.checkpoint)
            else:
                trainer.train(resume_from_checkpoint=str(context.checkpoint) if context.checkpoint else None)
        except torch.OutOfMemoryError as fault:
            raise NotEnoughMemory(
                f"The GPU ran out of memory after step {trainer.state.global_step} ({str(fault).splitlines()[0]}): free "
                "memory and continue with --resume auto, or start a new run with a smaller --micro-batch or --memory-gb."
            ) from None
    step = trainer.state.global_step
    ended = step >= plan.steps or patience_exhausted(trainer.state.log_history, context.config.patience)
    if signals.signal is not None and not ended:
        if context.first_process:
            context.folder.update(status=f"stopped at step {step}")
        raise Stopped(signals.signal, f"Stopped after step {step} of {plan.steps}; continue with --resume auto.")
    best = trainer.load_best() if context.config.keep_best else None
    return finish_run(context, trainer, best)


def _is_last(checkpoint: Path, plan: RunPlan, config: RunConfig) -> bool:
    """Whether a run that is resumed from the checkpoint needs no further step."""
    from training.loop.best import checkpoint_history, patience_exhausted
    from training.loop.checkpoints import step_of

    return step_of(checkpoint) >= plan.steps or patience_exhausted(checkpoint_history(checkpoint), config.patience)


def _trainer(context: RunContext, plan: RunPlan, adapted: PeftModel, more: list[TrainerCallback]) -> QloraTrainer:
    """The trainer with its callbacks.

    Args:
        more: callbacks that come last.
    """
    from transformers.trainer_callback import PrinterCallback

    from training.loop.arguments import trainer_arguments
    from training.loop.best import PatienceCallback
    from training.loop.callbacks import MetricsCallback, ProgressCallback
    from training.loop.trainer import QloraTrainer

    config, folder = context.config, context.folder
    args = trainer_arguments(config, context.runtime, plan.batch, folder, accumulate=plan.accumulate, steps=plan.steps)
    args.eval_on_start = plan.test is not None and context.checkpoint is None
    callbacks: list[TrainerCallback] = [
        MetricsCallback(folder.metrics, plan.tokens_per_step),
        ProgressCallback(plan.tokens_per_step),
    ]
    if config.patience is not None:
        callbacks.append(PatienceCallback(config.patience))
    template = (context.build.path / "template.jinja").read_text("utf-8")
    special = context.build.manifest.template
    trainer = QloraTrainer(
        adapted,
        args,
        train=plan.windows,
        test=plan.test,
        tokenizer=context.tokenizer.for_transformers(
            special["end_token"],
            self_contained(template, special),
            written_tokens(template, special, context.data.train.table["text"].slice(0, INSPECTED_ROWS).to_pylist()),
            special.get("bos_token"),
        ),
        folder=folder,
        config=config,
        batch=plan.batch,
        packed=plan.layout.packed,
        callbacks=[*callbacks, *more],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _processes(config: RunConfig) -> PartialState:
    """accelerate's state: this process among those that torchrun or `accelerate launch` started."""
    import torch
    from accelerate import PartialState

    return PartialState(cpu=config.device == "cpu" or not torch.cuda.is_available())


def _broadcast(value: T | None, processes: PartialState) -> T:
    """The first process's value, in all processes."""
    if processes.num_processes > 1:
        from accelerate.utils import broadcast_object_list

        value = broadcast_object_list([value])[0]
    assert value is not None
    return value


def _default_out(config: RunConfig, build: Build) -> Path:
    return RUNS / f"{build.manifest.name}-{build.manifest.version}-{Path(config.model).name}"


def _recorded_options(options: dict[str, Any], recorded: RunRecord) -> dict[str, Any]:
    """The options to compare with those of a run: without defaults of options that its version did not know."""
    defaults = as_record(RunConfig(data=Path(), model=""))
    return {name: value for name, value in options.items() if name in recorded["options"] or value != defaults[name]}


def _ledgers(data: TrainingData) -> dict[str, Any]:
    test = data.test.labelled.ledger.as_record() if data.test else None
    return {"rows": data.rows, "train": data.train.labelled.ledger.as_record(), "test": test}


def _start_record(
    config: RunConfig, build: Build, tokenizer: ChatTokenizer, name: str, recorded: RunRecord | None
) -> dict[str, Any]:
    """The entries of run.json that are known before the data is read."""
    options = as_record(config)
    revision = model_revision(name, config.revision, recorded["model"]["revision"] if recorded else None)
    return {
        "provenance": provenance(build, tokenizer),
        "model": {"name": config.model, "revision": revision} | initial_adapter_digest(config.init_adapter),
        "options": {key: value for key, value in options.items() if key not in OPERATIONAL},
        "operational": {key: value for key, value in options.items() if key in OPERATIONAL},
        "template": dict(build.manifest.template),
    }
