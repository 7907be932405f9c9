"""A finished run: its held-out loss before and after, and its answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataprep.contract import Build
from training.config import TINY, RunConfig, at_least, check_seed, from_json
from training.data.collate import collate
from training.data.training_data import load_training_data, open_training_build
from training.data.windows import window_dataset
from training.errors import DataError, ModelError, RunError
from training.model.base import load_adapted
from training.model.runtime import Runtime, choose_runtime
from training.model.sizes import model_revision
from training.model.tokenizer import ChatTokenizer, load_tokenizer
from training.run_folder import RunFolder

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from peft import PeftModel

    from training.after.generate import Answer


@dataclass(frozen=True)
class Finished:
    """A run that has its adapter, and what it was made of."""

    folder: RunFolder
    facts: dict[str, Any]
    config: RunConfig
    name: str  # what the base model is loaded by
    place: Runtime
    vocabulary: ChatTokenizer


def open_run(path: Path) -> Finished:
    """The finished run in `path`.

    Raises:
        RunError: there is no run, or it has no adapter yet.
        ModelError: the base model's folder holds another model by now.
    """
    folder = RunFolder(path)
    facts = folder.read()
    if not (folder.adapter / "adapter_config.json").exists():
        raise RunError(f"The run in {path} has no adapter yet ({facts.get('status')}): go on with --resume auto.")
    config = from_json({**facts["options"], **facts["operational"]})
    name = str(folder.base) if config.model == TINY else config.model
    revision = facts["model"]["revision"]
    if not Path(name).is_dir():
        config = replace(config, revision=revision)  # the commit: a branch moves on
    elif model_revision(name, None) != revision:
        raise ModelError(f"{name} holds another model than the one that the run in {path} was trained on.")
    place = _place(config, facts["place"]["precision"])
    return Finished(folder, facts, config, name, place, load_tokenizer(name, config.revision))


def _place(config: RunConfig, precision: str) -> Runtime:
    """This machine, in the run's own arithmetic: what NF4 keeps of a weight depends on the type that it comes in."""
    of_gpus = {"device": "cuda", "attention": "varlen", "kernels": "liger"}  # the run's machine had one
    free: dict[str, Any] = {name: "auto" for name, value in of_gpus.items() if getattr(config, name) == value}
    return replace(choose_runtime(replace(config, precision="auto", **free)), precision=precision)


def bound_build(run: Finished) -> Build:
    """The build that the run was trained on.

    Raises:
        DataError: the folder holds another version by now.
    """
    build = open_training_build(run.config)
    if build.manifest.version != run.facts["bond"]["version"]:
        raise DataError(
            f"{run.config.data} holds version {build.manifest.version} and the run was trained on "
            f"{run.facts['bond']['version']}: its folder beside it is what run.json should name."
        )
    return build


def load(run: Finished) -> PeftModel:
    """The base model with the run's adapter, ready for fused losses."""
    from training.loop.trainer import fuse_output_layer

    adapted = load_adapted(run.name, run.config.revision, run.folder.adapter, run.config, run.place)
    fuse_output_layer(adapted)
    return adapted


def evaluate(path: Path, prompts: int, max_new_tokens: int) -> dict[str, Any]:
    """Held-out loss and perplexity of the base model and of the adapter, and how many answers end by themselves.

    Raises:
        OptionError: fewer than one prompt or token.
        DataError: nothing was held out.
    """
    from training.after.generate import stop_share

    at_least(1, prompts=prompts, max_new_tokens=max_new_tokens)

    run = open_run(path)
    build = bound_build(run)
    prepared = load_training_data(run.config, build, run.vocabulary)
    if prepared.test is None:
        raise DataError(f"Nothing is held out from {build.path}: there is nothing to evaluate on.")
    windows, _ = window_dataset(prepared.test.labelled, run.config.max_tokens, seed=run.config.seed)
    adapted = load(run)
    with adapted.disable_adapter():
        before = loss_over(adapted, windows, run.place)
    after = loss_over(adapted, windows, run.place)
    rows = prepared.test.table.slice(0, prompts)["messages"].to_pylist()
    share, said = stop_share(adapted, run.vocabulary, build, rows, max_new_tokens=max_new_tokens)
    return {
        "before": {"loss": before, "perplexity": math.exp(before)},
        "after": {"loss": after, "perplexity": math.exp(after)},
        "stopped_by_itself": share,
        "prompts": len(said),
    }


def loss_over(adapted: PeftModel, windows: Dataset, place: Runtime) -> float:
    """Nats a token: the sum over the trained tokens of all windows, divided by their number."""
    import torch

    total, tokens = 0.0, 0
    adapted.eval()
    for window in windows:
        with torch.no_grad(), autocast(place):
            out = adapted(**collate([window], place.device), use_cache=False, fused_lm_head=True)
        total -= float(out.log_probs.double().sum())
        tokens += int(out.label_mask.sum())
    return total / max(tokens, 1)


def autocast(place: Runtime) -> torch.autocast:
    """The arithmetic that the run was trained in."""
    import torch

    kind = place.device.split(":")[0]
    half = torch.float16 if place.precision == "fp16" else torch.bfloat16
    return torch.autocast(kind, dtype=half, enabled=place.precision != "fp32")


def generate(
    path: Path, prompt: str, system: str | None, *, max_new_tokens: int, temperature: float, seed: int
) -> Answer:
    """The answer of a run's model to one prompt.

    Raises:
        OptionError: a value that makes no sense.
    """
    from training.after.generate import answers
    from training.after.prompts import prompt_ids

    at_least(1, max_new_tokens=max_new_tokens)
    at_least(0, temperature=temperature)
    check_seed(seed)
    run = open_run(path)
    template = (run.folder.adapter / "chat_template.jinja").read_text("utf-8")  # the build's own, kept with the adapter
    messages = [{"role": "system", "content": system}] if system else []
    facts = run.facts["template"]
    ids = prompt_ids(template, [*messages, {"role": "user", "content": prompt}], facts, run.vocabulary)
    said = answers(
        load(run),
        run.vocabulary,
        [ids],
        facts["end_token"],
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        seed=seed,
    )
    return said[0]
