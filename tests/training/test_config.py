"""RunConfig: TOML files, presets, their order, and invalid values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from training import config as module
from training.cli import app
from training.config import PRESETS, TINY_DEFAULTS, RunConfig, as_record, check, from_record, names, read_toml
from training.errors import OptionError

BASE = RunConfig(data=Path("."), model="tiny")


def test_presets_have_valid_options() -> None:
    for name, options in {**PRESETS, "tiny": TINY_DEFAULTS}.items():
        assert options.keys() <= set(names()), name
        check(replace(BASE, **options))


def test_toml_files_may_write_names_with_hyphens(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("max-tokens = 512\nlr = 1e-3\n")
    assert read_toml(path) == {"max_tokens": 512, "lr": 1e-3}


def test_an_unknown_name_in_a_toml_file_is_refused_with_the_nearest_option(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("max_tokns = 3\n")
    with pytest.raises(OptionError, match="Did you mean 'max_tokens'"):
        read_toml(path)


def test_flags_override_the_toml_file_and_the_toml_file_the_preset(tmp_path: Path) -> None:
    """--config and --preset on the command line."""
    path = tmp_path / "a.toml"
    path.write_text("max-tokens = 512\nlr = 1e-3\n")

    def options(*flags: str | Path) -> RunConfig:
        _, bound, _ = app.parse_args(["run", "--data", ".", "--model", "m", *map(str, flags)], exit_on_error=False)
        config: RunConfig = bound.arguments["options"]
        return config

    preset = PRESETS["notebook"]
    config = options("--config", path, "--preset", "notebook", "--lr", "5e-3")
    assert (config.config, config.preset) == (path, "notebook")
    assert (config.lr, config.max_tokens, config.targets) == (5e-3, 512, preset["targets"])
    assert options("--config", path).lr == 1e-3 and options("--preset", "notebook").max_tokens == preset["max_tokens"]
    assert options() == RunConfig(data=Path("."), model="m")
    assert options("--preset", "t4").precision == "fp16"
    with pytest.raises(OptionError, match="Did you mean 't4'"):
        options("--preset", "t5")


@pytest.mark.parametrize("line, flag", [
    ("epochs = 0", "--epochs"), ("keep = 1", "--keep"), ("lora_dropout = 1.0", "--lora-dropout"),
    ("tokens_per_step = 5", "--tokens-per-step"), ("resume = 'yes'", "--resume"),
])  # fmt: skip
def test_invalid_values_are_refused_with_the_flag(tmp_path: Path, line: str, flag: str) -> None:
    path = tmp_path / "a.toml"
    path.write_text(line)
    with pytest.raises(OptionError, match=flag):
        check(replace(BASE, **read_toml(path)))


@pytest.mark.parametrize("name", ["epochs", "lr", "max_grad_norm", "memory_gb"])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_infinite_numbers_are_refused(name: str, value: float) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(OptionError, match=f"--{name.replace('_', '-')} is {value}"):
        check(replace(BASE, **options))


@pytest.mark.parametrize("seed", [-1, 5_000_000_000])
def test_seeds_that_numpy_refuses_are_refused(seed: int) -> None:
    with pytest.raises(OptionError, match="--seed"):
        check(replace(BASE, seed=seed))


@pytest.mark.parametrize("tracker", ["tensorboard", "wandb", "mlflow", "trackio"])
def test_a_tracker_needs_its_package(monkeypatch: pytest.MonkeyPatch, tracker: Any) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(OptionError, match=rf"pip install {tracker}, or pip install 'dataprep-training\[trackers\]'"):
        check(replace(BASE, report_to=tracker))


def test_a_record_of_options_gives_the_options_back() -> None:
    config = replace(BASE, max_steps=3, out=Path("x"))
    assert from_record(as_record(config)) == config
