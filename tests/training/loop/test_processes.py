"""Two CPU processes under torchrun train what one process trains, with the whole model in each or divided among them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.commands import logged_losses
from tests.support.processes import PROCESSES, back_to_step, flags, in_two_processes, torchrun
from tests.support.training_builds import chatter, write_build
from training.after.merge import merge
from training.config import TINY_DEFAULTS, RunConfig
from training.errors import OptionError
from training.metrics import read_metrics
from training.model.sharding import decoder_layers
from training.run import run
from training.run_folder import RunFolder

torch.set_num_threads(1)
STEPS = 4


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """The options of a run of one process, which is finished: 6 windows, 2 in a step; checkpoints of steps 2 and 4.

    It adds a token, whose rows every process trains.
    """
    folder = tmp_path_factory.mktemp("one")
    build = write_build(folder / "build", chatter(400), chatter(8))
    options: dict[str, Any] = TINY_DEFAULTS | {
        "max_steps": STEPS, "tokens_per_step": 4096, "micro_batch": 1, "stop_prompts": 2, "add_tokens": "<|tool|>",
    }  # fmt: skip
    config = RunConfig(data=build, model="tiny", out=folder / "run", device="cpu", save_every=2, **options)
    run(config)
    return config


def losses(config: RunConfig) -> list[tuple[int, float]]:
    assert config.out is not None
    return logged_losses(config.out)


def assert_same_losses(run: RunConfig, other: RunConfig) -> None:
    assert [step for step, _ in losses(run)] == [step for step, _ in losses(other)]
    assert [loss for _, loss in losses(run)] == pytest.approx([loss for _, loss in losses(other)], rel=1e-5)


@pytest.fixture(scope="module")
def divided(one: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A run that one process began, and two with --shard continued from step 2 to its end."""
    config = replace(back_to_step(2, one, tmp_path_factory.mktemp("divided") / "run"), shard=True)
    in_two_processes("run", *flags(config))
    return config


def test_a_divided_model_has_the_losses_ledger_and_answers_of_a_whole_one(one: RunConfig, divided: RunConfig) -> None:
    assert one.out is not None and divided.out is not None
    assert_same_losses(divided, one)
    ours, theirs = RunFolder(divided.out).read(), RunFolder(one.out).read()
    assert ours["ledger"] == theirs["ledger"]
    assert ours["metrics"]["trained_tokens"] == theirs["metrics"]["trained_tokens"]
    assert ours["metrics"]["stopped_by_itself"] == theirs["metrics"]["stopped_by_itself"]


def test_each_process_holds_half_of_the_layers(divided: RunConfig) -> None:
    from transformers import AutoModelForCausalLM

    assert divided.out is not None
    memory = RunFolder(divided.out).read()["memory"]
    model = AutoModelForCausalLM.from_pretrained(str(RunFolder(divided.out).base))
    layers = [layer.parameters() for layer in decoder_layers(model.get_decoder())]
    weights = sum(weight.numel() / 2 if weight.dim() == 2 else weight.nbytes for layer in layers for weight in layer)
    assert memory["model_bytes"] - memory["held_bytes"] == weights / PROCESSES  # in NF4, half a byte for each weight


def test_one_process_continues_a_divided_run_and_merges_it(one: RunConfig, divided: RunConfig, tmp_path: Path) -> None:
    alone = replace(back_to_step(2, divided, tmp_path / "alone"), shard=False)
    run(alone)
    assert_same_losses(alone, one)
    assert divided.out is not None
    merged = merge(divided.out, tmp_path / "merged", check=True)
    assert merged["kl"] < 1e-5


def test_dividing_a_model_needs_several_processes(one: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="several processes, and there is one: start it with `torchrun"):
        run(replace(one, out=tmp_path / "run", shard=True))


def test_an_error_of_all_processes_is_printed_once(one: RunConfig, tmp_path: Path) -> None:
    assert one.out is not None
    done = torchrun("run", *flags(replace(one, data=tmp_path / "none")), check=False)
    assert done.returncode == 1
    assert done.stderr.count("There is no build") == 1, done.stderr


def test_two_processes_have_the_losses_of_one_and_count_an_odd_number_of_windows_once(tmp_path: Path) -> None:
    """Seven windows, all in one step: the eighth is empty, and changes neither the counts nor a loss.

    On a machine without a GPU, the processes find each other without --device cpu.
    """
    build = write_build(tmp_path / "b", chatter(28), chatter(3, seed=5))
    options: dict[str, Any] = TINY_DEFAULTS | {
        "max_tokens": 128,
        "tokens_per_step": 1024,
        "epochs": 3.0,
        "stop_prompts": 0,
    }
    device: Any = "cpu" if torch.cuda.is_available() else "auto"
    config = RunConfig(data=build, model="tiny", out=tmp_path / "one", device=device, **options)
    run(config)
    two = replace(config, out=tmp_path / "two")
    in_two_processes("run", *flags(two))
    assert_same_losses(two, config)
    first, second = RunFolder(tmp_path / "one").read(), RunFolder(tmp_path / "two").read()
    assert first["packing"] | {"empty": 1} == second["packing"] and second["packing"]["windows"] == 7
    assert (first["resolved"]["per_step"], second["resolved"]["per_step"]) == (7, 8)
    trained = 3 * second["ledger"]["train"]["tokens_trained"]
    assert second["metrics"]["trained_tokens"] == first["metrics"]["trained_tokens"] == trained
    tokens = [
        {line["eval_tokens"] for line in read_metrics(tmp_path / name / "metrics.jsonl") if "eval_tokens" in line}
        for name in ("one", "two")
    ]
    assert tokens[0] == tokens[1] and len(tokens[0]) == 1
