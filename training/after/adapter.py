"""The end of a run: the adapter with tokenizer, template and card, the stop check, run.json and loss.html."""

from __future__ import annotations

import html
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataprep.common import charts
from dataprep.contract import Build
from training.config import RunConfig
from training.run_folder import PARTIAL, RunFolder, commit_folder, read_metrics, write_whole, writing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from training.data.training_data import TrainingData
    from training.loop.trainer import QloraTrainer
    from training.memory.choose import RunPlan


def export(
    trainer: QloraTrainer,
    config: RunConfig,
    plan: RunPlan,
    prepared: TrainingData,
    tokenizer: PreTrainedTokenizerFast,
    build: Build,
    folder: RunFolder,
    name: str,
) -> dict[str, Any]:
    """Write what a run leaves behind; returns run.json's content."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    stopping = _stopping(model, config, prepared, build, name) if trainer.is_world_process_zero() else {}
    if trainer.is_world_process_zero():
        facts = folder.read()
        facts["metrics"] = {**metrics_of(folder), "trained_tokens": int(trainer.trained_tokens), **stopping}
        card = _card(config, build, facts)
        with writing(str(folder.adapter), folder.path):
            write_adapter(model, tokenizer, folder.adapter, card)
        write_whole(folder.path / "loss.html", loss_page(read_metrics(folder.metrics), folder.path.name))
        folder.write(facts | {"status": "done"})
    trainer.accelerator.wait_for_everyone()
    return folder.read()


def metrics_of(folder: RunFolder) -> dict[str, Any]:
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


def _stopping(model: Any, config: RunConfig, prepared: TrainingData, build: Build, name: str) -> dict[str, Any]:
    from training.after.generate import stop_share
    from training.model.tokenizer import load_tokenizer

    if prepared.test is None or config.stop_prompts == 0:
        return {}
    rows = prepared.test.table.slice(0, config.stop_prompts)["messages"].to_pylist()
    share, said = stop_share(model, load_tokenizer(name, config.revision), build, rows)
    return {"stopped_by_itself": share, "stop_prompts": len(said)}


def write_adapter(model: Any, tokenizer: PreTrainedTokenizerFast, path: Path, card: str) -> None:
    """A folder that stock peft and transformers open."""
    partial = path.with_name(path.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(str(partial))
    tokenizer.save_pretrained(str(partial))
    (partial / "README.md").write_text(card, "utf-8")
    commit_folder(partial, path)


def _card(config: RunConfig, build: Build, facts: dict[str, Any]) -> str:
    ledger = facts["ledger"]["train"]
    return f"""---
base_model: {config.model}
library_name: peft
tags: [qlora]
---

# LoRA adapter

Trained with `training run` on the build **{build.manifest.name} {build.manifest.version}**
(template {build.manifest.template.get("name")}, gate {build.manifest.gate}),
base model {config.model} held in {config.quantization}.

* {ledger["rows"]} conversations: {ledger["tokens_trained"]} tokens to train, {ledger["tokens_masked"]} masked,
  {ledger["tokens_cut"]} cut, {ledger["tokens_dropped"]} dropped
* rank {config.lora_r}, alpha {config.lora_alpha}, targets {config.targets}, learning rate {config.lr}, seed {config.seed}
* {facts["resolved"]["steps"]} steps on {facts["metrics"]["trained_tokens"]} trained tokens, window {config.max_tokens} tokens

run.json in the run's folder holds all options, versions and metrics.
"""


def loss_page(lines: list[dict[str, Any]], name: str) -> str:
    """An HTML page without external resources that draws the training loss and the held-out loss by step."""
    training = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    held_out = [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line]
    drawn = charts.line_chart([charts.Series(training), charts.Series(held_out)], width=800, height=360)
    title = html.escape(name)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>Loss of {title}</title><style>body {{ font: 16px system-ui; margin: 2em; max-width: 60em }} {charts.STYLE}"
        f".s0 {{ color: var(--accent, #0f6e56) }} .s1 {{ color: var(--warn, #b45309) }}</style><h1>{title}</h1>"
        '<p>Loss in nats per trained token, by optimizer step: <b class="s0">training</b>, <b class="s1">held out</b>.</p>'
        f"{drawn or '<p>No loss was logged.</p>'}</html>"
    )
