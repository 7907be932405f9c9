"""Every option reaches the library's configuration or the result; an option without a test fails."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.shapes import LLAMA_2_7B, llama_2_7b_sizes
from tests.support.tiny_models import tiny_mistral
from training.config import RunConfig, check, names
from training.errors import OptionError
from training.loop.arguments import trainer_arguments
from training.memory.batches import BatchConfig, possible_batches
from training.memory.choose import available_memory
from training.memory.estimate import GIB
from training.memory.schedule import step_schedule
from training.model.adapters import add_adapters, check_targets
from training.model.architecture import read_architecture
from training.model.base import load_base
from training.model.runtime import Runtime, choose_runtime
from training.run_folder import RunFolder

if TYPE_CHECKING:
    from trl.trainer.sft_config import SFTConfig

BASE = RunConfig(data=Path("."), model="tiny")
CPU = Runtime("cpu", "fp32", "dataprep_segments", liger=False)


def trl_config(config: RunConfig, batch: BatchConfig | None = None) -> SFTConfig:
    """trl's configuration of a run of 100 steps."""
    batch = batch or BatchConfig(1, 0, config.optimizer or "adamw")
    return trainer_arguments(config, CPU, batch, RunFolder(Path("none")), accumulate=1, steps=100)


def first_batch(config: RunConfig) -> BatchConfig:
    return possible_batches(config, CPU, llama_2_7b_sizes(), 4, None, None)[0]


def lora_config(config: RunConfig) -> dict[str, Any]:
    """The configuration that peft is called with."""
    import peft

    captured: dict[str, Any] = {}
    model = tiny_mistral()
    model.save_pretrained = lambda folder: None
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(peft, "get_peft_model", lambda base, lora: captured.update(lora.to_dict()) or base)
        add_adapters(model, config)
    return captured


def two_epochs(config: RunConfig) -> int:
    return step_schedule(replace(config, model="m"), BatchConfig(1, 0, "adamw"), 16, 8).steps


# An option's value, and whether a configuration with that value has the expected result.
CASES: dict[str, tuple[Any, Callable[[RunConfig], bool]]] = {
    "lr": (1e-3, lambda config: trl_config(config).learning_rate == 1e-3),
    "schedule": ("linear", lambda config: trl_config(config).lr_scheduler_type == "linear"),
    "warmup": (0.2, lambda config: trl_config(config).warmup_steps == 20),
    "weight_decay": (0.1, lambda config: trl_config(config).weight_decay == 0.1),
    "max_grad_norm": (0.7, lambda config: trl_config(config).max_grad_norm == 0.7),
    "seed": (7, lambda config: trl_config(config).seed == trl_config(config).data_seed == 7),
    "epochs": (3.0, lambda config: two_epochs(config) == 6),
    "eval_every": (9, lambda config: trl_config(config).eval_steps == 9 and trl_config(BASE).eval_steps == 10),
    "save_every": (9, lambda config: trl_config(config).save_steps == 9),
    "log_every": (5, lambda config: trl_config(config).logging_steps == 5),
    "lora_r": (3, lambda config: lora_config(config)["r"] == 3),
    "lora_alpha": (5, lambda config: lora_config(config)["lora_alpha"] == 5),
    "lora_dropout": (0.25, lambda config: lora_config(config)["lora_dropout"] == 0.25),
    "rslora": (True, lambda config: lora_config(config)["use_rslora"]),
    "dora": (True, lambda config: lora_config(config)["use_dora"]),
    "modules_to_save": ("lm_head", lambda config: lora_config(config)["modules_to_save"] == ["lm_head"]),
    "targets": ("q_proj, v_proj", lambda config: set(lora_config(config)["target_modules"]) == {"q_proj", "v_proj"}),
    "micro_batch": (2, lambda config: first_batch(config).micro_batch == 2),
    "checkpoint_layers": (3, lambda config: first_batch(config).checkpoint_layers == 3),
    "optimizer": (
        "paged_adamw_8bit",
        lambda config: trl_config(config, first_batch(config)).optim == "paged_adamw_8bit",
    ),
    "precision": ("bf16", lambda config: choose_runtime(config).precision == "bf16"),
}

# The tests of the other options, as module.function below tests/training.
TESTS = {
    "store": "test_cli.test_a_build_is_found_by_name_and_short_version",
    "data": "test_run.test_run_json_has_absolute_paths_and_a_resumed_run_keeps_its_build",
    "model": "test_run.test_run_json_has_absolute_paths_and_a_resumed_run_keeps_its_build",
    "out": "test_run.test_run_json_says_why_a_run_failed",
    "resume": "test_run_folder.test_only_an_empty_folder_or_a_run_to_resume_is_accepted",
    "config": "test_config.test_flags_override_the_toml_file_and_the_toml_file_the_preset",
    "preset": "test_config.test_flags_override_the_toml_file_and_the_toml_file_the_preset",
    "allow_failed_gate": "data.test_holdout.test_a_build_with_a_failed_gate_is_refused_unless_allowed",
    "max_tokens": "data.test_holdout.test_options_select_truncate_and_hold_out_rows",
    "cut": "data.test_holdout.test_options_select_truncate_and_hold_out_rows",
    "train_on": "data.test_holdout.test_options_select_truncate_and_hold_out_rows",
    "held_out": "data.test_holdout.test_options_select_truncate_and_hold_out_rows",
    "max_steps": "memory.test_schedule.test_steps_follow_epochs_max_steps_and_the_limit_of_tiny",
    "tokens_per_step": "memory.test_plan.test_tokens_per_step_sets_the_number_of_accumulated_windows",
    "keep": "test_run.test_keep_limits_the_checkpoints_and_stop_prompts_the_answers",
    "stop_prompts": "test_run.test_keep_limits_the_checkpoints_and_stop_prompts_the_answers",
    "report_to": "loop.test_trackers.test_trackio_records_the_build_in_its_local_database_and_prints_nothing_to_stdout",
    "device": "test_options.test_device_cuda_needs_a_gpu",
    "attention": "test_options.test_attention_varlen_needs_a_gpu",
    "keep_best": "loop.test_best.test_the_adapter_of_the_lowest_held_out_loss_is_the_result",
    "patience": "loop.test_best.test_a_run_ends_when_its_patience_is_exhausted",
    "lora_plus": "model.test_adapters.test_lora_plus_gives_b_a_learning_rate_of_its_own",
    "add_tokens": "model.test_added_tokens.test_added_tokens_are_trained_saved_and_merged",
    "init_adapter": "loop.test_best.test_a_run_continues_from_another_runs_adapter",
    "kernels": "test_options.test_liger_kernels_need_a_gpu",
    "shard": "loop.test_processes.test_each_process_holds_half_of_the_layers",
    "memory_gb": "test_options.test_memory_gb_limits_the_gpu_memory",
    "quantization": "test_options.test_quantization_and_revision_reach_transformers",
    "revision": "test_options.test_quantization_and_revision_reach_transformers",
}


def test_every_option_has_a_case_or_a_test() -> None:
    assert CASES.keys() | TESTS.keys() == set(names()) and not CASES.keys() & TESTS.keys()
    for reference in TESTS.values():
        module, _, name = reference.rpartition(".")
        assert callable(getattr(importlib.import_module(f"tests.training.{module}"), name))


@pytest.mark.parametrize("name", CASES)
def test_an_option_has_its_effect(name: str) -> None:
    value, has_effect = CASES[name]
    assert getattr(BASE, name) != value
    assert has_effect(check(replace(BASE, **{name: value})))


def test_device_cuda_needs_a_gpu() -> None:
    import torch

    assert choose_runtime(replace(BASE, device="cpu")).device == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="--device cuda"):
            choose_runtime(replace(BASE, device="cuda"))


def test_attention_varlen_needs_a_gpu() -> None:
    with pytest.raises(OptionError, match="varlen"):
        check(replace(BASE, attention="varlen", device="cpu"))
    assert choose_runtime(replace(BASE, attention="sdpa", device="cpu")).attention == "dataprep_segments"


def test_liger_kernels_need_a_gpu() -> None:
    assert not choose_runtime(replace(BASE, device="cpu")).liger
    with pytest.raises(OptionError, match="liger"):
        choose_runtime(replace(BASE, kernels="liger", device="cpu"))


def test_memory_gb_limits_the_gpu_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    shares: list[float] = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("P", (), {"total_memory": 80 * GIB}))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: shares.append(share))
    runtime = Runtime("cuda:0", "bf16", "dataprep_varlen", liger=False)
    assert available_memory(replace(BASE, memory_gb=20.0), runtime) == 20 * GIB and shares == [0.25]
    assert available_memory(BASE, runtime) == 80 * GIB
    assert available_memory(BASE, CPU) is None


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_quantization_and_revision_reach_transformers(monkeypatch: pytest.MonkeyPatch, quantization: Any) -> None:
    import transformers

    captured: dict[str, Any] = {}

    class Captured(Exception):
        pass

    def capture(name: str, **settings: Any) -> None:
        captured.update(settings, name=name)
        raise Captured

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", capture)
    with pytest.raises(Captured):
        architecture = read_architecture(LLAMA_2_7B, "m")
        load_base("m", "abc", replace(BASE, quantization=quantization), CPU, architecture)
    assert captured["revision"] == "abc" and captured["device_map"] == {"": "cpu"}
    nf4 = captured["quantization_config"]
    assert (nf4 is None) == (quantization == "none")
    if nf4 is not None:
        assert nf4.bnb_4bit_quant_type == "nf4" and nf4.bnb_4bit_use_double_quant


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"targets": "q_proj,foo"}, "the layer 'foo'"),
        ({"targets": "q_proj,"}, "the layer ''"),
        ({"targets": "q_prj"}, "Did you mean 'q_proj'"),
        ({"targets": r".*\.(q|v)_prj"}, "the pattern"),
        ({"targets": "lm_head"}, "--modules-to-save"),
        ({"targets": "embed_tokens", "dora": True}, "--dora does not adapt embeddings"),
        ({"targets": "embed_tokens", "add_tokens": "<a>"}, "--add-tokens trains rows"),
        ({"modules_to_save": "lm_heed"}, "Did you mean 'lm_head'"),
    ],
)
def test_layers_that_the_model_lacks_or_cannot_train_are_refused_before_it_is_loaded(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(OptionError, match=sentence):
        check_targets(replace(BASE, **options), read_architecture(LLAMA_2_7B, "m"))


@pytest.mark.parametrize(
    "targets", ["all-linear", "q_proj,self_attn.v_proj", "embed_tokens", r"model\.layers\.[0-9]\..*_proj"]
)
def test_layers_of_the_model_are_accepted(targets: str) -> None:
    check_targets(replace(BASE, targets=targets, modules_to_save="lm_head"), read_architecture(LLAMA_2_7B, "m"))


def test_a_pattern_counts_the_adapters_that_peft_would_add() -> None:
    sizes = read_architecture(LLAMA_2_7B, "m").sizes
    assert len(sizes.adapted(r"model\.layers\.[0-9]\..*_proj")) == 10 * 7
    assert len(sizes.adapted("q_proj")) == 32
