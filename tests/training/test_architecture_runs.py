"""Whole runs of models that are not packed, mixtures of experts, and multimodal models: train, resume, evaluate, merge.

The loss and the merging of every architecture are tested in model/test_architectures.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dataprep.contract import open_build
from tests.support.processes import kill_after
from tests.support.tiny_models import write_tiny_model
from tests.support.training_runs import short_answers
from training.after.evaluate import evaluate
from training.after.merge import merge
from training.config import RunConfig
from training.model.tiny import tokenizer_for
from training.run import run

ADAPTED_LAYERS = {"nemotron": 12, "mixtral": 8, "qwen2_5_vl": 14}


@pytest.mark.parametrize(
    "name, attention, note",
    [
        ("nemotron", "sdpa", "do not pass the boundaries"),  # found by the leak check
        ("mixtral", "dataprep_segments", "experts"),
        ("qwen2_5_vl", "dataprep_segments", ""),  # whose tensors have other names in the file
    ],
)
def test_a_run_is_trained_resumed_evaluated_and_merged(
    small_build: Path, tmp_path: Path, name: str, attention: str, note: str
) -> None:
    build = open_build(small_build)
    write_tiny_model(name, tmp_path / "model", tokenizer_for(build.splits["train"], dict(build.manifest.template)))
    config = RunConfig(
        data=small_build, model=str(tmp_path / "model"), device="cpu", out=tmp_path / "run", max_steps=2, save_every=1,
        stop_prompts=1, max_tokens=128, tokens_per_step=256, held_out=8, lora_r=4, lr=0.02,
    )  # fmt: skip
    with short_answers():
        record = run(config)
    assert record["status"] == "done"
    assert record["place"]["attention"] == attention
    assert any(note in text for text in ["", *record["notes"]])
    kill_after(1, tmp_path / "run")
    with short_answers():
        resumed = run(replace(config, resume="auto"))
    assert resumed["metrics"] == record["metrics"]
    result = evaluate(tmp_path / "run", 1, 8)
    assert result["after"]["loss"] == pytest.approx(record["metrics"]["held_out_after"], rel=1e-4)
    merged = merge(tmp_path / "run", tmp_path / "merged", check=True)
    assert merged["merged"] == ADAPTED_LAYERS[name]
    assert merged["kl"] < 1e-5
