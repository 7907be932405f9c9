"""`training merge`: merge an adapter into its base model, shard by shard.

The adapter was trained on dequantised NF4 weights, so the same weights are merged: each is quantised and dequantised as
bitsandbytes did when the run loaded it, and then the adapter's product is added. Merging into the original 16-bit weights or
into 4-bit weights changes the answers (top-1 agreement with the adapter 0.83 and 0.88).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from training.after.finished_run import FinishedRun, autocast, load_run_model, open_finished_run, open_run_build
from training.after.stopping import check_stopping, special_token_ids, write_generation_config
from training.data.training_data import load_training_data
from training.errors import ModelError, RunError
from training.model.files import locate, read_json_object
from training.model.sizes import read_model_config
from training.run_folder import PARTIAL, commit_folder, write_errors

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
CHECKED_ROWS = 8
MAX_KL = {"fp32": 1e-4, "bf16": 0.02, "fp16": 0.02}  # nats per token, by precision; rounding gives far less
CHECKED_TOKENS = 512  # of each row
WRITE_ADVICE = "solve this and merge again"


class MergeResult(TypedDict):
    """Numbers of merged layers and written shards; with a check, how far the merged model is from the adapter."""

    merged: int
    shards: int
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
    rows = _rows_to_check(run) if check else []
    partial = to.with_name(to.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with write_errors(str(to), partial, WRITE_ADVICE):
            partial.mkdir(parents=True)
            result = _write_weights(run, partial)
            _write_other_files(run, partial)
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
    bound = MAX_KL[run.runtime.precision]
    if not kl < bound:
        raise ModelError(
            f"The merged model differs from the adapter: mean KL {kl:.3g} nats per token, expected less than {bound:g}. "
            "Nothing was written; --no-check writes the model without this comparison."
        )


def _write_weights(run: FinishedRun, to: Path) -> MergeResult:
    """Write all shards of the base model with the adapter merged."""
    from safetensors.torch import save_file

    products = AdapterProducts(run)
    shards = list(_shards(run))
    quantized = _quantized_names(run) if run.config.quantization == "nf4" else set()
    for shard in shards:
        weights = read_weights(shard)
        for name, weight in weights.items():
            weights[name] = products.add_to(name, weight, quantized=name in quantized)
        save_file(weights, str(to / shard.name), metadata={"format": "pt"})
    if products.remaining:
        raise ModelError(
            f"The adapter has weights for {', '.join(sorted(products.remaining)[:3])}, which the base model lacks."
        )
    return {"merged": products.merged, "shards": len(shards)}


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file.

    Raises:
        ModelError: the file is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path)))
    except (OSError, SafetensorError) as fault:
        raise ModelError(f"{path} cannot be read ({fault}): restore the file, or train again.") from None


def _shards(run: FinishedRun) -> Iterator[Path]:
    index = locate(run.base_model, INDEX, run.config.revision)
    names = sorted(set(read_json_object(index)["weight_map"].values())) if index else [SINGLE]
    for name in names:
        path = locate(run.base_model, name, run.config.revision)
        if path is None:
            raise ModelError(
                f"{run.base_model} has no {name}: merging needs safetensors files; convert the model first."
            )
        yield path


def _quantized_names(run: FinishedRun) -> set[str]:
    """Names of the weights that transformers quantises: those of all linear layers except the output layer."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        skeleton = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.from_pretrained(run.base_model, revision=run.config.revision)
        )
    output = skeleton.get_output_embeddings()
    linear = [name for name, m in skeleton.named_modules() if isinstance(m, torch.nn.Linear) and m is not output]
    return {f"{name}.weight" for name in linear}


class AdapterProducts:
    """The adapter's low-rank products, by the layer that they belong to."""

    def __init__(self, run: FinishedRun) -> None:
        settings = read_json_object(run.folder.adapter / "adapter_config.json")
        self.scale = settings["lora_alpha"] / settings["r"]
        self.weights = read_weights(run.folder.adapter / "adapter_model.safetensors")
        self.dtype, self.device = run.runtime.dtype, run.runtime.device
        suffix = ".lora_A.weight"
        self.remaining = {name.removesuffix(suffix) for name in self.weights if name.endswith(suffix)}  # not merged yet
        self.merged = 0

    def add_to(self, name: str, weight: Tensor, *, quantized: bool) -> Tensor:
        """Return `weight` as the run saw it, with the layer's product, if any, added in float32."""
        if not weight.is_floating_point():
            return weight
        weight = weight.to(self.device, self.dtype)
        if quantized:
            weight = nf4_round_trip(weight)
        key = "base_model.model." + name.removesuffix(".weight")
        if key in self.remaining:
            self.remaining.remove(key)
            self.merged += 1
            a, b = (self.weights[f"{key}.lora_{side}.weight"].to(self.device).float() for side in "AB")
            weight = (weight.float() + self.scale * (b @ a)).to(self.dtype)
        return weight.cpu().contiguous()


def nf4_round_trip(weight: Tensor) -> Tensor:
    """Quantise to NF4 with double quantisation and dequantise, as bitsandbytes' Params4bit does (blocks of 64)."""
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    return functional.dequantize_4bit(packed, state)


def _write_other_files(run: FinishedRun, to: Path) -> None:
    """Write configuration, index, tokenizer, template and card."""
    index = locate(run.base_model, INDEX, run.config.revision)
    if index is not None:
        shutil.copyfile(index, to / INDEX)
    template = run.record["template"]
    ids = special_token_ids(run.base_model, run.config.revision, run.tokenizer, template)
    model_config = read_model_config(run.base_model, run.config.revision)
    model_config.pop("quantization_config", None)
    model_config.pop("torch_dtype", None)
    model_config.pop("pad_token_id", None)
    model_config |= {"dtype": str(run.runtime.dtype).removeprefix("torch.")} | ids
    (to / "config.json").write_text(json.dumps(model_config, indent=2), "utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(run.folder.adapter / name, to / name)
    write_generation_config(to, run.base_model, run.config.revision, ids)
    check_stopping(to, template["end_token"])
    card = (run.folder.adapter / "README.md").read_text("utf-8")
    card = card.replace("library_name: peft", "library_name: transformers").replace("# LoRA adapter", "# Merged model")
    note = "\nMerged into the dequantised NF4 base that the adapter was trained on: load it without quantisation.\n"
    (to / "README.md").write_text(card + note, "utf-8")


def compare(run: FinishedRun, merged: Path, rows: list[list[int]]) -> tuple[float, float]:
    """Compare the merged model's logits with the adapter's on `rows` (ids), with one model in memory at a time.

    Returns:
        The largest difference, and the mean divergence per token of the merged model from the adapter, in nats.
    """
    import torch
    from transformers import AutoModelForCausalLM

    adapted = load_run_model(run)
    expected = [_logits(adapted, row, run) for row in rows]
    del adapted
    if run.runtime.device != "cpu":
        torch.cuda.empty_cache()
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(merged),
        dtype=run.runtime.dtype,
        device_map={"": run.runtime.device},
        attn_implementation=run.runtime.attention,
    )
    model.eval()
    largest, divergence, tokens = 0.0, 0.0, 0
    for row, before in zip(rows, expected, strict=True):
        after = _logits(model, row, run)
        largest = max(largest, float((after - before).abs().max()))
        p, q = before.log_softmax(-1), after.log_softmax(-1)
        divergence += float((p.exp() * (p - q)).sum())
        tokens += len(row)
    return largest, divergence / max(tokens, 1)


def _rows_to_check(run: FinishedRun) -> list[list[int]]:
    data = load_training_data(run.config, open_run_build(run), run.tokenizer)
    rows = (data.test or data.train).labelled.rows
    return [
        rows.ids[rows.bounds[number] : rows.bounds[number + 1]][:CHECKED_TOKENS].tolist()
        for number in range(min(CHECKED_ROWS, len(rows.names)))
    ]


def _logits(model: Any, row: list[int], run: FinishedRun) -> Tensor:
    """Logits of every token of one row: tokens x vocabulary, float32, on the CPU."""
    import torch

    from training.model.attention import boundaries

    device = torch.device(run.runtime.device)
    ids = torch.tensor([row], device=device)
    alone = boundaries([len(row)], device) if run.runtime.packed else {}
    with torch.no_grad(), autocast(run.runtime):
        outputs = model(input_ids=ids, use_cache=False, **alone)
    logits: Tensor = outputs.logits[0].float().cpu()
    return logits
