"""The best step of a run, early stopping, and runs that start from an adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import logged_losses
from tests.support.training_builds import chatter, row, write_build
from training.after import finish
from training.config import TINY_DEFAULTS, RunConfig, check
from training.errors import DataError, OptionError
from training.loop.best import best_step, evaluations, patience_exhausted
from training.metrics import read_metrics
from training.run import run
from training.run_folder import RunFolder

HISTORY = [
    {"step": 0, "eval_loss": 0.1},
    {"step": 2, "eval_loss": 3.0},
    {"step": 3, "loss": 1.0},
    {"step": 4, "eval_loss": 2.0},
    {"step": 6, "eval_loss": 2.0},
    {"step": 8, "eval_loss": 2.5},
]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Held-out conversations with other answers to the trained questions, so that the held-out loss rises again."""
    questions = [columns["messages"][0]["content"] for columns in chatter(4)]
    contrary = [row(f"held-{n}", [(question, "Never: 12345!")]) for n, question in enumerate(questions)]
    return write_build(tmp_path_factory.mktemp("best") / "build", chatter(24), contrary)


@pytest.fixture
def config(build: Path, tmp_path: Path) -> RunConfig:
    options: dict[str, Any] = TINY_DEFAULTS | {
        "max_tokens": 128, "tokens_per_step": 256, "max_steps": 12, "stop_prompts": 0, "lr": 0.05,
    }  # fmt: skip
    return RunConfig(
        data=build, model="tiny", out=tmp_path / "run", device="cpu", eval_every=2, resume="auto", keep_best=True,
        **options,
    )  # fmt: skip


def test_the_best_step_is_the_first_with_the_lowest_loss_after_a_training_step() -> None:
    assert best_step(HISTORY) == (4, 2.0) and best_step(HISTORY[:1]) is None
    assert evaluations(HISTORY)[0] == (2, 3.0)


@pytest.mark.parametrize("patience, exhausted", [(None, False), (1, True), (2, True), (3, False)])
def test_patience_counts_evaluations_without_a_lower_loss(patience: int | None, exhausted: bool) -> None:
    assert patience_exhausted(HISTORY, patience) is exhausted


def test_the_adapter_of_the_lowest_held_out_loss_is_the_result(config: RunConfig) -> None:
    """--keep-best, although only the two newest checkpoints are kept besides."""
    record = run(replace(config, max_steps=40))
    assert config.out is not None
    folder = RunFolder(config.out)
    best = best_step(read_metrics(folder.metrics))
    assert best is not None and best[0] < 38, "the test needs a held-out loss that rises again"
    assert (record["metrics"]["best_step"], record["metrics"]["held_out_after"]) == best
    weights = "adapter_model.safetensors"
    checkpoint = folder.checkpoints / f"step-{best[0]:06d}"
    assert (folder.adapter / weights).read_bytes() == (checkpoint / weights).read_bytes()
    kept = {path.name for path in folder.complete_checkpoints()}
    assert kept == {checkpoint.name, "step-000038", "step-000040"}


def test_a_run_ends_when_its_patience_is_exhausted(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--patience; and a run that is killed after that is finished without another step."""

    class Killed(BaseException):
        pass

    def kill(*_: object) -> None:
        raise Killed

    config = replace(config, patience=1, max_steps=40)
    record = run(replace(config, out=tmp_path / "uninterrupted"))
    losses = logged_losses(tmp_path / "uninterrupted")
    assert losses[-1][0] == record["metrics"]["best_step"] + 2 < 40 and record["status"] == "done"
    with monkeypatch.context() as patched:
        patched.setattr(finish, "write_adapter", kill)
        with pytest.raises(Killed):
            run(config)
    assert run(config)["metrics"] == record["metrics"]
    assert config.out is not None and logged_losses(config.out) == losses


def test_a_run_continues_from_another_runs_adapter(config: RunConfig, tmp_path: Path) -> None:
    """--init-adapter with the folder of a run: the held-out loss starts where the other run's ended."""
    first = run(replace(config, keep_best=False, max_steps=4))
    assert config.out is not None
    base = config.out / "base"
    options: dict[str, Any] = {"model": str(base), "init_adapter": config.out, "keep_best": False, "max_steps": 2}
    second = run(replace(config, out=tmp_path / "second", **options))
    assert second["metrics"]["held_out_before"] == pytest.approx(first["metrics"]["held_out_after"], rel=1e-5)
    assert len(second["model"]["init_adapter_sha256"]) == 64
    with pytest.raises(OptionError, match="has rank 16 and alpha 16: give it as --lora-r"):
        run(replace(config, out=tmp_path / "third", **options | {"lora_r": 8}))
    with pytest.raises(OptionError, match="belongs to other layers"):
        run(replace(config, out=tmp_path / "fourth", **options | {"targets": "q_proj"}))
    with pytest.raises(OptionError, match="has no adapter_config.json"):
        run(replace(config, out=tmp_path / "fifth", **options | {"init_adapter": base}))


@pytest.mark.parametrize(
    "options, sentence",
    [({"patience": 2, "keep_best": False}, "--patience needs --keep-best"), ({"held_out": 0}, "needs held-out rows")],
)
def test_options_without_what_they_need_are_refused(config: RunConfig, options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        check(replace(config, **options))


def test_keep_best_needs_held_out_rows(config: RunConfig, tmp_path: Path) -> None:
    one_tree = [{**columns, "tree_id": "one"} for columns in chatter(8)]
    with pytest.raises(DataError, match="--keep-best needs held-out rows"):
        run(replace(config, data=write_build(tmp_path / "b", one_tree)))
