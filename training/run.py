"""The recipe of a run: a build and a model in, an adapter and run.json out."""

from __future__ import annotations

import math
import shutil
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataprep.contract import Build
from training import attention, data, memory, model
from training.config import NOTEBOOK_FAULTS, OPERATIONAL, TINY, RunConfig, as_json, check
from training.errors import DataError, MemoryShort, Stopped
from training.folder import RUN, Folder, cut_back, library_versions, prepare_folder, read_metrics, refuse_other
from training.memory import Choice
from training.model import Place
from training.vocabulary import Vocabulary, load_vocabulary, locate

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel

    from training.probe import Measured

# Bound of the attention self-test: bit-equal on SDPA; a flash kernel may split a longer window's work otherwise.
LEAK_BOUND = {attention.SEGMENTS: 1e-4, attention.VARLEN: 0.05}


def say(text: str) -> None:
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
    config = check(config)
    build = data.open_data(config)
    state = _processes(config)
    config = replace(config, out=config.out or _usual_place(config, build))
    assert config.out is not None
    with state.main_process_first():
        folder, checkpoint = prepare_folder(config.out, config.resume) if state.is_main_process else _joined(config.out)
        name = base_model(config, build, folder, make=state.is_main_process)
    place = model.choose_place(config)
    vocabulary = load_vocabulary(name, config.revision)
    shape = model.read_shape(name, config.revision)
    model.check_fit(shape, vocabulary, place, config.model)
    facts = _facts(config, build, vocabulary, name, place)
    recorded = folder.read() if checkpoint is not None else None
    if recorded is not None:
        refuse_other(recorded, facts, folder.path)
    prepared = data.load(config, build, vocabulary)
    _tell(config, prepared, place)
    warn_of_other_template(build, vocabulary)

    adapted = adapt(name, config, place)
    plan = settle(config, place, shape, prepared, adapted, folder, recorded, state.num_processes)
    facts |= plan.as_json() | {
        "ledger": _ledgers(prepared),
        "versions": library_versions(),
        "status": "running",
        "notes": prepared.notes,
    }
    if state.is_main_process:
        folder.write(recorded | facts if recorded else facts)
        cut_back(folder.metrics, _step_of(checkpoint))
    say(plan.sentence())
    return _train(config, place, plan, prepared, adapted, vocabulary, build, folder, checkpoint, name)


def base_model(config: RunConfig, build: Build, folder: Folder, *, make: bool = True) -> str:
    """The name to load the base model by; `tiny` is made here, by the first process of a run that is not begun yet."""
    if config.model != TINY:
        return config.model
    if make and not (folder.path / RUN).exists():
        from training import tiny

        shutil.rmtree(folder.base, ignore_errors=True)  # perhaps half of one
        tiny.make(folder.base, build, config.seed)
    return str(folder.base)


def adapt(name: str, config: RunConfig, place: Place) -> PeftModel:
    """The base model with fresh adapters, seeded, ready for a pass."""
    from transformers import set_seed

    from training.fused import fuse_adapters
    from training.trainer import fuse_head

    set_seed(config.seed)
    adapted = model.in_fp32(model.add_adapters(model.load_base(name, config.revision, config, place), config))
    fuse_head(adapted)
    if place.liger:  # with the other fused kernels
        fuse_adapters(adapted)
    return adapted


@dataclass(frozen=True)
class Plan:
    """What was resolved before the first step."""

    choice: Choice
    accumulate: int
    steps: int
    tokens_per_step: float  # real tokens, on average, over all processes
    fill: float
    windows: Dataset
    test: Dataset | None
    estimate: memory.Estimate
    measured: Measured | None
    leak: float

    def as_json(self) -> dict[str, Any]:
        measured = asdict(self.measured) if self.measured else None
        return {
            "resolved": {**asdict(self.choice), "accumulate": self.accumulate, "steps": self.steps},
            "packing": {"windows": len(self.windows), "fill": round(self.fill, 4)},
            "memory": {"estimate_gib": self.estimate.table(), "measured": measured},
            "self_test": self.leak,
        }

    def sentence(self) -> str:
        choice = self.choice
        said = (
            f"{len(self.windows)} windows, {self.fill:.1%} full; {self.steps} steps of {self.accumulate} x "
            f"{choice.micro_batch} windows, {choice.checkpoint_layers} layers checkpointed, {choice.optimizer}; "
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
    from training import probe
    from training.trainer import arguments

    first, packed = data.windows(prepared.train, config.max_tokens, seed=config.seed)
    per_step = max(1, min(config.tokens_per_step // config.max_tokens, len(first)) // processes)
    leak = attention.self_test(adapted, first, bound=LEAK_BOUND[place.attention])

    def args_of(choice: Choice) -> Any:
        return arguments(config, place, choice, folder, accumulate=1, steps=1)

    choices = possible(config, place, shape, per_step, prepared, recorded)
    choice, measured = probe.settle(adapted, choices, first, args_of)
    choice = _agreed(choice, processes)
    accumulate = max(1, round(per_step / choice.micro_batch))
    windows, packed = data.windows(
        prepared.train, config.max_tokens, seed=config.seed, multiple_of=_shared(choice, processes)
    )
    test = _test_windows(config, prepared, choice, processes)
    steps_an_epoch = math.ceil(len(windows) / (choice.micro_batch * accumulate * processes))
    steps = config.max_steps or max(1, round(config.epochs * steps_an_epoch))
    tokens = float(prepared.train.prepared.rows.lengths.sum()) / steps_an_epoch
    guess = memory.estimate(shape, load_of(config, place, choice, prepared))
    return Plan(choice, accumulate, steps, tokens, packed.fill, windows, test, guess, measured, leak)


def possible(
    config: RunConfig,
    place: Place,
    shape: dict[str, Any],
    per_step: int,
    prepared: data.Data | None,
    recorded: dict[str, Any] | None = None,
) -> list[Choice]:
    """The choices to try, fastest first: what fits by the estimate, or just the recorded one on resume."""
    if recorded is not None:
        was = recorded["resolved"]
        return [Choice(was["micro_batch"], was["checkpoint_layers"], was["optimizer"])]
    on_gpu = place.device != "cpu"
    layers = memory.dimensions(shape).layers
    fixed = {name: getattr(config, name) for name in ("micro_batch", "checkpoint_layers", "optimizer")}
    if not on_gpu:  # memory is no question there; one window at a time is as fast as any
        fixed = {name: value for name, value in fixed.items() if value is not None}
        fixed = {"micro_batch": 1, "checkpoint_layers": 0, "optimizer": "adamw"} | fixed
    choices = memory.candidates(layers, per_step, config.max_tokens, fixed, on_gpu=on_gpu)
    if not on_gpu:
        return choices

    def need(choice: Choice) -> int:
        return memory.estimate(shape, load_of(config, place, choice, prepared)).total

    return memory.fitting(choices, need, room(config, place))


def room(config: RunConfig, place: Place) -> int:
    """Bytes of the GPU's memory that this process may take: what is free and what it already holds, or --memory-gb."""
    import torch

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


def _train(
    config: RunConfig,
    place: Place,
    plan: Plan,
    prepared: data.Data,
    adapted: PeftModel,
    vocabulary: Vocabulary,
    build: Build,
    folder: Folder,
    checkpoint: Path | None,
    name: str,
) -> dict[str, Any]:
    import torch
    from transformers.trainer_callback import PrinterCallback

    from training.export import export
    from training.trainer import QloraTrainer, arguments
    from training.watch import Metrics, Progress, Stop

    template = build.manifest.template
    tokenizer = vocabulary.for_transformers(template["end_token"], (build.path / "template.jinja").read_text("utf-8"))
    args = arguments(config, place, plan.choice, folder, accumulate=plan.accumulate, steps=plan.steps)
    args.eval_on_start = plan.test is not None and checkpoint is None
    with Stop() as stop:
        trainer = QloraTrainer(
            adapted,
            args,
            train=plan.windows,
            test=plan.test,
            tokenizer=tokenizer,
            folder=folder,
            config=config,
            choice=plan.choice,
            callbacks=[Metrics(folder.metrics, plan.tokens_per_step), Progress(plan.tokens_per_step), stop],
        )
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except torch.OutOfMemoryError as fault:
            raise MemoryShort(
                f"The GPU's memory ran out after step {trainer.state.global_step} ({str(fault).splitlines()[0]}): free the "
                "GPU and go on with --resume auto, or begin anew with a smaller --micro-batch or --memory-gb."
            ) from None
    done = trainer.state.global_step
    if stop.signal is not None and done < plan.steps:
        _note(trainer, folder, {"status": f"stopped at step {done}"})
        raise Stopped(stop.signal, f"Stopped after step {done} of {plan.steps}; go on with --resume auto.")
    return export(trainer, config, plan, prepared, tokenizer, build, folder, name)


def _note(trainer: Any, folder: Folder, facts: dict[str, Any]) -> None:
    if trainer.is_world_process_zero():
        folder.update(**facts)


def _processes(config: RunConfig) -> Any:
    """accelerate's state: this process among those that torchrun or `accelerate launch` started."""
    from accelerate import PartialState

    return PartialState(cpu=config.device == "cpu")


def _joined(path: Path) -> tuple[Folder, Path | None]:
    """The folder as the first process has prepared it."""
    folder = Folder(path)
    whole = folder.whole()
    return folder, whole[-1] if whole else None


def _agreed(choice: Choice, processes: int) -> Choice:
    """The first process's choice, for all."""
    if processes == 1:
        return choice
    from accelerate.utils import broadcast_object_list

    agreed: Choice = broadcast_object_list([choice])[0]
    return agreed


def _usual_place(config: RunConfig, build: Build) -> Path:
    return Path("runs") / f"{build.manifest.name}-{build.manifest.version}-{Path(config.model).name}"


def _step_of(checkpoint: Path | None) -> int:
    return int(checkpoint.name.removeprefix("step-")) if checkpoint else -1


def _test_windows(config: RunConfig, prepared: data.Data, choice: Choice, processes: int) -> Dataset | None:
    if prepared.test is None:
        return None
    return data.windows(prepared.test, config.max_tokens, seed=config.seed, multiple_of=_shared(choice, processes))[0]


def _shared(choice: Choice, processes: int) -> int:
    """What the number of windows must be a multiple of: accelerate repeats windows to fill an uneven last round.

    One process just has a smaller last batch.
    """
    return choice.micro_batch * processes if processes > 1 else 1


def _ledgers(prepared: data.Data) -> dict[str, Any]:
    test = prepared.test.prepared.ledger.as_json() if prepared.test else None
    return {"rows": prepared.rows, "train": prepared.train.prepared.ledger.as_json(), "test": test}


def _facts(config: RunConfig, build: Build, vocabulary: Vocabulary, name: str, place: Place) -> dict[str, Any]:
    options = as_json(config)
    return {
        "bond": data.bond(build, vocabulary),
        "model": {"name": config.model, "revision": revision_of(name, config.revision)},
        "options": {key: value for key, value in options.items() if key not in OPERATIONAL},
        "operational": {key: value for key, value in options.items() if key in OPERATIONAL},
        "place": asdict(place),
        "template": dict(build.manifest.template),
    }


def revision_of(name: str, revision: str | None) -> str:
    """The commit of a model on the Hub; of a folder, a digest of its config.json and its files' sizes."""
    import hashlib

    path = locate(name, "config.json", revision)
    assert path is not None
    if not Path(name).is_dir():
        return path.parent.name
    digest = hashlib.sha256(path.read_bytes())
    for file in sorted(path.parent.glob("*.safetensors")):
        digest.update(f"{file.name}:{file.stat().st_size}".encode())
    return digest.hexdigest()[:16]


def _tell(config: RunConfig, prepared: data.Data, place: Place) -> None:
    ledger = prepared.train.prepared.ledger
    for note in (*(NOTEBOOK_FAULTS if config.preset == "notebook" else ()), *prepared.notes, *ledger.sentences()):
        say(note)
    if prepared.build.manifest.gate == "failed":
        say("The build's quality gate failed; --allow-failed-gate was said, and run.json records it.")
    kind = "one variable-length kernel" if place.attention == attention.VARLEN else "SDPA, conversation by conversation"
    say(
        f"{ledger.rows} conversations, {ledger.tokens_trained} tokens trained and {ledger.tokens_masked} masked; "
        f"on {place.device} in {place.precision}, attention by {kind}{', liger kernels' if place.liger else ''}."
    )
    if not ledger.rows:
        raise DataError("Nothing is left to train on.")


def warn_of_other_template(build: Build, vocabulary: Vocabulary) -> str | None:
    """Say when the build was rendered with another template than the model's own, and show both."""
    if vocabulary.chat_template is None:
        return None
    from training.prompts import render

    told = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]
    marks = {key: vocabulary.named(key) for key in ("bos_token", "eos_token")}
    ours = render((build.path / "template.jinja").read_text("utf-8"), told, dict(build.manifest.template), answer=False)
    theirs = render(vocabulary.chat_template, told, marks, answer=False)
    if ours.strip() == theirs.strip():
        return None
    message = f"The build's template is not the model's own. The build: {ours!r}  The model: {theirs!r}"
    say(message)
    return message


def metrics_of(folder: Folder) -> dict[str, Any]:
    """First and last losses of a run, from metrics.jsonl."""
    lines = read_metrics(folder.metrics)
    losses = [line["loss"] for line in lines if "loss" in line]
    held_out = [line["eval_loss"] for line in lines if "eval_loss" in line]
    return {
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "held_out_before": held_out[0] if held_out else None,
        "held_out_after": held_out[-1] if held_out else None,
    }
