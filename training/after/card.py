"""The card (README.md) of an adapter or a merged model: base, build, template and figures, without folders of this machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataprep.common.markup import markdown, yaml_value
from training.run_record import Metrics, RunRecord


def public_model_name(record: RunRecord) -> str:
    """The base model's id on the Hub, or the name of its folder."""
    name = record["model"]["name"]
    return name if _on_hub(record) else Path(name).name


def public_options(record: RunRecord) -> dict[str, Any]:
    """The options of a run with the names of the base model and of the adapter that it began from, without their folders."""
    options = {**record["options"], "model": public_model_name(record)}
    if options.get("init_adapter"):
        options["init_adapter"] = Path(options["init_adapter"]).name
    return options


def model_card(record: RunRecord, base_model: str | None = None, *, merged: bool = False) -> str:
    """The text of the card.

    Args:
        record: run.json of the finished run.
        base_model: the id of the base model on the Hub, for a run whose base was a folder.
        merged: the card of the merged model instead of the adapter's.
    """
    provenance, options, ledger = record["provenance"], record["options"], record["ledger"]["train"]
    base = base_model or public_model_name(record)
    head = ["library_name: transformers" if merged else "library_name: peft", "tags: [qlora]"]
    if base_model or _on_hub(record):
        head.insert(0, f"base_model: {yaml_value(base)}")
    lines = [
        "---",
        *head,
        "---",
        "",
        "# Merged model" if merged else "# LoRA adapter",
        "",
        f"Trained with `training run` on the build **{markdown(provenance['build'])} {provenance['version']}**",
        f"(template {markdown(str(provenance['template']))}, gate {markdown(provenance['gate'])}),",
        f"base model {markdown(base)} quantised as {options['quantization']}.",
        "",
        f"* {ledger['rows']} conversations: {ledger['tokens_trained']} trained tokens, {ledger['tokens_masked']} masked,",
        f"  {ledger['tokens_cut']} cut, {ledger['tokens_dropped']} dropped",
        f"* rank {options['lora_r']}, alpha {options['lora_alpha']}, targets {markdown(str(options['targets']))},",
        f"  learning rate {options['lr']}, seed {options['seed']}",
        *_variant(options),
        f"* {record['resolved']['steps']} steps on {record['metrics']['trained_tokens']} trained tokens, "
        f"window {options['max_tokens']} tokens",
        *_results(record["metrics"]),
        "* " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()),
        "",
    ]
    if merged:
        lines += [
            "Merged into the dequantised NF4 base that the adapter was trained on: load it without quantisation.",
            "",
        ]
    return "\n".join(lines)


def _on_hub(record: RunRecord) -> bool:
    """Whether the base model came from the Hub: its revision is a commit, and not a digest of a folder's files."""
    return re.fullmatch("[0-9a-f]{40}", record["model"]["revision"]) is not None


def _variant(options: Mapping[str, Any]) -> list[str]:
    """Lines about a variant of LoRA, layers that were trained whole, and added tokens."""
    names = {"rslora": "rank-stabilised", "dora": "DoRA", "lora_plus": "LoRA+"}
    variants = [name for option, name in names.items() if options.get(option)]
    lines = [f"* {', '.join(variants)}"] if variants else []
    if options.get("modules_to_save"):
        lines.append(f"* trained whole: {markdown(options['modules_to_save'])}")
    if options.get("add_tokens"):
        tokens = ", ".join(markdown(token) for token in options["add_tokens"].split())
        lines.append(
            f"* added tokens: {tokens}. Before stock peft loads this adapter, give the base model a row for each id: "
            "`model.resize_token_embeddings(len(tokenizer))` with the tokenizer of this folder, if it has fewer."
        )
    return lines


def _results(metrics: Metrics) -> list[str]:
    """Lines on the held-out loss and on answers that end, as far as they were measured."""
    lines = []
    if metrics["held_out_before"] is not None and metrics["held_out_after"] is not None:
        before, after = metrics["held_out_before"], metrics["held_out_after"]
        lines.append(f"* held-out loss {before:.4f} before, {after:.4f} after (nats per trained token)")
    if "stopped_by_itself" in metrics:
        lines.append(
            f"* {metrics['stopped_by_itself']:.0%} of {metrics['stop_prompts']} answers ended with the end token"
        )
    return lines
