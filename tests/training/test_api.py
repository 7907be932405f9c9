"""The Python API of training: runs as objects."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import training
from tests.support.paths import ROOT
from training.config import PRESETS, with_defaults
from training.errors import OptionError


def test_a_run_trains_and_answers(small_build: Path, tmp_path: Path) -> None:
    run = training.run(small_build, "tiny", max_steps=4, device="cpu", out=tmp_path / "run", stop_prompts=0)
    assert run.path == tmp_path / "run"
    assert [step for step, _ in run.losses] == [1, 2, 3, 4]
    assert run.held_out_losses[0][0] == 0
    assert isinstance(run.generate("Hello?", max_new_tokens=4), str)
    assert "<svg" in run._repr_html_()


def test_a_finished_run_is_merged(finished_run: Path, tmp_path: Path) -> None:
    result = training.Run(finished_run).merge(tmp_path / "merged", check=False)
    assert result["merged"] > 0
    assert json.loads((tmp_path / "merged" / "config.json").read_text())["model_type"] == "llama"


def test_options_go_before_the_file_the_file_before_the_preset_and_the_preset_before_tiny(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('preset = "t4"\nlora_alpha = 99\nlr = 0.5\n')
    config = with_defaults({"data": "build", "model": "tiny", "config": file, "lr": 0.25})
    assert (config.lr, config.lora_alpha) == (0.25, 99)
    assert config.max_tokens == PRESETS["t4"]["max_tokens"]
    assert config.held_out == 32  # a default of the model tiny
    assert config.data == Path("build")


def test_an_unknown_option_is_named_with_the_nearest() -> None:
    with pytest.raises(OptionError, match="Unknown option 'lora_rank'. Did you mean 'lora_"):
        training.run("build", "tiny", lora_rank=8)


def test_the_function_run_is_not_hidden_by_the_module_run() -> None:
    assert inspect.ismodule(import_module("training.run"))
    assert inspect.isfunction(training.run)


def test_importing_training_loads_no_heavy_library() -> None:
    code = "import sys, training; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert not {"torch", "transformers", "numpy", "pyarrow"} & set(done.stdout.split())
