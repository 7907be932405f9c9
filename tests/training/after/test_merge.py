"""Merging an adapter into its base model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dataprep.common.errors import BuildError
from tests.support.commands import training
from tests.support.disk import limited_file_size
from tests.support.training_runs import copy_run
from training.after.merge import AdapterProducts, merge, read_weights
from training.config import RunConfig
from training.errors import ModelError, RunError
from training.model.base import load_base
from training.model.runtime import Runtime


def test_a_merged_model_has_the_adapters_logits_and_opens_with_stock_transformers(
    finished_run: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    to = tmp_path / "merged"
    printed = training("merge", "--run", finished_run, "--to", to).stdout
    assert float(printed.split("Largest logit difference ")[1].split(",")[0]) < 0.005, printed
    model = AutoModelForCausalLM.from_pretrained(to)
    ids = AutoTokenizer.from_pretrained(to)("[INST] hi", return_tensors="pt").input_ids
    assert torch.isfinite(model(ids).logits).all()
    done = training("merge", "--run", finished_run, "--to", to, check=1)
    assert "not empty" in done.stderr


def test_nothing_is_written_if_the_build_for_the_check_is_missing(finished_run: Path, tmp_path: Path) -> None:
    path = copy_run(finished_run, tmp_path / "copy", operational__data=str(tmp_path / "missing"))
    with pytest.raises(BuildError):
        merge(path, tmp_path / "merged", check=True)
    assert not list(tmp_path.glob("merged*"))


def test_a_file_is_not_replaced_by_a_merged_model(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunError, match="is not a folder"):
        merge(finished_run, tmp_path / "file", check=False)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_merge_on_a_full_disk_leaves_nothing_and_can_be_repeated(finished_run: Path, tmp_path: Path) -> None:
    to = tmp_path / "merged"
    with limited_file_size(2**18), pytest.raises(RunError, match=r"merged could not be written .* merge again"):
        merge(finished_run, to, check=False)
    assert not list(tmp_path.glob("merged*"))
    merge(finished_run, to, check=False)
    assert (to / "model.safetensors").exists()


def test_damaged_weights_are_one_sentence(finished_run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(finished_run / "base", tmp_path / "base")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-64])
    with pytest.raises(ModelError, match="cannot be read"):
        read_weights(weights)
    runtime = Runtime("cpu", "fp32", "dataprep_segments", liger=False)
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(str(folder), None, RunConfig(data=tmp_path, model=str(folder)), runtime)


def test_a_merged_model_that_differs_from_the_adapter_is_not_written(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = AdapterProducts.add_to
    monkeypatch.setattr(AdapterProducts, "add_to", lambda *given, **named: original(*given, **named) * 1.5)
    with pytest.raises(ModelError, match="differs from the adapter: mean KL"):
        merge(finished_run, tmp_path / "merged", check=True)
    assert not list(tmp_path.glob("merged*"))
