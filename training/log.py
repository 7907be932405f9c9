"""What a run prints to stderr before its first step."""

from __future__ import annotations

import os
import sys

from dataprep.common.text import visible
from dataprep.contract import Build
from training.after.prompts import render
from training.config import NOTEBOOK_FAULTS, RunConfig
from training.data.training_data import TrainingData
from training.errors import DataError
from training.model import attention
from training.model.runtime import Runtime
from training.model.tokenizer import ChatTokenizer


def log(text: str) -> None:
    """Print a line to stderr, in the first process only."""
    if os.environ.get("RANK", "0") == "0":
        print(visible(text), file=sys.stderr, flush=True)


def log_start(config: RunConfig, data: TrainingData, runtime: Runtime) -> None:
    """Print notes on the data, the number of trained tokens, and the runtime."""
    ledger = data.train.labelled.ledger
    for note in (*(NOTEBOOK_FAULTS if config.preset == "notebook" else ()), *data.notes, *ledger.sentences()):
        log(note)
    if data.build.manifest.gate == "failed":
        log("The build's quality gate failed. --allow-failed-gate permits training on it, and run.json records this.")
    packed = runtime.attention == attention.VARLEN
    kernel = "one variable-length kernel" if packed else "SDPA for each conversation"
    log(
        f"{ledger.rows} conversations, {ledger.tokens_trained} tokens trained and {ledger.tokens_masked} masked; "
        f"on {runtime.device} in {runtime.precision}, attention by {kernel}{', liger kernels' if runtime.liger else ''}."
    )


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
