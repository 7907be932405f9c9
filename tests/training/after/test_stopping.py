"""Stock `generate()` stops at the template's end token, with the adapter and with the merged model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.training_builds import chatter, row, write_build
from tests.support.training_runs import short_answers
from training.after.merge import merge, merged_config
from training.after.stopping import check_stopping, special_token_ids
from training.config import TINY_DEFAULTS, RunConfig
from training.data.training_data import open_training_build
from training.errors import RunError
from training.model import tiny
from training.model.tokenizer import ChatTokenizer, self_contained, written_tokens
from training.run import run


@pytest.fixture(scope="module")
def chatml_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ChatML run on a base model that ends with another token and pads with a control token, as Qwen2 does."""
    folder = tmp_path_factory.mktemp("stopping")
    rows = [
        row(columns["id"], [(m["content"], a["content"]) for m, a in zip(*[iter(columns["messages"])] * 2, strict=True)],
            style="chatml")
        for columns in chatter(60, turns=1)
    ]  # fmt: skip
    build = write_build(folder / "build", rows, rows[:4], style="chatml")
    base = folder / "base"
    config = RunConfig(data=build, model=str(base), device="cpu", out=folder / "run", quantization="none",
                       max_steps=40, **{**TINY_DEFAULTS, "epochs": 1.0, "tokens_per_step": 512, "max_tokens": 256, "stop_prompts": 4})  # fmt: skip
    tiny.write_model(base, open_training_build(config), 0)
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        path = base / name
        content = json.loads(path.read_text())
        if name == "tokenizer_config.json":
            content |= {"eos_token": "<pad>", "pad_token": "<|im_start|>"}
        else:
            content |= {"eos_token_id": 0, "pad_token_id": 1}
        path.write_text(json.dumps(content))
    with short_answers():
        assert run(config)["metrics"]["stopped_by_itself"] == 1
    return folder / "run"


def read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def test_the_adapters_files_name_the_end_token_and_no_control_token_pads(chatml_run: Path) -> None:
    from transformers import AutoTokenizer

    adapter = chatml_run / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert tokenizer.eos_token == "<|im_end|>" and tokenizer.pad_token == "<pad>"
    assert read(adapter / "generation_config.json")["eos_token_id"] == [end, 0]
    assert read(adapter / "generation_config.json")["pad_token_id"] == 0
    settings = read(adapter / "tokenizer_config.json")
    assert settings["tokenizer_class"] == "PreTrainedTokenizerFast" and "backend" not in settings


def test_stock_generate_stops_with_the_merged_model(chatml_run: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    merged = tmp_path / "merged"
    merge(chatml_run, merged, check=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(merged)
    model: Any = AutoModelForCausalLM.from_pretrained(merged)
    messages = [{"role": "user", "content": "Say moon 2 times."}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    generated = model.generate(**prompt, max_new_tokens=64, do_sample=False)[0]
    assert len(generated) < prompt["input_ids"].shape[1] + 64
    assert generated[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert read(merged / "config.json")["eos_token_id"] == read(merged / "generation_config.json")["eos_token_id"]


def test_files_that_would_not_stop_are_refused(chatml_run: Path, tmp_path: Path) -> None:
    from shutil import copytree

    adapter = copytree(chatml_run / "adapter", tmp_path / "adapter")
    check_stopping(adapter, "<|im_end|>")
    (adapter / "generation_config.json").write_text('{"eos_token_id": 0}')
    with pytest.raises(RunError, match="would not stop generation"):
        check_stopping(adapter, "<|im_end|>")


@pytest.mark.parametrize(
    "configured, special, padding",
    [
        ({"pad_token": "<|im_start|>"}, ["<|im_start|>", "<|im_end|>", "<|endoftext|>"], "<|endoftext|>"),
        (
            {"pad_token": "<|im_end|>", "eos_token": "<|other|>"},
            ["<|im_start|>", "<|im_end|>", "<|other|>"],
            "<|other|>",
        ),
        ({"pad_token": "<p>"}, ["<|im_start|>", "<|im_end|>", "<p>"], "<p>"),
        ({}, ["<|im_start|>", "<|im_end|>"], None),
    ],
)
def test_a_token_that_the_template_writes_never_pads(
    configured: dict[str, str], special: list[str], padding: str | None
) -> None:
    tokenizer = special_tokenizer(special, configured)
    assert tokenizer.padding_token("<|im_end|>", ["<|im_start|>", "<|im_end|>"]) == padding
    assert tokenizer.for_transformers("<|im_end|>", None, ["<|im_start|>"]).pad_token == padding


def special_tokenizer(special: list[str], config: dict[str, str]) -> ChatTokenizer:
    from tokenizers import AddedToken, Tokenizer, models

    backend = Tokenizer(models.BPE())
    backend.add_special_tokens([AddedToken(token, special=True) for token in special])
    return ChatTokenizer(backend, dict(config), None)


def test_a_saved_template_writes_the_tokens_that_it_names_as_in_the_build() -> None:
    template = "{{ bos_token }}{% for m in messages %}{{ m.content }}<|end|>{% endfor %}{{ eos_token }}"
    manifest: dict[str, Any] = {
        "bos_token": "<|begin|>", "eos_token": "<|over|>", "end_token": "<|end|>",
        "special_tokens": ["<|begin|>", "<|end|>", "<|over|>", "<pad>"],
    }  # fmt: skip
    tokenizer = special_tokenizer([*manifest["special_tokens"], "<s>"], {"bos_token": "<s>", "pad_token": "<pad>"})
    saved: Any = tokenizer.for_transformers("<|end|>", self_contained(template, manifest), (), manifest["bos_token"])
    rendered = saved.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert rendered == "<|begin|>a<|end|><|over|>"
    assert (saved.bos_token, saved.eos_token) == ("<|begin|>", "<|end|>")


def test_a_listed_token_that_the_template_does_not_write_pads() -> None:
    """Gemma's template lists <pad>, Llama 2's <unk>: texts may not hold them, and the template does not write them."""
    template = "{#- special_tokens = <pad> -#}{{ bos_token }}{{ '<|' + messages[0].role + '|>' }}"
    manifest = {"bos_token": "<s>", "eos_token": "</s>", "special_tokens": ["<pad>", "<s>", "</s>", "<|user|>"]}
    written = written_tokens(template, manifest, ["<s><|user|>"])
    assert written == ["<s>", "<|user|>"]
    tokenizer = special_tokenizer(["<|user|>", "<s>", "</s>", "<pad>"], {"pad_token": "<pad>"})
    assert tokenizer.padding_token("</s>", written) == "<pad>"


def test_the_only_special_token_of_a_tokenizer_does_not_pad_in_generation(tmp_path: Path) -> None:
    """GPT-2's, for example: trl pads with it."""
    (tmp_path / "config.json").write_text('{"eos_token_id": 0}')
    names = dict.fromkeys(("bos_token", "eos_token", "pad_token"), "<|endoftext|>")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(names))
    tokenizer = special_tokenizer(["<|endoftext|>"], names)
    assert special_token_ids(str(tmp_path), None, tokenizer, tmp_path) == {"eos_token_id": [0], "bos_token_id": 0}


def test_the_end_token_of_a_multimodal_model_is_in_its_text_part_too() -> None:
    text = {"model_type": "gemma3_text", "eos_token_id": 2, "vocab_size": 5}
    config = {"model_type": "gemma3", "text_config": text, "eos_token_id": 2}
    merged = merged_config(config, None, "float32", {"eos_token_id": [4, 2], "pad_token_id": 0}, untied=False)
    assert merged["text_config"] == text | {"eos_token_id": [4, 2]}


def test_the_commit_of_a_hub_model_is_in_the_adapters_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from training.after.adapter import _hub_revision

    record: Any = {"model": {"name": "org/name", "revision": "abc"}}
    assert _hub_revision(SimpleNamespace(base_model="org/name"), record) == "abc"  # type: ignore[arg-type]
    assert _hub_revision(SimpleNamespace(base_model="."), record) is None  # type: ignore[arg-type]
