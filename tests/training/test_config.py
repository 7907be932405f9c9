"""Each option reaches the library's configuration or the result; a new one without a case fails."""

from __future__ import annotations

import importlib
import inspect
import re
from dataclasses import fields, replace
from pathlib import Path

import pytest

from tests.support.training_builds import chatter, row, write_build
from training.config import PRESETS, TINY_DEFAULTS, RunConfig, as_json, check, from_json, names, read_toml
from training.data.training_data import load_training_data, open_training_build
from training.errors import DataError, OptionError, RunError, TrainingError
from training.memory.batches import BatchConfig
from training.memory.choose import step_schedule
from training.model.base import add_adapters, load_base
from training.model.runtime import Runtime, choose_runtime
from training.run_folder import RunFolder, prepare_folder

BASE = RunConfig(data=Path("."), model="tiny")


def sft(config: RunConfig, **over):
    """trl's configuration for these options."""
    from training.loop.trainer import trainer_arguments

    place = over.pop("place", Runtime("cpu", "fp32", "dataprep_segments", liger=False))
    choice = over.pop("choice", BatchConfig(1, 0, config.optimizer or "adamw"))
    return trainer_arguments(
        config, place, choice, RunFolder(Path("/tmp/none")), accumulate=1, steps=over.pop("steps", 100)
    )


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    return write_build(tmp_path_factory.mktemp("options") / "build", chatter(60), chatter(12, seed=5), gate="failed")


def loaded(config, build):
    from training.data.inspect import tokenizer_for

    opened = open_training_build(replace(config, data=build, allow_failed_gate=True))
    vocabulary = tokenizer_for(config, opened.splits["train"], dict(opened.manifest.template))
    return load_training_data(config, opened, vocabulary)


def first_batch(config):
    from training.memory.choose import possible_batches

    shape = {"hidden_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4, "vocab_size": 99}
    place = Runtime("cpu", "fp32", "dataprep_segments", liger=False)
    return possible_batches(config, place, shape, 4, None, None)[0]


def adapters(config):
    """peft's configuration, caught on its way."""
    import peft
    import torch

    caught = {}

    def catch(_, lora):
        caught.update(lora.to_dict())

    layers = torch.nn.ModuleDict({name: torch.nn.Linear(2, 2) for name in ("q_proj", "v_proj", "lm_head")})
    original, peft.get_peft_model = peft.get_peft_model, catch
    try:
        add_adapters(layers, config)
    finally:
        peft.get_peft_model = original
    return caught


def case_of(name):  # noqa: C901, PLR0911, PLR0912 - one case an option
    """A check of one option: called with pytest's tmp_path and the build."""
    plain = {
        "lr": (1e-3, lambda c: sft(c).learning_rate == 1e-3),
        "schedule": ("linear", lambda c: sft(c).lr_scheduler_type == "linear"),
        "warmup": (0.2, lambda c: sft(c).warmup_steps == 20),
        "weight_decay": (0.1, lambda c: sft(c).weight_decay == 0.1),
        "max_grad_norm": (0.7, lambda c: sft(c).max_grad_norm == 0.7),
        "seed": (7, lambda c: sft(c).seed == sft(c).data_seed == 7),
        "epochs": (3.0, lambda c: step_schedule(replace(c, model="m"), BatchConfig(1, 0, "adamw"), 16, 8).steps == 6),
        "eval_every": (9, lambda c: sft(c).eval_steps == 9 and sft(BASE).eval_steps == 10),
        "save_every": (9, lambda c: sft(c).save_steps == 9),
        "log_every": (5, lambda c: sft(c).logging_steps == 5),
        "lora_r": (3, lambda c: adapters(c)["r"] == 3),
        "lora_alpha": (5, lambda c: adapters(c)["lora_alpha"] == 5),
        "lora_dropout": (0.25, lambda c: adapters(c)["lora_dropout"] == 0.25),
        "targets": ("q_proj, v_proj", lambda c: set(adapters(c)["target_modules"]) == {"q_proj", "v_proj"}),
        "micro_batch": (2, lambda c: first_batch(c).micro_batch == 2),
        "checkpoint_layers": (3, lambda c: first_batch(c).checkpoint_layers == 3),
        "optimizer": ("paged_adamw_8bit", lambda c: sft(c, choice=first_batch(c)).optim == "paged_adamw_8bit"),
        "precision": ("bf16", lambda c: choose_runtime(c).precision == "bf16"),
    }
    return plain.get(name)


PLAIN = [field.name for field in fields(RunConfig) if case_of(field.name)]
# Options with a test of their own: where it is, and its name.
ELSEWHERE = {
    "data": "test_run.test_build_and_model_are_named_in_full",
    "model": "test_run.test_build_and_model_are_named_in_full",
    "out": "test_run.test_a_failed_run_says_so_in_out",
    "resume": "test_config.test_resume_option",
    "config": "test_config.test_flags_go_before_config_and_config_before_preset",
    "preset": "test_config.test_flags_go_before_config_and_config_before_preset",
    "allow_failed_gate": "test_config.test_gate",
    "max_tokens": "test_config.test_data_options",
    "cut": "test_config.test_data_options",
    "train_on": "test_config.test_data_options",
    "held_out": "test_config.test_data_options",
    "max_steps": "memory.test_schedule.test_steps_follow_epochs_max_steps_and_the_limit_of_tiny",
    "tokens_per_step": "memory.test_plan.test_tokens_per_step_sets_the_number_of_accumulated_windows",
    "keep": "test_run.test_keep_and_stop_prompts",
    "stop_prompts": "test_run.test_keep_and_stop_prompts",
    "report_to": "test_run.test_report_to_tensorboard",
    "device": "test_config.test_device",
    "attention": "test_config.test_attention",
    "kernels": "test_config.test_kernels",
    "memory_gb": "test_config.test_memory_gb",
    "quantization": "test_config.test_loading_options",
    "revision": "test_config.test_loading_options",
}


def test_every_option_has_a_case():
    """A test of its own is a function that exists, speaks of the option (itself or in its cases) and asserts something."""
    assert set(PLAIN) | ELSEWHERE.keys() == set(names()) and not set(PLAIN) & ELSEWHERE.keys()
    for option, place in ELSEWHERE.items():
        module, _, name = place.rpartition(".")
        source = inspect.getsource(getattr(importlib.import_module(f"tests.training.{module}"), name))
        spoken = re.search(rf"\b{option}\b|--{option.replace('_', '-')}\b|_{option}\b", source)
        assert spoken and re.search(r"\bassert\b|pytest\.raises", source), (option, place)


@pytest.mark.parametrize("name", PLAIN)
def test_option_arrives(name):
    value, arrives = case_of(name)
    assert getattr(BASE, name) != value
    assert arrives(check(replace(BASE, **{name: value})))


def test_data_options(build):
    whole = loaded(BASE, build)
    assert whole.train.labelled.ledger.rows_cut == 0 and len(whole.test.labelled.rows.names) == 12
    short = loaded(replace(BASE, max_tokens=20), build).train.labelled
    assert short.ledger.rows_cut > 0 and short.rows.lengths.max() <= 20
    dropped = loaded(replace(BASE, max_tokens=20, cut="drop"), build).train.labelled.ledger
    assert dropped.rows_cut == 0 and dropped.rows_dropped > 0
    last = loaded(replace(BASE, train_on="last-answer"), build).train.labelled.ledger
    assert last.tokens_trained < whole.train.labelled.ledger.tokens_trained
    assert len(loaded(replace(BASE, held_out=3), build).test.labelled.rows.names) == 3
    assert loaded(replace(BASE, held_out=0), build).test is None


def test_gate(build):
    with pytest.raises(DataError, match="allow-failed-gate"):
        open_training_build(replace(BASE, data=build))
    assert open_training_build(replace(BASE, data=build, allow_failed_gate=True)).manifest.gate == "failed"


def test_whole_trees_are_held_out_where_there_is_no_test_split(tmp_path):
    rows = [row(f"t{n // 2}/{n}", [("a", "b")]) for n in range(80)]
    folder = write_build(tmp_path / "b", rows)
    found = loaded(BASE, folder)
    kept, held = set(found.train.table["tree_id"].to_pylist()), set(found.test.table["tree_id"].to_pylist())
    assert not kept & held and len(held) == 2 and "held out from training" in found.notes[0]
    again = loaded(BASE, folder)
    assert again.test.table.equals(found.test.table)


def test_device():
    import torch

    assert choose_runtime(replace(BASE, device="cpu")).device == "cpu"
    if not torch.cuda.is_available():
        with pytest.raises(OptionError, match="--device cuda"):
            choose_runtime(replace(BASE, device="cuda"))


def test_attention():
    with pytest.raises(OptionError, match="varlen"):
        check(replace(BASE, attention="varlen", device="cpu"))
    assert choose_runtime(replace(BASE, attention="sdpa", device="cpu")).attention == "dataprep_segments"


def test_kernels():
    assert not choose_runtime(replace(BASE, device="cpu")).liger
    with pytest.raises(OptionError, match="liger"):
        choose_runtime(replace(BASE, kernels="liger", device="cpu"))


def test_memory_gb(monkeypatch):
    import torch

    from training.memory.choose import available_memory
    from training.memory.estimate import GIB

    asked = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (80 * GIB, 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("P", (), {"total_memory": 80 * GIB}))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: asked.append(share))
    place = Runtime("cuda:0", "bf16", "dataprep_varlen", liger=False)
    assert available_memory(replace(BASE, memory_gb=20.0), place) == 20 * GIB and asked == [0.25]
    assert available_memory(BASE, place) == 80 * GIB
    assert available_memory(BASE, replace(place, device="cpu")) is None


@pytest.mark.parametrize("quantization", ["nf4", "none"])
def test_loading_options(monkeypatch, quantization):
    import torch
    import transformers

    caught = {}

    def catch(name, **settings):
        caught.update(settings, name=name)
        return torch.nn.Module()

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", catch)
    place = Runtime("cpu", "fp32", "dataprep_segments", liger=False)
    with pytest.raises(AttributeError):  # what follows needs a real model
        load_base("m", "abc", replace(BASE, quantization=quantization), place)
    assert caught["revision"] == "abc" and caught["device_map"] == {"": "cpu"}
    nf4 = caught["quantization_config"]
    assert (nf4 is None) == (quantization == "none")
    if nf4 is not None:
        assert nf4.bnb_4bit_quant_type == "nf4" and nf4.bnb_4bit_use_double_quant


def test_presets_and_their_names():
    for name, options in {**PRESETS, "tiny": TINY_DEFAULTS}.items():
        assert options.keys() <= set(names()), name
        check(replace(BASE, **options))


def test_toml(tmp_path):
    path = tmp_path / "a.toml"
    path.write_text("max-tokens = 512\nlr = 1e-3\n")
    assert read_toml(path) == {"max_tokens": 512, "lr": 1e-3}
    path.write_text("max_tokns = 3\n")
    with pytest.raises(OptionError, match="Did you mean 'max_tokens'"):
        read_toml(path)


def test_flags_go_before_config_and_config_before_preset(tmp_path):
    """--config and --preset at the command line."""
    from training.cli import app

    path = tmp_path / "a.toml"
    path.write_text("max-tokens = 512\nlr = 1e-3\n")

    def options(*flags):
        _, bound, _ = app.parse_args(["run", "--data", ".", "--model", "m", *map(str, flags)], exit_on_error=False)
        return bound.arguments["options"]

    preset = PRESETS["notebook"]
    found = options("--config", path, "--preset", "notebook", "--lr", "5e-3")
    assert (found.config, found.preset) == (path, "notebook")
    assert (found.lr, found.max_tokens, found.targets) == (5e-3, 512, preset["targets"])
    assert options("--config", path).lr == 1e-3 and options("--preset", "notebook").max_tokens == preset["max_tokens"]
    assert options() == RunConfig(data=Path("."), model="m")
    assert options("--preset", "t4").precision == "fp16"
    with pytest.raises(TrainingError, match="Did you mean 't4'"):
        options("--preset", "t5")


@pytest.mark.parametrize("line, told", [
    ("epochs = 0", "--epochs"), ("keep = 1", "--keep"), ("lora_dropout = 1.0", "--lora-dropout"),
    ("tokens_per_step = 5", "--tokens-per-step"), ("resume = 'yes'", "--resume"),
])  # fmt: skip
def test_values_that_make_no_sense(tmp_path, line, told):
    path = tmp_path / "a.toml"
    path.write_text(line)
    with pytest.raises(OptionError, match=told):
        check(replace(BASE, **read_toml(path)))


@pytest.mark.parametrize("seed", [-1, 5_000_000_000])
def test_seeds_that_numpy_refuses(seed):
    with pytest.raises(OptionError, match="--seed"):
        check(replace(BASE, seed=seed))


@pytest.mark.parametrize(
    "targets, told", [("q_proj,foo", "'foo'"), ("q_proj,", "''"), ("q_prj", "Did you mean 'q_proj'")]
)
def test_targets_that_the_model_lacks(targets, told):
    with pytest.raises(OptionError, match=told):
        adapters(replace(BASE, targets=targets))


def test_json_round_trip():
    config = replace(BASE, max_steps=3, out=Path("x"))
    assert from_json(as_json(config)) == config


def test_resume_option(tmp_path):
    """--resume never wants an empty folder, and auto one that holds a run."""
    folder = tmp_path / "run"
    assert prepare_folder(folder, "never")[1] is None
    (folder / "note").write_text("mine")
    with pytest.raises(RunError, match="not empty"):
        prepare_folder(folder, "never")
    with pytest.raises(RunError, match="holds no run"):
        prepare_folder(folder, "auto")
