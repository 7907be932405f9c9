"""What is settled before the first step, and what `training plan` tells of it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from training import run
from training.config import TINY_DEFAULTS, RunConfig
from training.data import holdout as data
from training.errors import MemoryShort, OptionError
from training.memory.choose import possible, settle
from training.memory.estimate import CONTEXT, GIB
from training.memory.plan import GPUS, plan
from training.model import base as model
from training.model.tokenizer import load_vocabulary
from training.run_folder import Folder

LLAMA = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 32, "vocab_size": 32000, "model_type": "llama",
}  # fmt: skip
GPU = model.Place("cuda:0", "bf16", "dataprep_varlen", liger=True)


@pytest.fixture(scope="module")
def config(small_build):
    return RunConfig(data=small_build, model="tiny", device="cpu", **TINY_DEFAULTS | {"max_tokens": 256})


@pytest.fixture(scope="module")
def settled(config, tmp_path_factory):
    """settle() on a tiny model, as a run calls it; takes other options."""
    build = data.open_data(config)
    folder = Folder(tmp_path_factory.mktemp("settled"))
    name = run.base_model(config, build, folder)
    place = model.choose_place(config)
    prepared = data.load(config, build, load_vocabulary(name))
    shape = model.read_shape(name, None)
    adapted = run.adapt(name, config, place)
    return lambda **options: settle(replace(config, **options), place, shape, prepared, adapted, folder, None, 1)


@pytest.mark.parametrize("options", [{}, {"micro_batch": 3}, {"micro_batch": 3, "max_steps": None, "epochs": 5.0}])
def test_plan_and_run_count_the_same(config, settled, options):
    facts, _ = plan(replace(config, **options), None)
    found = settled(**options)
    assert (facts["steps"], facts["accumulate"]) == (found.steps, found.accumulate)
    assert facts["windows"] == len(found.windows) and facts["choice"]["micro_batch"] == found.choice.micro_batch


def test_tokens_per_step(settled):
    """The effective batch: windows of 256 tokens, by --tokens-per-step."""
    assert [settled(tokens_per_step=tokens).accumulate for tokens in (256, 1024, 2048)] == [1, 4, 8]


def test_settings_that_will_fit_are_named():
    config = RunConfig(data=".", model="m", micro_batch=8, checkpoint_layers=0)
    with pytest.raises(MemoryShort) as short:
        possible(config, GPU, LLAMA, 8, None, 24 * GIB)
    said = str(short.value)
    assert "--micro-batch 8 --checkpoint-layers 0" in said and "will fit" in said
    words = said.split(": ")[1].split()
    would = dict(zip(words[:6:2], words[1:6:2], strict=True))
    named = replace(
        config,
        micro_batch=int(would["--micro-batch"]),
        checkpoint_layers=int(would["--checkpoint-layers"]),
        optimizer=would["--optimizer"],
    )
    assert possible(named, GPU, LLAMA, 8, None, 24 * GIB)
    with pytest.raises(MemoryShort, match="lower --max-tokens"):
        possible(config, GPU, LLAMA, 8, None, 4 * GIB)


def test_no_more_layers_than_there_are():
    with pytest.raises(OptionError, match="the model has 32 layers"):
        possible(RunConfig(data=".", model="m", checkpoint_layers=99), GPU, LLAMA, 8, None, 80 * GIB)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A model's folder of Llama 2 7B's shape: its sizes and a tokenizer, no weights."""
    from training.model.tiny import learn_vocabulary

    folder = tmp_path_factory.mktemp("llama")
    learn_vocabulary(["text"], ["<s>", "</s>"]).backend.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(LLAMA))
    return folder


def test_a_named_gpu_is_less_its_context(small_build, llama):
    config = RunConfig(data=small_build, model=str(llama))
    facts, lines = plan(config, "t4")
    assert facts["room_gib"] == round(GPUS["t4"][0] - CONTEXT / GIB, 1)
    assert facts["memory_gib"]["total"] < facts["room_gib"]
    assert facts["seconds"] > 0 and "minutes" in lines[-1]
    with pytest.raises(MemoryShort, match="will fit"):
        plan(replace(config, micro_batch=8, checkpoint_layers=0), "t4")


@pytest.mark.parametrize("gpu", [None, "this"])
def test_with_a_gpu_a_step_is_measured_and_timed(config, monkeypatch, gpu):
    from training.memory import plan as planning
    from training.memory import probe

    monkeypatch.setattr(model, "choose_place", lambda _: GPU)
    monkeypatch.setattr(planning, "room", lambda *_: 80 * GIB)
    monkeypatch.setattr(run, "adapt", lambda *_: None)
    measured = probe.Measured(2 * GIB, 3 * GIB, 0.5, 1000)
    monkeypatch.setattr(probe, "settle", lambda model, choices, *_, **__: (choices[0], measured))
    monkeypatch.setattr("training.loop.trainer.arguments", lambda *_, **__: None)
    facts, lines = plan(config, gpu)
    assert facts["measured"]["allocated_gib"] == 2
    assert facts["seconds"] == pytest.approx(facts["tokens"] * 0.5 / 1000, abs=0.1)
    assert any(line.startswith("Measured") for line in lines) and lines[-1].startswith("Time")
