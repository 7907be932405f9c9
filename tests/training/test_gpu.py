"""Tests that need a GPU: `python -m pytest tests/training/test_gpu.py`; skipped on machines without one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from dataprep.contract import open_build
from tests.support.commands import logged_losses, training
from tests.support.processes import PROCESSES, back_to_step, flags, torchrun
from tests.support.tiny_models import tiny_tokenizer, write_tiny_model
from tests.support.training_builds import chatter, row, write_build
from training.after.cuda_graph import graphed_decoding
from training.after.evaluate import evaluate
from training.after.merge import merge
from training.config import RunConfig
from training.model.tiny import tokenizer_for
from training.run_folder import RunFolder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU on this machine")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_build(tmp_path_factory.mktemp("gpu") / "b", chatter(400), chatter(16, seed=5))


def train(build: Path, out: Path, *options: str) -> tuple[list[float], dict[str, Any]]:
    """The losses of 12 steps, and run.json."""
    training("run", "--data", build, "--model", "tiny", "--max-steps", "12", "--out", out, *options)
    return [loss for _, loss in logged_losses(out)], json.loads((out / "run.json").read_text())


def test_varlen_and_segment_attention_give_the_same_losses(build: Path, tmp_path: Path) -> None:
    varlen, varlen_record = train(build, tmp_path / "a")
    segments, segments_record = train(build, tmp_path / "b", "--attention", "sdpa", "--kernels", "none")
    assert varlen_record["place"]["attention"] == "dataprep_varlen"
    assert segments_record["place"]["attention"] == "dataprep_segments"
    assert varlen == pytest.approx(segments, rel=0.03)


def test_fp16_with_fp32_adapters_reaches_the_loss_of_bf16(build: Path, tmp_path: Path) -> None:
    fp16, record = train(build, tmp_path / "h", "--precision", "fp16", "--attention", "sdpa")
    bf16, _ = train(build, tmp_path / "f", "--precision", "bf16", "--attention", "sdpa")
    assert record["place"]["precision"] == "fp16"
    assert fp16[-1] == pytest.approx(bf16[-1], rel=0.1)


@pytest.mark.parametrize("optimizer", ["paged_adamw_8bit", "paged_adamw_32bit"])
def test_paged_optimizers_reduce_the_loss(build: Path, tmp_path: Path, optimizer: str) -> None:
    losses, _ = train(build, tmp_path / "p", "--optimizer", optimizer)
    assert losses[-1] < losses[0] / 1.5


def test_gradient_checkpointing_does_not_change_the_losses(build: Path, tmp_path: Path) -> None:
    kept, _ = train(build, tmp_path / "n", "--checkpoint-layers", "0")
    recomputed, _ = train(build, tmp_path / "y", "--checkpoint-layers", "2")
    assert kept == pytest.approx(recomputed, rel=0.02)


def test_a_merged_model_has_the_logits_of_the_adapter(build: Path, tmp_path: Path) -> None:
    train(build, tmp_path / "r")
    output = training("merge", "--run", tmp_path / "r", "--to", tmp_path / "m").stdout
    assert float(output.split("mean KL ")[1].split(",")[0]) < 0.01, output
    assert training("generate", "--run", tmp_path / "r", "--prompt", "Say moon 2 times.").stdout.strip()


@pytest.mark.parametrize(
    "name, attention",
    [("gemma2", "dataprep_varlen"), ("gpt_oss", "dataprep_varlen"), ("mixtral", "dataprep_varlen"),
     ("gemma3", "dataprep_varlen"), ("gpt2", "dataprep_varlen"), ("falcon", "sdpa"), ("lfm2", "sdpa")],
)  # fmt: skip
def test_other_architectures_train_packed_or_padded_and_merge(
    build: Path, tmp_path: Path, name: str, attention: str
) -> None:
    """Packed on the GPU only if the leak check and the comparison with transformers' attention pass in bf16."""
    opened = open_build(build)
    tokenizer = tokenizer_for(opened.splits["train"], dict(opened.manifest.template))
    write_tiny_model(name, tmp_path / "model", tokenizer)
    training("run", "--data", build, "--model", tmp_path / "model", "--max-steps", "4", "--max-tokens", "512", "--out",
             tmp_path / "r")  # fmt: skip
    record = json.loads((tmp_path / "r" / "run.json").read_text())
    assert record["status"] == "done"
    assert record["place"]["attention"] == attention, record["notes"]
    training("merge", "--run", tmp_path / "r", "--to", tmp_path / "m")


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_answers_with_a_replayed_graph_are_those_of_launched_kernels(name: str, tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    write_tiny_model(name, tmp_path / "model", tokenizer)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval().cuda()
    prompts = torch.tensor([[0, 0, 5, 6, 7], [5, 8, 9, 10, 11]], device="cuda")
    options = {"attention_mask": (prompts > 0).long(), "max_new_tokens": 40, "do_sample": False, "pad_token_id": 0,
               "eos_token_id": -1}  # fmt: skip
    expected = model.generate(prompts, **options)
    for _ in range(2):
        with graphed_decoding(model, 45) as decoding:
            answers = model.generate(prompts, **options, **decoding)
            assert model.forward.graph is not None
        assert answers.tolist() == expected.tolist()
    assert "forward" not in vars(model)


def test_too_little_memory_is_refused_with_settings_that_fit(build: Path, tmp_path: Path) -> None:
    """Whether 0.1 GiB suffices depends on the GPU; if it does not, the error is a sentence about memory."""
    done = training("run", "--data", build, "--model", "tiny", "--out", tmp_path / "r", "--memory-gb", "0.1",
                    "--max-tokens", "4096", "--tokens-per-step", "8192", check=None)  # fmt: skip
    assert done.returncode in (0, 1)
    if done.returncode == 1:
        assert "GiB" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(torch.cuda.device_count() < PROCESSES, reason="needs two GPUs")
def test_a_model_divided_among_gpus_with_added_tokens_is_resumed_evaluated_and_merged(tmp_path: Path) -> None:
    rows = [row(f"c{n}", [(f"Say apple {n}.", "apple apple.")], style="chatml") for n in range(48)]
    write_tiny_model("llama", tmp_path / "model", tiny_tokenizer())
    one = RunConfig(
        data=write_build(tmp_path / "b", rows[:32], rows[32:], style="chatml"), model=str(tmp_path / "model"), max_steps=4,
        save_every=2, stop_prompts=2, max_tokens=128, tokens_per_step=512, micro_batch=1, lora_r=4, lr=0.002,
        add_tokens="<|im_start|>,<|im_end|>", out=tmp_path / "one",
    )  # fmt: skip
    divided = replace(one, shard=True, out=tmp_path / "divided")
    training("run", *flags(one))
    torchrun("run", *flags(divided))
    resumed = back_to_step(2, divided, tmp_path / "resumed")
    torchrun("run", *flags(resumed))
    alone = replace(back_to_step(2, divided, tmp_path / "alone"), shard=False)
    training("run", *flags(alone))
    expected = logged_losses(tmp_path / "one")
    for name in ("divided", "resumed", "alone"):
        losses = logged_losses(tmp_path / name)
        assert [step for step, _ in losses] == [step for step, _ in expected]
        assert [loss for _, loss in losses] == pytest.approx([loss for _, loss in expected], rel=0.03)
        record = RunFolder(tmp_path / name).read()
        assert record["ledger"] == RunFolder(tmp_path / "one").read()["ledger"]
        after = evaluate(tmp_path / name, 1, 8)["after"]["loss"]
        assert after == pytest.approx(record["metrics"]["held_out_after"], rel=0.01)
        assert merge(tmp_path / name, tmp_path / f"{name}-merged", check=True)["kl"] < 0.02
