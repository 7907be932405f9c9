"""What is done with a finished run: opening it, evaluating, and stock libraries on its adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commands import training_here
from tests.support.training_runs import copy_run
from training.after import finished_run as module
from training.after.evaluate import evaluate
from training.after.finished_run import open_finished_run
from training.after.generate import generate
from training.after.merge_weights import AdapterProducts, BaseWeights
from training.errors import ModelError, OptionError
from training.run_folder import RunFolder


def test_stock_libraries_open_the_adapter(finished_run: Path) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    adapter = finished_run / "adapter"
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    assert tokenizer.pad_token != tokenizer.eos_token == "</s>"
    prompt = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert prompt == "<s>[INST] Hi [/INST]"
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(finished_run / "base")  # absolute, although --out was relative
    assert AutoPeftModelForCausalLM.from_pretrained(adapter).config.vocab_size > 0
    assert RunFolder(finished_run).read()["provenance"]["version"] in (adapter / "README.md").read_text()


def test_evaluate_gives_the_losses_of_the_run_and_generate_an_answer(finished_run: Path) -> None:
    printed = training_here(
        "evaluate", "--run", finished_run, "--prompts", "4", "--max-new-tokens", "32", "--json"
    ).stdout
    result = json.loads(printed)
    recorded = RunFolder(finished_run).read()["metrics"]
    assert result["after"]["loss"] == pytest.approx(recorded["held_out_after"], abs=1e-4)
    assert result["before"]["loss"] == pytest.approx(recorded["held_out_before"], abs=1e-4)
    prompt = ["generate", "--run", finished_run, "--prompt", "Say moon 2 times.", "--max-new-tokens", "16"]
    assert training_here(*prompt).stdout.strip()


def test_the_precision_of_the_run_is_kept_on_another_machine(finished_run: Path, tmp_path: Path) -> None:
    """NF4 rounds a weight differently for each type, so a GPU's bf16 run is evaluated and merged in bf16 on a CPU."""
    path = copy_run(
        finished_run, tmp_path / "copy",
        place__precision="bf16", options__device="cuda", options__attention="varlen", options__kernels="liger",
    )  # fmt: skip
    run = open_finished_run(path)
    assert (run.runtime.device.split(":")[0], run.runtime.precision) != ("cpu", "fp32")
    assert str(AdapterProducts(run, BaseWeights(run)).dtype) == "torch.bfloat16"
    assert open_finished_run(finished_run).runtime.precision == "fp32"


def test_the_commit_of_the_base_model_is_kept(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copy_run(finished_run, tmp_path / "copy", options__model="org/name", model__revision="abc")
    loaded: list[tuple[str, str]] = []
    monkeypatch.setattr(module, "load_run_tokenizer", lambda name, config: loaded.append((name, config.revision)))
    run = open_finished_run(path)
    assert loaded == [("org/name", "abc")] and run.config.revision == "abc"


def test_a_changed_base_model_is_refused(finished_run: Path, tmp_path: Path) -> None:
    path = copy_run(finished_run, tmp_path / "copy")
    config = path / "base" / "config.json"
    config.write_text(config.read_text() + " ")
    with pytest.raises(ModelError, match="is not the model that the run"):
        open_finished_run(path)


@pytest.mark.parametrize(
    "values, flag",
    [({"max_new_tokens": 0}, "--max-new-tokens"), ({"temperature": -1.0}, "--temperature"), ({"seed": -1}, "--seed")],
)
def test_generate_refuses_invalid_numbers(values: dict[str, float], flag: str) -> None:
    numbers = {"max_new_tokens": 1, "temperature": 0.0, "seed": 0} | values
    with pytest.raises(OptionError, match=flag):
        generate(Path("none"), "Hi", None, **numbers)  # type: ignore[arg-type]


def test_evaluate_refuses_less_than_one_prompt() -> None:
    with pytest.raises(OptionError, match="--prompts"):
        evaluate(Path("none"), 0, 1)
