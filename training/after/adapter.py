"""The end of a run: the adapter with tokenizer, template and card, the stop check, run.json and loss.html."""

from __future__ import annotations

import html
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataprep.contract import Build
from training.config import RunConfig
from training.run_folder import PARTIAL, Folder, publish, read_metrics, write_whole, writing

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from training.data.holdout import Data
    from training.loop.trainer import QloraTrainer
    from training.memory.choose import RunPlan


def export(
    trainer: QloraTrainer,
    config: RunConfig,
    plan: RunPlan,
    prepared: Data,
    tokenizer: PreTrainedTokenizerFast,
    build: Build,
    folder: Folder,
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


def _stopping(model: Any, config: RunConfig, prepared: Data, build: Build, name: str) -> dict[str, Any]:
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
    publish(partial, path)


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
    """The losses as one self-contained page."""
    curves = {
        "training": [(line["step"], line["loss"]) for line in lines if "loss" in line],
        "held out": [(line["step"], line["eval_loss"]) for line in lines if "eval_loss" in line],
    }
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return "<!doctype html><title>loss</title><p>No step was logged."
    width, height = 800, 320
    last = max(step for step, _ in points) or 1
    top, low = max(y for _, y in points), min(y for _, y in points)
    spread = (top - low) or 1.0

    def line(curve: list[tuple[int, float]], colour: str) -> str:
        places = " ".join(f"{x / last * width:.1f},{(top - y) / spread * height:.1f}" for x, y in curve)
        return f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{places}"/>'

    drawn = line(curves["training"], "#2a78d6") + line(curves["held out"], "#c2410c")
    return (
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(name)}</title>'
        '<body style="font:14px system-ui;margin:2em;max-width:60em">'
        f"<h1>{html.escape(name)}</h1><p>Loss (nats a token): "
        '<span style="color:#2a78d6">training</span>, <span style="color:#c2410c">held out</span>; '
        f"from {top:.3f} (top) to {low:.3f} (bottom) over {last} steps.</p>"
        f'<svg viewBox="-10 -10 {width + 20} {height + 20}" width="100%">{drawn}</svg></body>'
    )
