"""An adapter into its base model, shard by shard.

The base is taken as the adapter saw it: each 4-bit weight is quantised and dequantised again as bitsandbytes did when the
run loaded it, and the adapter's product added. Merging onto the original 16-bit weights, or into 4-bit ones, gives other
answers (top-1 agreement with the adapter's 0.83 and 0.88, against all but equal logits this way).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.after.evaluate import Finished, autocast, bound_build, load, open_run
from training.data.training_data import load_training_data
from training.errors import ModelError, RunError
from training.model.files import locate, read_json_object
from training.run_folder import PARTIAL, commit_folder, writing

if TYPE_CHECKING:
    from torch import Tensor

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
CHECKED_ROWS = 8
CHECKED_TOKENS = 512  # of each row, at most


def merge(path: Path, to: Path, *, check: bool) -> dict[str, Any]:
    """Write the merged model of the run in `path` to the folder `to`; returns what was done and how far it is off.

    Raises:
        RunError: `to` is not empty, or cannot be written.
        ModelError: the base model has no safetensors, or damaged ones.
        BuildError, DataError: the build to check with is not there any more; nothing was written.
    """
    if to.exists() and not to.is_dir():
        raise RunError(f"{to} is no folder: choose another --to.")
    if to.exists() and any(to.iterdir()):
        raise RunError(f"{to} is not empty: choose another --to.")
    run = open_run(path)
    rows = _rows(run) if check else []
    partial = to.with_name(to.name + PARTIAL)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with writing(str(to), partial, "merge again"):
            partial.mkdir(parents=True)
            merged, shards = _write(run, partial)
            _accompany(run, partial)
            if to.exists():
                to.rmdir()
            commit_folder(partial, to)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # renamed by now, or of no use
    facts: dict[str, Any] = {"merged": merged, "shards": shards}
    return facts | (compare(run, to, rows) if check else {})


def _write(run: Finished, to: Path) -> tuple[int, int]:
    """All shards of the base model, with the adapter merged; returns the numbers of merged layers and of shards."""
    from safetensors.torch import save_file

    deltas = Deltas(run)
    shards = list(_shards(run))
    quantized = _quantized_names(run) if run.config.quantization == "nf4" else set()
    for shard in shards:
        weights = read_weights(shard)
        for name, weight in weights.items():
            weights[name] = deltas.onto(name, weight, quantized=name in quantized)
        save_file(weights, str(to / shard.name), metadata={"format": "pt"})
    if deltas.left:
        raise ModelError(
            f"The adapter has weights for {', '.join(sorted(deltas.left)[:3])}, which the base model lacks."
        )
    return deltas.count, len(shards)


def read_weights(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        ModelError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(str(path)))
    except (OSError, SafetensorError) as fault:
        raise ModelError(f"{path} cannot be read ({fault}): fetch it again, or train again.") from None


def _shards(run: Finished) -> Iterator[Path]:
    index = locate(run.name, INDEX, run.config.revision)
    names = sorted(set(read_json_object(index)["weight_map"].values())) if index else [SINGLE]
    for name in names:
        path = locate(run.name, name, run.config.revision)
        if path is None:
            raise ModelError(f"{run.name} has no {name}: merging reads safetensors; convert the model first.")
        yield path


def _quantized_names(run: Finished) -> set[str]:
    """The weights that transformers holds in 4 bits: all linear layers but the output layer."""
    import torch
    from accelerate import init_empty_weights
    from transformers import AutoConfig, AutoModelForCausalLM

    with init_empty_weights():
        skeleton = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            AutoConfig.from_pretrained(run.name, revision=run.config.revision)
        )
    output = skeleton.get_output_embeddings()
    linear = [name for name, m in skeleton.named_modules() if isinstance(m, torch.nn.Linear) and m is not output]
    return {f"{name}.weight" for name in linear}


class Deltas:
    """The adapter's products by the name of the weight they belong to; `left`: those not merged yet."""

    def __init__(self, run: Finished) -> None:
        settings = read_json_object(run.folder.adapter / "adapter_config.json")
        self.scale = settings["lora_alpha"] / settings["r"]
        self.weights = read_weights(run.folder.adapter / "adapter_model.safetensors")
        self.dtype, self.device = run.place.dtype, run.place.device
        mark = ".lora_A.weight"
        self.left = {name.removesuffix(mark) for name in self.weights if name.endswith(mark)}
        self.count = 0

    def onto(self, name: str, weight: Tensor, *, quantized: bool) -> Tensor:
        """`weight` in the run's arithmetic, as the run saw it, with the adapter's product added in float32."""
        if not weight.is_floating_point():
            return weight
        weight = weight.to(self.device, self.dtype)
        if quantized:
            weight = as_nf4(weight)
        key = "base_model.model." + name.removesuffix(".weight")
        if key in self.left:
            self.left.remove(key)
            self.count += 1
            low, high = (self.weights[f"{key}.lora_{side}.weight"].to(self.device).float() for side in "AB")
            weight = (weight.float() + self.scale * (high @ low)).to(self.dtype)
        return weight.cpu().contiguous()


def as_nf4(weight: Tensor) -> Tensor:
    """What NF4 with double quantisation keeps of `weight`, in its own type (bitsandbytes' Params4bit, block of 64)."""
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=True, quant_type="nf4")
    return functional.dequantize_4bit(packed, state)


def _accompany(run: Finished, to: Path) -> None:
    """Configuration, index, tokenizer, template and card beside the weights."""
    for name in ("config.json", "generation_config.json", INDEX):
        path = locate(run.name, name, run.config.revision)
        if path is not None:
            shutil.copyfile(path, to / name)
    facts = read_json_object(to / "config.json")
    facts.pop("quantization_config", None)
    facts["dtype"] = str(run.place.dtype).removeprefix("torch.")
    facts.pop("torch_dtype", None)
    (to / "config.json").write_text(json.dumps(facts, indent=2), "utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(run.folder.adapter / name, to / name)
    card = (
        (run.folder.adapter / "README.md")
        .read_text("utf-8")
        .replace("library_name: peft", "library_name: transformers")
    )
    note = "\nMerged onto the dequantised NF4 base that the adapter was trained on: load it as it is, not in 4 bits.\n"
    (to / "README.md").write_text(card.replace("# LoRA adapter", "# Merged model") + note, "utf-8")


def compare(run: Finished, merged: Path, rows: list[list[int]]) -> dict[str, float]:
    """How far the merged model is from the base with the adapter on it, on `rows` (ids); one runs after the other.

    Returns:
        `logit_difference`, the largest; `kl`, the mean divergence a token of the merged model's from the adapter's, in nats.
    """
    import torch
    from transformers import AutoModelForCausalLM

    adapted = load(run)
    told = [_logits(adapted, row, run) for row in rows]
    del adapted
    if run.place.device != "cpu":
        torch.cuda.empty_cache()
    model: Any = AutoModelForCausalLM.from_pretrained(
        str(merged), dtype=run.place.dtype, device_map={"": run.place.device}, attn_implementation=run.place.attention
    )
    model.eval()
    worst, divergence, tokens = 0.0, 0.0, 0
    for row, before in zip(rows, told, strict=True):
        after = _logits(model, row, run)
        worst = max(worst, float((after - before).abs().max()))
        p, q = before.log_softmax(-1), after.log_softmax(-1)
        divergence += float((p.exp() * (p - q)).sum())
        tokens += len(row)
    return {"logit_difference": worst, "kl": divergence / max(tokens, 1)}


def _rows(run: Finished) -> list[list[int]]:
    build = bound_build(run)
    prepared = load_training_data(run.config, build, run.vocabulary)
    rows = (prepared.test or prepared.train).labelled.rows
    return [
        rows.ids[rows.bounds[n] : rows.bounds[n + 1]][:CHECKED_TOKENS].tolist()
        for n in range(min(CHECKED_ROWS, len(rows.names)))
    ]


def _logits(model: Any, row: list[int], run: Finished) -> Tensor:
    """Logits of every token of one row, tokens x vocabulary, float32, on the CPU."""
    import torch

    from training.model.attention import boundaries

    device = torch.device(run.place.device)
    ids = torch.tensor([row], device=device)
    with torch.no_grad(), autocast(run.place):
        out = model(input_ids=ids, use_cache=False, **boundaries([len(row)], device))
    logits: Tensor = out.logits[0].float().cpu()
    return logits
