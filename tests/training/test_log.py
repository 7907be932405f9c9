"""What a run prints before its first step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dataprep.contract import open_build
from tests.support.training_builds import CHATML, LLAMA2
from training.config import NOTEBOOK_FAULTS, RunConfig
from training.data.training_data import load_training_data, open_training_build
from training.log import log_start, log_template_difference
from training.model.runtime import choose_runtime
from training.model.tiny import train_tokenizer
from training.model.tokenizer import ChatTokenizer


def tokenizer_with(template: str | None) -> ChatTokenizer:
    tokenizer = train_tokenizer(["text"], ["<s>", "</s>"])
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    return replace(tokenizer, config=tokenizer.config | special, chat_template=template)


def test_a_template_that_differs_from_the_models_own_is_a_warning_with_both_texts(
    small_build: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build = open_build(small_build)
    assert log_template_difference(build, tokenizer_with(None)) is None
    assert log_template_difference(build, tokenizer_with(LLAMA2)) is None
    warning = log_template_difference(build, tokenizer_with(CHATML))
    assert warning is not None and warning in capsys.readouterr().err
    assert "[INST] Hello? [/INST]" in warning and "<|im_start|>user" in warning


def test_a_model_template_that_raises_is_a_warning(small_build: Path) -> None:
    strict = tokenizer_with("{{ raise_exception('a system text is wanted') }}")
    warning = log_template_difference(open_build(small_build), strict)
    assert warning is not None and "a system text is wanted" in warning


def test_the_notebook_preset_names_the_notebooks_faults(small_build: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = RunConfig(data=small_build, model="tiny", device="cpu", preset="notebook")
    data = load_training_data(config, open_training_build(config), tokenizer_with(None))
    log_start(config, data, choose_runtime(config))
    printed = capsys.readouterr().err
    assert all(fault in printed for fault in NOTEBOOK_FAULTS)
    log_start(replace(config, preset=None), data, choose_runtime(config))
    assert "notebook" not in capsys.readouterr().err
