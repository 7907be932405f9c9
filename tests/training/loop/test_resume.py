"""A resumed run has the losses, counts, arithmetic and schedule of an uninterrupted one, or is refused with a sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.commands import logged_losses
from tests.support.disk import limited_file_size
from tests.support.training_builds import chatter, write_build
from training.config import TINY_DEFAULTS, RunConfig
from training.data.training_data import open_training_build
from training.errors import RunError
from training.loop.callbacks import ProgressCallback
from training.memory import choose
from training.model import tiny
from training.run import run
from training.run_folder import RunFolder
from training.run_record import RunRecord

torch.set_num_threads(1)
STEPS = 7

Killer = Callable[[RunConfig, int], None]
Runner = Callable[[RunConfig], tuple[Path, RunRecord]]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three windows of 128 tokens and part of a fourth."""
    return write_build(tmp_path_factory.mktemp("resume") / "build", chatter(24), chatter(3, seed=5))


@pytest.fixture
def config(build: Path, tmp_path: Path) -> RunConfig:
    options: dict[str, Any] = TINY_DEFAULTS | {
        "max_tokens": 128, "tokens_per_step": 256, "max_steps": STEPS, "stop_prompts": 0,
    }  # fmt: skip
    return RunConfig(
        data=build, model="tiny", out=tmp_path / "run", device="cpu", save_every=2, resume="auto", **options
    )


def folder_of(config: RunConfig) -> RunFolder:
    assert config.out is not None
    return RunFolder(config.out)


class Killed(BaseException):
    """Ends a run as a kill does."""


@pytest.fixture(scope="module")
def killed_runs() -> dict[tuple[RunConfig, int], Path]:
    """The folders of runs that were killed, by their options and the step: a new run like one of them is a copy."""
    return {}


@pytest.fixture
def run_and_kill(killed_runs: dict[tuple[RunConfig, int], Path], tmp_path_factory: pytest.TempPathFactory) -> Killer:
    """Run until `step` and kill the run there, before anything of that step is saved."""

    def until(config: RunConfig, step: int) -> None:
        folder = folder_of(config).path
        if folder.exists():  # a resumed run
            kill_at(step, config)
            return
        key = (replace(config, out=None), step)
        if key not in killed_runs:
            killed_runs[key] = tmp_path_factory.mktemp("killed") / "run"
            kill_at(step, replace(config, out=killed_runs[key]))
        shutil.copytree(killed_runs[key], folder)

    return until


def kill_at(step: int, config: RunConfig) -> None:
    """Start or resume a run that ends in `step` as a kill ends it."""

    def kill(self: object, args: object, state: Any, control: object, **_: object) -> None:
        if state.global_step >= step:
            raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(ProgressCallback, "on_step_end" if step else "on_train_begin", kill)
        with pytest.raises(Killed):
            run(config)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """Run to the end without an interruption; return the folder and the record. Equal options run once."""

    @cache
    def to_the_end(config: RunConfig) -> tuple[Path, RunRecord]:
        folder = tmp_path_factory.mktemp("uninterrupted") / "run"
        return folder, run(replace(config, out=folder))

    return lambda config: to_the_end(replace(config, out=None))


@pytest.mark.parametrize("log_every", [1, 3])
def test_losses_and_counts_are_those_of_an_uninterrupted_run(
    config: RunConfig, run_and_kill: Killer, uninterrupted: Runner, log_every: int
) -> None:
    """Also if the checkpoint lies between two logged steps."""
    config = replace(config, log_every=log_every)
    expected, record = uninterrupted(config)
    run_and_kill(config, 5)
    folder = folder_of(config)
    assert [path.name for path in folder.complete_checkpoints()] == ["step-000002", "step-000004"]
    resumed = run(config)
    assert logged_losses(folder.path) == logged_losses(expected)  # bit-equal
    assert resumed["metrics"] == record["metrics"] and resumed["notes"] == record["notes"]


def test_trained_tokens_are_those_of_the_steps(config: RunConfig, uninterrupted: Runner) -> None:
    """For part of an epoch, one epoch, and several."""
    epoch = run(replace(config, max_steps=None, epochs=1.0))
    tokens = epoch["ledger"]["train"]["tokens_trained"]
    assert epoch["metrics"]["trained_tokens"] == tokens
    for steps, low, high in ((1, 0.0, 1.0), (STEPS, 1.0, 9.0)):
        out, record = uninterrupted(replace(config, max_steps=steps))
        assert low < record["metrics"]["trained_tokens"] / tokens < high
        card = (out / "adapter" / "README.md").read_text("utf-8")
        assert f"{record['metrics']['trained_tokens']} trained tokens" in card


def test_a_run_killed_before_its_first_checkpoint_is_resumed_only_with_its_own_options(
    config: RunConfig, run_and_kill: Killer, uninterrupted: Runner, tmp_path: Path
) -> None:
    run_and_kill(config, 0)
    assert not folder_of(config).complete_checkpoints()
    other = write_build(tmp_path / "other", chatter(30, seed=1), chatter(3, seed=5))
    changes: list[tuple[dict[str, Any], str]] = [({"data": other}, "version"), ({"seed": 7}, "seed")]
    for changed, name in changes:
        with pytest.raises(RunError, match=f"was started with {name}"):
            run(replace(config, **changed))
    run(config)
    assert logged_losses(folder_of(config).path) == logged_losses(uninterrupted(config)[0])


def test_a_base_model_without_a_run_is_written_again(config: RunConfig) -> None:
    """A kill before run.json is written leaves one."""
    base = folder_of(config).base
    tiny.write_model(base, open_training_build(config), 99)
    before = (base / "model.safetensors").read_bytes()
    run(replace(config, max_steps=1))
    assert (base / "model.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    "part, name, value",
    [("place", "precision", "bf16"), ("place", "attention", "dataprep_varlen"), ("place", "device", "cuda"),
     ("place", "liger", True), ("resolved", "per_step", 9), ("packing", "empty", 1), ("model", "revision", "x")],
)  # fmt: skip
def test_other_arithmetic_or_another_schedule_is_refused(
    config: RunConfig, run_and_kill: Killer, part: str, name: str, value: Any
) -> None:
    run_and_kill(config, 2)
    folder = folder_of(config)
    record: Any = folder.read()
    record[part][name] = value
    folder.write(record)
    with pytest.raises(RunError, match=f"was started with {name} {value!r} and cannot be resumed with"):
        run(config)


def test_other_library_versions_are_logged_once_and_recorded(
    config: RunConfig, run_and_kill: Killer, capsys: pytest.CaptureFixture[str]
) -> None:
    run_and_kill(config, 3)
    folder = folder_of(config)
    record = folder.read()
    now, record["versions"]["torch"] = record["versions"]["torch"], "2.0.0"
    folder.write(record)
    run_and_kill(config, 5)
    change = f"torch {now} (before: 2.0.0)"
    assert change in capsys.readouterr().err
    notes = run(config)["notes"]
    assert len([note for note in notes if change in note]) == 1


def test_a_resumed_run_respects_memory_gb(
    config: RunConfig, run_and_kill: Killer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_and_kill(config, 2)
    limits: list[float | None] = []
    monkeypatch.setattr(choose, "available_memory", lambda config, runtime: limits.append(config.memory_gb))
    run(replace(config, memory_gb=15.0))
    assert limits == [15.0]


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(config: RunConfig, run_and_kill: Killer) -> None:
    """Half of the optimizer's file, which is the largest, fits."""
    run_and_kill(config, 3)
    folder = folder_of(config)
    largest = max(path.stat().st_size for path in folder.complete_checkpoints()[0].iterdir())
    sentence = r"The checkpoint of step 4 in .* could not be written"
    with limited_file_size(largest // 2), pytest.raises(RunError, match=sentence):
        run(config)
    assert [path.name for path in folder.complete_checkpoints()] == ["step-000002"]
    assert run(config)["status"] == "done"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != ".lock"
    }


def test_a_finished_run_is_resumed_without_any_change(config: RunConfig, capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(config, schedule="constant")  # a further step would change the adapter
    record = run(config)
    folder = folder_of(config)
    before = snapshot(folder.path)
    capsys.readouterr()
    assert run(replace(config, keep=3)) == record
    assert "is finished" in capsys.readouterr().err
    assert snapshot(folder.path) == before


def test_a_run_killed_after_its_last_step_is_finished_without_another_step(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, uninterrupted: Runner
) -> None:
    from training.after import finish

    config = replace(config, schedule="constant")

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(finish, "write_adapter", kill)
        with pytest.raises(Killed):
            run(config)
    folder = folder_of(config)
    assert [path.name for path in folder.complete_checkpoints()][-1] == f"step-{STEPS:06d}"
    resumed = run(config)
    expected, record = uninterrupted(config)
    assert resumed["metrics"] == record["metrics"] and resumed["status"] == "done"
    weights = "adapter/adapter_model.safetensors"
    assert (folder.path / weights).read_bytes() == (expected / weights).read_bytes()


@pytest.mark.parametrize("file", ["optimizer.pt", "scheduler.pt", "adapter_model.safetensors", "counts.json"])
@pytest.mark.parametrize("damage", ["missing", "flipped"])
def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(
    config: RunConfig, run_and_kill: Killer, file: str, damage: str, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run_and_kill(config, 5)
    folder = folder_of(config)
    path = folder.complete_checkpoints()[-1] / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    run(config)
    reason = "is missing" if damage == "missing" else "has changed"
    printed = capsys.readouterr().err
    assert f"step-000004 is damaged ({file} {reason})" in printed
    assert f"Resuming from {folder.checkpoints / 'step-000002'}." in printed
    assert [loss for step, loss in logged_losses(folder.path) if step == 3]  # trained again from step 2


def test_a_run_without_an_undamaged_checkpoint_starts_again(
    config: RunConfig, run_and_kill: Killer, uninterrupted: Runner, capsys: pytest.CaptureFixture[str]
) -> None:
    run_and_kill(config, 3)
    folder = folder_of(config)
    (folder.complete_checkpoints()[0] / "checksums.json").write_text("[]")
    run(config)
    assert "Starting again" in capsys.readouterr().err
    assert logged_losses(folder.path) == logged_losses(uninterrupted(config)[0])
