"""--add-tokens: a ChatML build on a model whose tokenizer lacks ChatML's tokens, from the first step to the merged model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.processes import kill_after
from tests.support.tiny_models import tiny_tokenizer, write_tiny_model
from tests.support.training_builds import chatter, row, write_build
from training.after.evaluate import evaluate
from training.after.generate import generate
from training.after.merge import merge
from training.config import RunConfig
from training.errors import ModelError, OptionError
from training.model.added_tokens import added_tokens, load_run_tokenizer, read_added_tokens
from training.run import run
from training.run_folder import RunFolder

CHATML = "<|im_start|>,<|im_end|>"


@pytest.fixture(scope="module")
def chatml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [row(f"c{n}", [(f"Say apple {n}.", "apple apple.")], style="chatml") for n in range(24)]
    return write_build(tmp_path_factory.mktemp("chatml") / "build", rows[:16], rows[16:], style="chatml")


@pytest.fixture(scope="module")
def untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with one embedding for each id of its tokenizer, and an output layer of its own."""
    folder = tmp_path_factory.mktemp("untied") / "model"
    write_tiny_model("llama", folder, tiny_tokenizer())
    return folder


@pytest.fixture(scope="module")
def tied(untied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with its embeddings as the output layer."""
    folder = tmp_path_factory.mktemp("tied") / "model"
    shutil.copytree(untied, folder)
    config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": True}
    (folder / "config.json").write_text(json.dumps(config))
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(params=["untied", "tied"])
def base(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(request.param)
    return folder


def config_for(build: Path, base: Path, out: Path, **options: Any) -> RunConfig:
    return RunConfig(
        data=build, model=str(base), device="cpu", out=out, max_steps=2, save_every=1, stop_prompts=0, max_tokens=128,
        tokens_per_step=256, lora_r=4, lr=0.02, **options,
    )  # fmt: skip


def test_a_template_whose_tokens_the_tokenizer_lacks_names_the_option(
    chatml: Path, untied: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="--add-tokens"):
        run(config_for(chatml, untied, tmp_path / "run"))


def test_added_tokens_are_trained_saved_and_merged(chatml: Path, base: Path, tmp_path: Path) -> None:
    size = load_run_tokenizer(str(base), RunConfig(data=chatml, model="m")).size
    config = config_for(chatml, base, tmp_path / "run", add_tokens=CHATML, rslora=True)
    record = run(config)
    assert any(f"<|im_start|> ({size}), <|im_end|> ({size + 1})" in note for note in record["notes"])
    folder = RunFolder(tmp_path / "run")
    weights = load_file(folder.adapter / "adapter_model.safetensors")
    rows = {key: value for key, value in weights.items() if "lora_" not in key}
    assert {tuple(value.shape) for value in rows.values()} == {(2, 64)}  # no whole matrix is saved
    kill_after(1, folder.path)
    assert run(replace(config, resume="auto"))["metrics"] == record["metrics"]
    result = evaluate(tmp_path / "run", 1, 4)
    assert result["after"]["loss"] == pytest.approx(record["metrics"]["held_out_after"], rel=1e-4)
    assert generate(tmp_path / "run", "Say apple.", None, max_new_tokens=4, temperature=0, seed=0)
    merged = merge(tmp_path / "run", tmp_path / "merged", check=True)
    assert merged["kl"] < 1e-5
    _check_stock(tmp_path / "merged", size)
    _check_stock_peft(base, folder.adapter, tmp_path / "merged")


def _check_stock(folder: Path, size: int) -> None:
    """Stock transformers has a row for each added token and encodes it as one id."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    model: Any = AutoModelForCausalLM.from_pretrained(str(folder))
    assert tokenizer("<|im_start|>", add_special_tokens=False)["input_ids"] == [size]
    assert model.config.vocab_size == size + 2 == len(model.get_input_embeddings().weight)
    assert len(model.get_output_embeddings().weight) == size + 2


def _check_stock_peft(base: Path, adapter: Path, merged: Path) -> None:
    """Stock peft on the resized base has the logits of the merged model, apart from NF4's rounding of the base."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(str(base))
    model.resize_token_embeddings(len(AutoTokenizer.from_pretrained(str(adapter))), mean_resizing=False)
    adapted: Any = PeftModel.from_pretrained(model, str(adapter))
    own: Any = AutoModelForCausalLM.from_pretrained(str(merged))
    rows = own.get_input_embeddings().weight[-2:]
    assert torch.allclose(adapted.get_input_embeddings().weight[-2:], rows)


def test_dora_and_lora_plus_are_trained_and_merged(chatml: Path, untied: Path, tmp_path: Path) -> None:
    run(config_for(chatml, untied, tmp_path / "run", add_tokens=CHATML, dora=True, lora_plus=16.0))
    assert merge(tmp_path / "run", tmp_path / "merged", check=True)["kl"] < 1e-5


@pytest.mark.parametrize("which, modules", [("untied", "embed_tokens,lm_head"), ("tied", "embed_tokens")])
def test_whole_layers_in_half_precision_are_trained_resumed_and_merged(
    chatml: Path, tmp_path: Path, request: pytest.FixtureRequest, which: str, modules: str
) -> None:
    config = config_for(
        chatml, request.getfixturevalue(which), tmp_path / "run", add_tokens=CHATML, modules_to_save=modules,
        targets=r".*self_attn\.(q|v)_proj", precision="bf16",
    )  # fmt: skip
    record = run(config)
    kill_after(1, tmp_path / "run")
    assert run(replace(config, resume="auto"))["metrics"] == record["metrics"]
    merged = merge(tmp_path / "run", tmp_path / "merged", check=True)
    assert merged["kl"] < 2e-3
    assert merged["merged"] == 4 + len(modules.split(","))


def test_a_file_of_tokens_is_recorded_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "tokens.txt"
    path.write_text("<a>\n\n<b,c>\n<a>\n")
    recorded = read_added_tokens(str(path))
    assert recorded == "<a>\n<b,c>\n" == read_added_tokens(recorded)
    assert added_tokens(RunConfig(data=tmp_path, model="m", add_tokens="<x>, <y>")) == ["<x>", "<y>"]
    with pytest.raises(OptionError, match="names no token"):
        read_added_tokens(" ,")


def test_long_lists_are_read_and_more_or_longer_tokens_than_can_be_are_refused() -> None:
    assert read_added_tokens(",".join(f"<tool_{n}>" for n in range(3_000))) == "".join(
        f"<tool_{n}>\n" for n in range(3_000)
    )
    with pytest.raises(
        OptionError, match="names 1 token, the longest with 100,000 characters: at most 10,000 tokens of 200"
    ):
        read_added_tokens("x" * 100_000)
    with pytest.raises(OptionError, match="names 10,001 tokens"):
        read_added_tokens("\n".join(f"<{n}>" for n in range(10_001)))


def test_a_run_continues_from_an_adapter_with_the_same_added_tokens(chatml: Path, base: Path, tmp_path: Path) -> None:
    first = run(config_for(chatml, base, tmp_path / "first", add_tokens=CHATML))
    config = config_for(chatml, base, tmp_path / "second", add_tokens=CHATML, init_adapter=tmp_path / "first")
    second = run(config)
    assert second["metrics"]["held_out_before"] == pytest.approx(first["metrics"]["held_out_after"], rel=1e-5)
    for number, tokens in enumerate(("<|im_end|>,<|im_start|>", CHATML + ",<|x|>")):
        with pytest.raises(OptionError, match="give the same --add-tokens, in the same order"):
            run(replace(config, out=tmp_path / str(number), add_tokens=tokens))


def test_tokens_are_added_when_a_run_continues_from_an_adapter_without_them(
    chatml: Path, untied: Path, tmp_path: Path
) -> None:
    llama2 = write_build(tmp_path / "llama2", chatter(16), chatter(8, seed=5))
    run(config_for(llama2, untied, tmp_path / "first"))
    record = run(config_for(chatml, untied, tmp_path / "second", add_tokens=CHATML, init_adapter=tmp_path / "first"))
    assert record["status"] == "done"


def test_tokens_that_the_tokenizer_has_get_the_rows_that_the_model_lacks(
    chatml: Path, untied: Path, tmp_path: Path
) -> None:
    """The tokenizer has one more id beyond the embeddings, which no row uses."""
    base = tmp_path / "base"
    shutil.copytree(untied, base)
    larger = load_run_tokenizer(str(base), RunConfig(data=chatml, model="m", add_tokens=CHATML + ",<|more|>"))
    larger.backend.save(str(base / "tokenizer.json"))
    with pytest.raises(ModelError, match="or --add-tokens"):
        run(config_for(chatml, base, tmp_path / "refused"))
    record = run(config_for(chatml, base, tmp_path / "run", add_tokens="<s>," + CHATML))
    assert any("no row uses an id beyond them" in note for note in record["notes"])
    weights = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert {tuple(value.shape) for key, value in weights.items() if "lora_" not in key} == {(3, 64)}
    assert merge(tmp_path / "run", tmp_path / "merged", check=True)["kl"] < 1e-5
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["vocab_size"] == larger.size - 1
