"""What a run prints to stderr before its first step."""

from __future__ import annotations

import os
import sys
from typing import Any

from dataprep.common.text import excerpt, fit, plural, visible
from dataprep.contract import Build
from training.after.prompts import render
from training.config import NOTEBOOK_FAULTS, RunConfig
from training.data.serving import serving_difference
from training.data.training_data import TrainingData
from training.errors import DataError
from training.model import attention
from training.model.added_tokens import added_tokens
from training.model.runtime import Runtime
from training.model.tokenizer import ChatTokenizer


def log(text: str) -> None:
    """Print a line to stderr, in the first process only."""
    if os.environ.get("RANK", "0") == "0":
        print(fit(visible(text), sys.stderr), file=sys.stderr, flush=True)


def log_phase(text: str) -> None:
    """Print what begins now, for a phase that takes a while and has no steps to count."""
    log(f"Now: {text}.")


def log_start(config: RunConfig, data: TrainingData, runtime: Runtime) -> None:
    """Print notes on the data, the number of trained tokens, and the runtime."""
    ledger = data.train.labelled.ledger
    for note in (*(NOTEBOOK_FAULTS if config.preset == "notebook" else ()), *data.notes, *ledger.sentences()):
        log(note)
    if data.build.manifest.gate == "failed":
        log("The build's quality gate failed. --allow-failed-gate permits training on it, and run.json records this.")
    kernels = {attention.VARLEN: "one variable-length kernel", attention.SEGMENTS: "SDPA for each conversation"}
    kernel = kernels.get(runtime.attention, "transformers' own layers")
    log(
        f"{plural(ledger.rows, 'conversation')}, {plural(ledger.tokens_trained, 'token')} trained and "
        f"{ledger.tokens_masked:,} masked; "
        f"on {runtime.device} in {runtime.precision}, attention by {kernel}{', liger kernels' if runtime.liger else ''}."
    )


def log_serving_difference(
    config: RunConfig, data: TrainingData, tokenizer: ChatTokenizer, base_model: str
) -> str | None:
    """Warn if the trained ids of a few rows differ from those of the model's own tokenizer; returns the warning.

    Llama 2's template is not compared: its ids follow Meta's rule, and transformers' tokenizers differ from it by version.
    """
    from transformers import AutoTokenizer

    if data.build.manifest.template.get("name") == "llama2":
        return None
    try:
        stock: Any = AutoTokenizer.from_pretrained(base_model, revision=config.revision)
    except Exception as fault:  # some need code of their own, which is not run
        difference = f"its tokenizer cannot be loaded by transformers ({excerpt(str(fault))})"
    else:
        stock.add_tokens(added_tokens(config), special_tokens=True)
        rows = data.train.labelled.rows
        first_difference = serving_difference(data.train.table, rows, tokenizer, stock, seed=config.seed)
        if first_difference is None:
            return None
        difference = first_difference
    message = f"The trained ids were compared with those of {base_model}'s own tokenizer: {difference}."
    log(message)
    return message


def log_template_difference(build: Build, tokenizer: ChatTokenizer) -> str | None:
    """Warn if the build's template renders other text than the model's own; returns the warning, None if there is none."""
    if tokenizer.chat_template is None:
        return None
    example = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]
    special = {key: tokenizer.special_token(key) for key in ("bos_token", "eos_token")}
    template = (build.path / "template.jinja").read_text("utf-8")
    try:
        ours = render(template, example, dict(build.manifest.template), answer=False)
        theirs = render(tokenizer.chat_template, example, special, answer=False)
        if ours.strip() == theirs.strip():
            return None
        message = f"The build's template differs from the model's own. The build: {ours!r}  The model: {theirs!r}"
    except DataError as fault:  # some templates require a system text or tools
        message = f"The build's template could not be compared with the model's own: {fault}"
    log(message)
    return message
