"""What a run decides before its first step, and what `training plan` prints about it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.shapes import LLAMA_2_7B, llama_2_7b_sizes
from training.config import TINY_DEFAULTS, RunConfig
from training.data.training_data import load_training_data, open_training_build
from training.errors import NotEnoughMemory, OptionError
from training.memory import plan as planning
from training.memory import probe
from training.memory.batches import possible_batches
from training.memory.choose import choose_run_plan
from training.memory.estimate import CUDA_CONTEXT, GIB
from training.memory.layout import choose_layout
from training.memory.plan import GPUS, plan
from training.memory.run_plan import RunPlan
from training.model.architecture import read_architecture
from training.model.identity import read_model_config
from training.model.runtime import Runtime, choose_runtime
from training.model.tiny import train_tokenizer
from training.model.tokenizer import load_tokenizer
from training.run import base_model_name, load_with_new_adapters
from training.run_folder import RunFolder

GPU = Runtime("cuda:0", "bf16", "dataprep_varlen", liger=True)
SIZES = llama_2_7b_sizes()
SEVEN_B = RunConfig(data=Path("."), model="m")


@pytest.fixture(scope="module")
def config(small_build: Path) -> RunConfig:
    return RunConfig(data=small_build, model="tiny", device="cpu", **TINY_DEFAULTS | {"max_tokens": 256})


@pytest.fixture(scope="module")
def planned(config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., RunPlan]:
    """`choose_run_plan` on a tiny model, as a run calls it; its arguments replace options."""
    build = open_training_build(config)
    folder = RunFolder(tmp_path_factory.mktemp("planned"))
    name = base_model_name(config, build, folder)
    runtime = choose_runtime(config)
    prepared = load_training_data(config, build, load_tokenizer(name))
    architecture = read_architecture(read_model_config(name, None), name)
    layout = choose_layout(config, architecture, prepared)
    adapted = load_with_new_adapters(name, config, runtime)

    def choose(**options: Any) -> RunPlan:
        return choose_run_plan(
            replace(config, **options), runtime, architecture, layout, prepared, adapted, folder, None, processes=1
        )

    return choose


@pytest.mark.parametrize("options", [{}, {"micro_batch": 3}, {"micro_batch": 3, "max_steps": None, "epochs": 5.0}])
def test_plan_and_run_count_the_same_steps_and_windows(
    config: RunConfig, planned: Callable[..., RunPlan], options: dict[str, Any]
) -> None:
    record, _ = plan(replace(config, **options), None)
    run_plan = planned(**options)
    assert (record["steps"], record["accumulate"]) == (run_plan.steps, run_plan.accumulate)
    assert record["windows"] == len(run_plan.windows)
    assert record["choice"]["micro_batch"] == run_plan.batch.micro_batch


def test_tokens_per_step_sets_the_number_of_accumulated_windows(planned: Callable[..., RunPlan]) -> None:
    """Windows have 256 tokens."""
    assert [planned(tokens_per_step=tokens).accumulate for tokens in (256, 1024, 2048)] == [1, 4, 8]


def test_an_error_about_memory_names_settings_that_fit() -> None:
    config = replace(SEVEN_B, micro_batch=8, checkpoint_layers=0)
    with pytest.raises(NotEnoughMemory) as error:
        possible_batches(config, GPU, SIZES, 8, None, 24 * GIB)
    message = str(error.value)
    assert "--micro-batch 8 --checkpoint-layers 0" in message
    assert "will fit" in message
    words = message.split(": ")[1].split()
    flags = dict(zip(words[:6:2], words[1:6:2], strict=True))
    named: Any = {
        "micro_batch": int(flags["--micro-batch"]),
        "checkpoint_layers": int(flags["--checkpoint-layers"]),
        "optimizer": flags["--optimizer"],
    }
    assert possible_batches(replace(config, **named), GPU, SIZES, 8, None, 24 * GIB)
    with pytest.raises(NotEnoughMemory, match="lower --max-tokens"):
        possible_batches(config, GPU, SIZES, 8, None, 4 * GIB)


def test_more_checkpointed_layers_than_the_model_has_are_refused() -> None:
    with pytest.raises(OptionError, match="the model has 32 layers"):
        possible_batches(replace(SEVEN_B, checkpoint_layers=99), GPU, SIZES, 8, None, 80 * GIB)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder with Llama 2 7B's config.json and a tokenizer, without weights."""
    folder = tmp_path_factory.mktemp("llama")
    train_tokenizer(["text"], ["<s>", "</s>"]).backend.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(LLAMA_2_7B))
    return folder


def test_a_plan_for_a_named_gpu_leaves_memory_for_the_cuda_context(small_build: Path, llama: Path) -> None:
    config = RunConfig(data=small_build, model=str(llama))
    record, lines = plan(config, "t4")
    assert record["room_gib"] == round(GPUS["t4"][0] - CUDA_CONTEXT / GIB, 1)
    assert record["memory_gib"]["total"] < record["room_gib"]
    assert record["seconds"] > 0
    assert re.fullmatch(r"Time        about [\d,]+ (s|min|h \d+ min) of training", lines[-1])
    with pytest.raises(NotEnoughMemory, match="will fit"):
        plan(replace(config, micro_batch=8, checkpoint_layers=0), "t4")


@pytest.mark.parametrize("gpu", [None, "this"])
def test_a_plan_on_a_gpu_measures_and_times_a_step(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, gpu: str | None
) -> None:
    monkeypatch.setattr(planning, "choose_runtime", lambda _: GPU)
    monkeypatch.setattr(planning, "available_memory", lambda *_: 80 * GIB)
    monkeypatch.setattr(import_module("training.run"), "load_with_new_adapters", lambda *_: None)
    measured = probe.Measurement(2 * GIB, 3 * GIB, 0.5, 1000)
    monkeypatch.setattr(probe, "first_that_runs", lambda model, batches, *_, **__: (batches[0], measured))
    monkeypatch.setattr("training.loop.arguments.trainer_arguments", lambda *_, **__: None)
    record, lines = plan(config, gpu)
    assert record["measured"]["allocated_gib"] == 2
    assert record["seconds"] == pytest.approx(record["tokens"] * 0.5 / 1000, abs=0.1)
    assert any(line.startswith("Measured") for line in lines)
    assert lines[-1].startswith("Time")


def test_a_plan_says_for_each_size_of_a_gpu_whether_the_run_fits(small_build: Path, llama: Path) -> None:
    """A 7B model needs more than 4 and less than 8 GB; a larger GPU gets a larger batch or fewer recomputed layers."""
    record, lines = plan(RunConfig(data=small_build, model=str(llama)), "t4")
    fits = record["fits"]
    assert list(fits) == ["8", "12", "16", "24", "40", "48", "80"]
    assert all(fits.values())
    assert fits["8"]["checkpoint_layers"] > fits["80"]["checkpoint_layers"]
    assert any(line.startswith("On a GPU of") for line in lines)
    too_long = RunConfig(data=small_build, model=str(llama), max_tokens=65_536, tokens_per_step=65_536)
    assert plan(too_long, "h100")[0]["fits"]["8"] is None


def test_a_plan_for_a_mixture_of_experts_counts_the_experts(small_build: Path, llama: Path, tmp_path: Path) -> None:
    config = {"model_type": "mixtral", "vocab_size": 32000}  # its other values are the defaults of Mixtral 8x7B
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "tokenizer.json").write_bytes((llama / "tokenizer.json").read_bytes())
    with pytest.raises(NotEnoughMemory):
        plan(RunConfig(data=small_build, model=str(tmp_path)), "h100")
