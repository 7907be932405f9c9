"""What only a GPU shows; skipped elsewhere. `python -m pytest tests/training/test_gpu.py` on a machine that has one."""

from __future__ import annotations

import json

import pytest
import torch

from tests.support.commands import logged_losses, training
from tests.support.training_builds import chatter, write_build

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible to PyTorch")


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    return write_build(tmp_path_factory.mktemp("gpu") / "b", chatter(400), chatter(16, seed=5))


def trained(build, out, *options):
    training("run", "--data", build, "--model", "tiny", "--max-steps", "12", "--out", out, *options)
    return [loss for _, loss in logged_losses(out)], json.loads((out / "run.json").read_text())


def test_varlen_and_segments_give_the_same_losses(build, tmp_path):
    fast, facts = trained(build, tmp_path / "a")
    slow, other = trained(build, tmp_path / "b", "--attention", "sdpa", "--kernels", "none")
    assert facts["place"]["attention"] == "dataprep_varlen" and other["place"]["attention"] == "dataprep_segments"
    assert fast == pytest.approx(slow, rel=0.03)


def test_fp16_with_fp32_adapters(build, tmp_path):
    half, facts = trained(build, tmp_path / "h", "--precision", "fp16", "--attention", "sdpa")
    full, _ = trained(build, tmp_path / "f", "--precision", "bf16", "--attention", "sdpa")
    assert facts["place"]["precision"] == "fp16" and half[-1] == pytest.approx(full[-1], rel=0.1)


@pytest.mark.parametrize("optimizer", ["paged_adamw_8bit", "paged_adamw_32bit"])
def test_paged_optimisers(build, tmp_path, optimizer):
    found, _ = trained(build, tmp_path / "p", "--optimizer", optimizer)
    assert found[-1] < found[0] / 1.5


def test_checkpointing_changes_nothing(build, tmp_path):
    plain, _ = trained(build, tmp_path / "n", "--checkpoint-layers", "0")
    again, _ = trained(build, tmp_path / "y", "--checkpoint-layers", "2")
    assert plain == pytest.approx(again, rel=0.02)


def test_merge_on_the_gpu(build, tmp_path):
    trained(build, tmp_path / "r")
    told = training("merge", "--run", tmp_path / "r", "--to", tmp_path / "m").stdout
    assert float(told.split("mean KL ")[1].split(" ")[0]) < 0.01, told
    assert training("generate", "--run", tmp_path / "r", "--prompt", "Say moon 2 times.").stdout.strip()


def test_too_little_memory_says_what_fits(build, tmp_path):
    done = training("run", "--data", build, "--model", "tiny", "--out", tmp_path / "r", "--memory-gb", "0.1",
                    "--max-tokens", "4096", "--tokens-per-step", "8192", check=None)  # fmt: skip
    assert done.returncode in (0, 1)
    if done.returncode == 1:
        assert "GiB" in done.stderr and "Traceback" not in done.stderr
