"""`training evaluate`: the held-out loss before and after training, and the share of answers that end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from dataprep.common.text import plural
from training.after.finished_run import autocast, load_run_model, open_finished_run, open_run_build
from training.config import at_least
from training.data.collate import collate
from training.data.training_data import load_training_data
from training.data.windows import window_dataset
from training.errors import DataError
from training.log import log, log_phase
from training.model.runtime import Runtime

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftModel


class HeldOutLoss(TypedDict):
    """Nats per token, and its exponential."""

    loss: float
    perplexity: float


class Evaluation(TypedDict):
    """The result of `training evaluate`."""

    before: HeldOutLoss
    after: HeldOutLoss
    stopped_by_itself: float | None  # None: transformers cannot generate with the model
    prompts: int


def evaluate(path: Path, prompts: int, max_new_tokens: int) -> Evaluation:
    """Compute the held-out loss of the base model and of the adapter, and the share of answers with an end token.

    Raises:
        OptionError: `prompts` or `max_new_tokens` is less than 1.
        DataError: the run held no rows out.
    """
    from training.after.generate import Answer, GenerationUnsupported, stop_share

    at_least(1, prompts=prompts, max_new_tokens=max_new_tokens)
    run = open_finished_run(path)
    build = open_run_build(run)
    data = load_training_data(run.config, build, run.tokenizer)
    if data.test is None:
        raise DataError(f"The run holds no rows of {build.path} out, so there is nothing to evaluate on.")
    windows, _ = window_dataset(
        data.test.labelled, run.config.max_tokens, seed=run.config.seed, packed=run.runtime.packed
    )
    adapted = load_run_model(run)
    log_phase(f"computing the held-out loss of {plural(len(windows), 'window')}")
    with adapted.disable_adapter():
        before = mean_loss(adapted, windows, run.runtime)
    after = mean_loss(adapted, windows, run.runtime)
    rows = data.test.table.slice(0, prompts)["messages"].to_pylist()
    log_phase(f"answering {plural(len(rows), 'prompt')}")
    share: float | None = None
    answers: list[Answer] = []
    try:
        share, answers = stop_share(adapted, run.tokenizer, build, rows, max_new_tokens=max_new_tokens)
    except GenerationUnsupported as obstacle:
        log(str(obstacle))
    return {
        "before": {"loss": before, "perplexity": math.exp(before)},
        "after": {"loss": after, "perplexity": math.exp(after)},
        "stopped_by_itself": share,
        "prompts": len(answers),
    }


def mean_loss(adapted: PeftModel, windows: Dataset, runtime: Runtime) -> float:
    """Nats per token: the sum over the trained tokens of all windows, divided by their number."""
    import torch

    total, tokens = 0.0, 0
    adapted.eval()
    for window in windows:
        with torch.no_grad(), autocast(runtime):
            outputs = adapted(
                **collate([window], runtime.device, packed=runtime.packed), use_cache=False, fused_lm_head=True
            )
        total -= float(outputs.log_probs.double().sum())
        tokens += int(outputs.label_mask.sum())
    return total / max(tokens, 1)
