"""Merging an adapter into its base model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dataprep.common.errors import UserError
from tests.support.commands import training_here
from tests.support.disk import limited_file_size
from tests.support.tiny_models import tiny_tokenizer, write_tiny_model
from tests.support.training_runs import copy_run
from training.after.merge import merge, merged_config
from training.after.merge_weights import AdapterProducts, read_weights
from training.config import TINY_DEFAULTS, RunConfig
from training.data.training_data import open_training_build
from training.errors import ModelError, RunError
from training.model import tiny
from training.model.base import load_base
from training.model.runtime import Runtime
from training.run import run


def test_a_merged_model_has_the_adapters_logits_and_opens_with_stock_transformers(
    finished_run: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    to = tmp_path / "merged"
    printed = training_here("merge", "--run", finished_run, "--to", to).stdout
    assert float(printed.split("Largest logit difference ")[1].split(",")[0]) < 0.005, printed
    model = AutoModelForCausalLM.from_pretrained(to)
    ids = AutoTokenizer.from_pretrained(to)("[INST] hi", return_tensors="pt").input_ids
    assert torch.isfinite(model(ids).logits).all()
    done = training_here("merge", "--run", finished_run, "--to", to, check=1)
    assert "not empty" in done.stderr


def test_nothing_is_written_if_the_build_for_the_check_is_missing(finished_run: Path, tmp_path: Path) -> None:
    path = copy_run(finished_run, tmp_path / "copy", operational__data=str(tmp_path / "missing"))
    with pytest.raises(UserError):
        merge(path, tmp_path / "merged", check=True)
    assert not list(tmp_path.glob("merged*"))


def test_a_file_is_not_replaced_by_a_merged_model(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="is not a folder"):
        merge(finished_run, tmp_path / "file", check=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_merge_on_a_full_disk_leaves_nothing_and_can_be_repeated(finished_run: Path, tmp_path: Path) -> None:
    to = tmp_path / "merged"
    with limited_file_size(2**18), pytest.raises(RunError, match=r"merged could not be written .* merge again"):
        merge(finished_run, to, check=False)
    assert not list(tmp_path.glob("merged*"))
    merge(finished_run, to, check=False)
    assert (to / "model.safetensors").exists()


def test_damaged_weights_are_one_sentence(finished_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished_run / "base", tmp_path / "base")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(ModelError, match="cannot be read"):
        read_weights(weights)
    runtime = Runtime("cpu", "fp32", "dataprep_segments", liger=False)
    with pytest.raises(ModelError, match="are damaged"):
        load_base(str(folder), None, RunConfig(data=tmp_path, model=str(folder)), runtime)


def test_a_merged_model_that_differs_from_the_adapter_is_not_written(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = AdapterProducts.add_to
    monkeypatch.setattr(AdapterProducts, "add_to", lambda *given, **named: original(*given, **named) * 1.5)
    with pytest.raises(ModelError, match="differs from the adapter: mean KL"):
        merge(finished_run, tmp_path / "merged", check=True)
    assert not list(tmp_path.glob("merged*"))


def train(folder: Path, base: Path, build: Path, **options: Any) -> Path:
    """Train two steps on a base model; returns the run."""
    out = folder / "run"
    settings: dict[str, Any] = {**TINY_DEFAULTS, "epochs": 1.0, "max_tokens": 256, "lr": 0.05} | options
    run(RunConfig(data=build, model=str(base), device="cpu", out=out, max_steps=2, **settings))
    return out


def write_base(folder: Path, build: Path) -> Path:
    config = RunConfig(data=build, model="tiny")
    tiny.write_model(folder / "base", open_training_build(config), 0)
    return folder / "base"


@pytest.mark.parametrize("tied", [False, True])
def test_an_adapter_of_the_embeddings_is_merged(small_build: Path, tmp_path: Path, tied: bool) -> None:
    base = write_base(tmp_path, small_build)
    if tied:
        from transformers import LlamaForCausalLM

        model = LlamaForCausalLM.from_pretrained(base)
        model.config.tie_word_embeddings = True
        model.tie_weights()
        model.save_pretrained(base)
    path = train(tmp_path, base, small_build, targets="embed_tokens,q_proj", quantization="none")
    result = merge(path, tmp_path / "merged", check=True)
    assert result["merged"] == 3 and result["kl"] < 1e-6 and result["untied"] == tied


def test_an_adapter_is_merged_into_a_checkpoint_without_the_models_prefix_in_several_files(
    small_build: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    base = write_base(tmp_path, small_build)
    weights = {name.removeprefix("model."): value for name, value in load_file(base / "model.safetensors").items()}
    (base / "model.safetensors").unlink()
    halves = sorted(weights)[::2], sorted(weights)[1::2]
    weight_map: dict[str, str] = {}
    for number, names in enumerate(halves):
        save_file({name: weights[name] for name in names}, base / f"model-{number}.safetensors", {"format": "pt"})
        weight_map |= dict.fromkeys(names, f"model-{number}.safetensors")
    index = {"metadata": {}, "weight_map": weight_map}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    path = train(tmp_path, base, small_build)
    result = merge(path, tmp_path / "merged", check=True)
    assert result["merged"] == 14 and result["shards"] == 2 and result["kl"] < 1e-6


@pytest.mark.parametrize(("architecture", "layers"), [("llama", 14), ("gpt2", 8)])  # GPT-2's weights are transposed
def test_a_base_that_bitsandbytes_has_quantised_is_merged_dequantised(
    small_build: Path, tmp_path: Path, architecture: str, layers: int
) -> None:
    """The run computes in fp32 although the base was quantised for bf16."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    base = tmp_path / "base"
    write_tiny_model(architecture, base, tiny_tokenizer())
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(base, quantization_config=nf4, dtype=torch.bfloat16)
    (base / "model.safetensors").unlink()
    model.save_pretrained(base)
    path = train(tmp_path, base, small_build)
    result = merge(path, tmp_path / "merged", check=True)
    assert result["merged"] == layers and result["kl"] < 1e-6
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())


def test_the_bias_of_a_layer_that_is_trained_whole_is_merged(small_build: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    write_tiny_model("phi", base, tiny_tokenizer())
    path = train(tmp_path, base, small_build, targets="q_proj", modules_to_save="lm_head", quantization="none")
    result = merge(path, tmp_path / "merged", check=True)
    assert result["merged"] == 3 and result["kl"] < 1e-6
    trained = read_weights(path / "adapter" / "adapter_model.safetensors")["base_model.model.lm_head.bias"]
    assert read_weights(tmp_path / "merged" / "model.safetensors")["lm_head.bias"].equal(trained)


@pytest.mark.parametrize("config, expected", [
    ({"model_type": "llama"}, [5, 7]),
    ({"model_type": "inkling_text"}, 5),
    ({"model_type": "inkling2", "text_config": {"model_type": "inkling2_text", "eos_token_id": 2}}, 5),
])  # fmt: skip
def test_a_config_that_accepts_one_end_token_gets_that_of_the_template(config: dict[str, Any], expected: Any) -> None:
    merged = merged_config(config, None, "float32", {"eos_token_id": [5, 7]}, untied=False)
    assert merged["eos_token_id"] == merged.get("text_config", merged)["eos_token_id"] == expected
