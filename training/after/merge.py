"""`training merge`: merge an adapter into its base model, shard by shard.

The adapter was trained on dequantised NF4 weights, so the same weights are merged: each is quantised and dequantised as
bitsandbytes did when the run loaded it, and then the adapter's product is added. Merging into the original 16-bit weights or
into 4-bit weights changes the answers (top-1 agreement with the adapter 0.83 and 0.88).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from training.after.card import model_card
from training.after.finished_run import FinishedRun, open_finished_run
from training.after.merge_check import compare, rows_to_check
from training.after.merge_weights import AdapterProducts, BaseWeights, quantized_names
from training.after.stopping import check_stopping, special_token_ids, write_generation_config
from training.errors import ModelError, RunError
from training.log import log_phase
from training.model.added_tokens import with_added_rows
from training.model.architecture import is_valid_config, read_architecture
from training.model.checkpoint import INDEX
from training.model.files import CONFIG
from training.model.identity import read_model_config
from training.run_folder import PARTIAL, commit_folder, write_errors

OUTPUT_LAYER = "lm_head.weight"
MAX_KL = {"fp32": 1e-4, "bf16": 0.02, "fp16": 0.02}  # nats per token, by precision; rounding gives far less
# In 16 bits rounding can send a token to another expert. A random two-layer gpt-oss had 0.049 on an H100.
MAX_KL_WITH_EXPERTS = MAX_KL | {"bf16": 0.1, "fp16": 0.1}
WRITE_ADVICE = "solve this and merge again"


class MergeResult(TypedDict):
    """Numbers of merged layers and written shards; with a check, how far the merged model is from the adapter."""

    merged: int
    shards: int
    untied: bool  # whether the output layer was separated from adapted embeddings
    logit_difference: NotRequired[float]  # the largest
    kl: NotRequired[float]  # mean divergence per token of the merged model from the adapter, in nats


def merge(path: Path, to: Path, *, check: bool) -> MergeResult:
    """Write the merged model of the run in `path` to the folder `to`.

    Raises:
        RunError: `to` is not empty, or cannot be written.
        ModelError: the base model has no safetensors files, or damaged ones; or the merged model differs from the adapter.
        BuildError, DataError: the build that the check needs is missing; nothing was written.
    """
    if to.exists() and not to.is_dir():
        raise RunError(f"{to} is not a folder: choose another --to.")
    if to.exists() and any(to.iterdir()):
        raise RunError(f"{to} is not empty: choose another --to.")
    run = open_finished_run(path)
    rows = rows_to_check(run) if check else []
    partial = to.with_name(to.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with write_errors(str(to), partial, WRITE_ADVICE):
            partial.mkdir(parents=True)
            log_phase("merging the adapter into the weights")
            result = write_weights(run, partial)
            _write_other_files(run, partial, untied=result["untied"])
        if check:
            result["logit_difference"], result["kl"] = compare(run, partial, rows)
            _check_difference(result["kl"], run)
        with write_errors(str(to), partial, WRITE_ADVICE):
            if to.exists():
                to.rmdir()
            commit_folder(partial, to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return result


def _check_difference(kl: float, run: FinishedRun) -> None:
    """Refuse a merged model that answers differently from the adapter.

    Raises:
        ModelError: the mean divergence is not below the bound of the run's precision.
    """
    config = read_model_config(run.base_model, run.config.revision)
    has_experts = read_architecture(config, run.base_model).sizes.expert_weights > 0
    bound = (MAX_KL_WITH_EXPERTS if has_experts else MAX_KL)[run.runtime.precision]
    if not kl < bound:
        raise ModelError(
            f"The merged model differs from the adapter: mean KL {kl:.3g} nats per token, expected less than {bound:g}. "
            "Nothing was written; --no-check writes the model without this comparison."
        )


def write_weights(run: FinishedRun, to: Path) -> MergeResult:
    """Write all shards of the base model with the adapter merged, and their index."""
    from safetensors.torch import save_file

    base = BaseWeights(run)
    adapter = AdapterProducts(run, base)
    quantized = quantized_names(base) if run.config.quantization == "nf4" else set()
    weight_map: dict[str, str] = {}
    size = 0
    for shard in base.shards:
        weights = {}
        for name, stored, dequantized in base.read(shard):
            # bitsandbytes holds the weights of GPT-2 as outputs x inputs.
            weight = stored.T if dequantized and name in adapter.transposed else stored
            weights[name] = adapter.add_to(name, weight, quantized=name in quantized and not dequantized)
            if name in adapter.untied:
                weights[OUTPUT_LAYER] = weight.to(run.runtime.dtype).contiguous().clone()
        save_file(weights, str(to / shard.name), metadata={"format": "pt"})
        weight_map |= dict.fromkeys(weights, shard.name)
        size += sum(weight.nbytes for weight in weights.values())
    if len(base.shards) > 1:
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(weight_map.items()))}
        (to / INDEX).write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    return {"merged": adapter.merged, "shards": len(base.shards), "untied": bool(adapter.untied)}


def merged_config(
    model_config: dict[str, Any], rows: int | None, dtype: str, ids: Mapping[str, Any], *, untied: bool
) -> dict[str, Any]:
    """The config.json of a merged model.

    Args:
        model_config: of the base model.
        rows: of the embeddings, if tokens were added.
        ids: of special tokens; see `special_token_ids`.
        untied: the output layer was separated from the embeddings.
    """
    merged = {name: value for name, value in model_config.items() if name not in ("quantization_config", "torch_dtype")}
    text = merged.get("text_config")
    resized = {} if rows is None else {"vocab_size": rows}
    if text:
        merged["text_config"] = text | resized | {name: value for name, value in ids.items() if name in text}
    else:
        merged |= resized
    # Without a padding token the entry stays, because the default of the model's class may be no id of this model.
    merged |= {"dtype": dtype, "pad_token_id": None} | dict(ids)
    merged |= {"tie_word_embeddings": False} if untied else {}
    first = ids["eos_token_id"][:1] if isinstance(ids["eos_token_id"], list) else []
    if first and not is_valid_config(merged):  # some accept one end token only; generation_config.json has all of them
        return merged_config(model_config, rows, dtype, {**ids, "eos_token_id": first[0]}, untied=untied)
    return merged


def _write_other_files(run: FinishedRun, to: Path, *, untied: bool) -> None:
    """Write configuration, tokenizer, template and card."""
    ids = special_token_ids(run.base_model, run.config.revision, run.tokenizer, run.folder.adapter)
    model_config = read_model_config(run.base_model, run.config.revision)
    architecture = read_architecture(model_config, run.base_model)
    rows = with_added_rows(architecture, run.tokenizer, run.config).sizes.vocabulary
    added = rows if rows != architecture.sizes.vocabulary else None
    merged = merged_config(model_config, added, str(run.runtime.dtype).removeprefix("torch."), ids, untied=untied)
    (to / CONFIG).write_text(json.dumps(merged, indent=2), "utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(run.folder.adapter / name, to / name)
    write_generation_config(to, run.base_model, run.config.revision, ids)
    check_stopping(to, run.record["template"]["end_token"])
    (to / "README.md").write_text(model_card(run.record, merged=True), "utf-8")
