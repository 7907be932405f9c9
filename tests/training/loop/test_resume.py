"""A run that goes on is the run it was: the same losses, counts, arithmetic and pace, or a sentence; in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.disk import limited_file_size
from tests.support.training_builds import chatter, write_build
from training.config import TINY_DEFAULTS, RunConfig
from training.errors import RunError, TrainingError
from training.run_folder import RunFolder, read_metrics

torch.set_num_threads(1)
ROOT = Path(__file__).resolve().parents[3]
STEPS = 7


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Three windows of 128 tokens and a little."""
    return write_build(tmp_path_factory.mktemp("resume") / "build", chatter(24), chatter(3, seed=5))


@pytest.fixture
def config(build, tmp_path):
    options = {**TINY_DEFAULTS, "max_tokens": 128, "tokens_per_step": 256, "max_steps": STEPS, "stop_prompts": 0}
    return RunConfig(
        data=build, model="tiny", out=tmp_path / "run", device="cpu", save_every=2, resume="auto", **options
    )


def run(config):
    from training.run import run

    return run(config)


class Killed(BaseException):
    """What is left of a run when it ends in the middle."""


@pytest.fixture
def killed(monkeypatch):
    """Runs until `step` and no further, with nothing saved there."""

    def until(config, step):
        from training.loop.callbacks import Progress

        def ended(self, args, state, control, **_):
            if state.global_step >= step:
                raise Killed

        with monkeypatch.context() as patched:
            patched.setattr(Progress, "on_step_end" if step else "on_train_begin", ended)
            with pytest.raises(Killed):
                run(config)

    return until


def losses(out: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line.get("loss", line.get("eval_loss"))) for line in lines]


@pytest.mark.parametrize("log_every", [1, 3])
def test_losses_and_counts_are_those_of_an_uninterrupted_run(config, killed, tmp_path, log_every):
    """A checkpoint between two logged steps keeps the losses since the first of them."""
    config = replace(config, log_every=log_every)
    whole = run(replace(config, out=tmp_path / "whole"))
    killed(config, 5)
    assert [path.name for path in RunFolder(config.out).complete_checkpoints()] == ["step-000002", "step-000004"]
    resumed = run(config)
    assert losses(config.out) == losses(tmp_path / "whole")  # bit-equal
    assert resumed["metrics"] == whole["metrics"] and whole["notes"] == resumed["notes"]


def test_trained_tokens_are_those_of_the_steps_that_ran(config):
    """Part of a pass, and more than one."""
    ledger = run(replace(config, max_steps=None, epochs=1.0))["ledger"]["train"]
    for steps, low, high in ((1, 0.0, 1.0), (STEPS, 1.0, 9.0)):
        facts = run(replace(config, max_steps=steps, out=config.out.with_name(f"{steps}")))
        assert low < facts["metrics"]["trained_tokens"] / ledger["tokens_trained"] < high
        assert f"{facts['metrics']['trained_tokens']} trained tokens" in (
            config.out.with_name(f"{steps}") / "adapter" / "README.md"
        ).read_text("utf-8")
    whole = json.loads((config.out / "run.json").read_text())
    assert whole["metrics"]["trained_tokens"] == ledger["tokens_trained"]


def test_a_run_killed_before_its_first_checkpoint_is_bound_too(config, killed, tmp_path):
    killed(config, 0)
    assert not RunFolder(config.out).complete_checkpoints()
    other = write_build(tmp_path / "other", chatter(30, seed=1), chatter(3, seed=5))
    for changed, told in (({"data": other}, "version"), ({"seed": 7}, "seed")):
        with pytest.raises(RunError, match=f"began with {told}"):
            run(replace(config, **changed))
    run(config)
    run(replace(config, out=tmp_path / "whole"))
    assert losses(config.out) == losses(tmp_path / "whole")


def test_a_base_model_without_a_run_is_made_again(config, build):
    from training.data.training_data import open_training_build
    from training.model import tiny

    tiny.write_model(config.out / "base", open_training_build(config), 99)  # as a kill before run.json leaves it
    before = (config.out / "base" / "model.safetensors").read_bytes()
    run(replace(config, max_steps=1))
    assert (config.out / "base" / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    "part, name, value",
    [("place", "precision", "bf16"), ("place", "attention", "dataprep_varlen"), ("place", "device", "cuda"),
     ("place", "liger", True), ("resolved", "per_step", 9), ("packing", "empty", 1), ("model", "revision", "x")],
)  # fmt: skip
def test_other_arithmetic_or_another_pace_is_refused(config, killed, part, name, value):
    killed(config, 2)
    folder = RunFolder(config.out)
    facts = folder.read()
    facts[part][name] = value
    folder.write(facts)
    with pytest.raises(RunError, match=f"began with {name} {value!r} and would go on with"):
        run(config)


def test_other_versions_are_told_and_kept(config, killed, capsys):
    killed(config, 3)
    folder = RunFolder(config.out)
    facts = folder.read()
    now, facts["versions"]["torch"] = facts["versions"]["torch"], "2.0.0"
    folder.write(facts)
    killed(config, 5)
    told = f"torch {now} (before: 2.0.0)"
    assert told in capsys.readouterr().err
    notes = run(config)["notes"]
    assert len([note for note in notes if told in note]) == 1


def test_memory_gb_holds_on_resume(config, killed, monkeypatch):
    from training.memory import choose

    killed(config, 2)
    asked = []
    monkeypatch.setattr(choose, "available_memory", lambda config, place: asked.append(config.memory_gb))
    run(replace(config, memory_gb=15.0))
    assert asked == [15.0]


def test_a_checkpoint_that_cannot_be_written(config, killed):
    """The optimiser's file is the largest one: half of it fits. The checkpoint before stays, and the run goes on from it."""
    killed(config, 3)
    largest = max(path.stat().st_size for path in RunFolder(config.out).complete_checkpoints()[0].iterdir())
    with (
        limited_file_size(largest // 2),
        pytest.raises(RunError, match=r"The checkpoint of step 4 in .* could not be written"),
    ):
        run(config)
    assert [path.name for path in RunFolder(config.out).complete_checkpoints()] == ["step-000002"]
    assert run(config)["status"] == "done"


def test_a_merge_that_cannot_be_written_leaves_nothing(config, tmp_path):
    from training.after.merge import merge

    run(replace(config, max_steps=1))
    to = tmp_path / "merged"
    with limited_file_size(2**18), pytest.raises(TrainingError, match=r"merged could not be written .* merge again"):
        merge(config.out, to, check=False)
    assert not list(tmp_path.glob("merged*"))
    merge(config.out, to, check=False)
    assert (to / "model.safetensors").exists()


TOGETHER = """
import signal, sys
from types import SimpleNamespace
import torch
from torch.distributed import init_process_group
from transformers import TrainerControl
from training.loop.callbacks import Stop

init_process_group("gloo")
rank = torch.distributed.get_rank()
args = SimpleNamespace(world_size=2, device=torch.device("cpu"))
with Stop() as stop:
    ends = []
    for step in range(3):
        if step == 1 and rank == 0:
            signal.raise_signal(signal.SIGTERM)
        control = TrainerControl()
        stop.on_step_end(args, None, control)
        ends.append(control.should_training_stop and control.should_save)
    if rank == 1:
        signal.raise_signal(signal.SIGTERM)  # the launcher passes it on, later: asked once all the same
print(ends == [False, True, True] and stop.signal == 15)
"""


def test_a_signal_to_one_process_ends_them_all_after_the_same_step(tmp_path):
    script = tmp_path / "together.py"
    script.write_text(TOGETHER)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.stdout.split() == ["True", "True"], done.stderr[-2000:]


def test_two_processes_train_and_count_an_odd_number_of_windows_once(config):
    """Seven windows and two processes: the eighth is empty, and changes neither the counts nor the held-out loss."""
    config = replace(config, max_steps=None, epochs=1.0, resume="never", save_every=9)
    config = replace(config, data=write_build(config.out.with_name("odd"), chatter(28), chatter(3, seed=5)))
    one = run(config)
    two = config.out.with_name("two")
    options = {"data": config.data, "model": "tiny", "out": two, "device": "cpu", "max-tokens": 128, "stop-prompts": 0,
               "tokens-per-step": 256, "epochs": 1.0}  # fmt: skip
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "training.cli",
    ]
    flags = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
    done = subprocess.run([*command, "run", *flags], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = RunFolder(two).read()
    assert one["packing"] | {"empty": 1} == facts["packing"] and facts["packing"]["windows"] == 7
    assert facts["resolved"]["per_step"] == one["resolved"]["per_step"] == 2
    whole = facts["ledger"]["train"]["tokens_trained"]
    assert facts["metrics"]["trained_tokens"] == one["metrics"]["trained_tokens"] == whole
    tokens = [{line["eval_tokens"] for line in read_metrics(out / "metrics.jsonl") if "eval_tokens" in line}
              for out in (config.out, two)]  # fmt: skip
    assert tokens[0] == tokens[1] and len(tokens[0]) == 1
    assert facts["metrics"]["held_out_before"] == pytest.approx(one["metrics"]["held_out_before"], rel=1e-5)
