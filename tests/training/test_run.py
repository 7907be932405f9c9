"""A run from its start to its end through the command line: train, stop, kill, resume; and its record."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.commands import logged_losses, training_here
from tests.support.processes import start_training
from tests.support.training_builds import chatter, row, write_build
from tests.support.training_runs import RUN_OPTIONS, STEPS, copy_run, wait_for_step
from training.after.finished_run import open_finished_run
from training.after.sample_answers import read_sample_answers
from training.config import RunConfig
from training.errors import DataError, RunError
from training.run import with_full_paths
from training.run_folder import RunFolder


def test_a_run_lowers_the_held_out_loss_and_records_itself(finished_run: Path) -> None:
    record = RunFolder(finished_run).read()
    metrics = record["metrics"]
    assert metrics["held_out_before"] is not None and metrics["held_out_after"] is not None
    assert record["status"] == "done" and metrics["held_out_after"] < metrics["held_out_before"] / 2
    ledger = record["ledger"]["train"]
    assert ledger["tokens_read"] == ledger["tokens_trained"] + ledger["tokens_masked"]
    assert record["provenance"]["version"] and record["versions"]["trl"] and record["resolved"]["steps"] == STEPS
    assert [step for step, _ in logged_losses(finished_run)][-2:] == [STEPS, STEPS]
    assert "<svg" in (finished_run / "loss.html").read_text()


def test_keep_limits_the_checkpoints_and_stop_prompts_the_answers(finished_run: Path) -> None:
    checkpoints = sorted(path.name for path in (finished_run / "checkpoints").iterdir())
    assert checkpoints == ["step-000008", "step-000012", "step-000016"]
    assert RunFolder(finished_run).read()["metrics"]["stop_prompts"] == 5


def test_the_first_held_out_questions_are_answered_before_and_after_training(finished_run: Path) -> None:
    samples = read_sample_answers(finished_run / "answers.json")
    assert len(samples) == 3 and all(sample["question"] and sample["reference"] for sample in samples)
    assert samples[0]["before"] != samples[0]["after"]
    assert "Answers before and after" in (finished_run / "loss.html").read_text()


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="the package tensorboard is not installed")
def test_tensorboard_has_the_losses_of_metrics_jsonl(finished_run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore[import-untyped]
        EventAccumulator,
    )

    events = EventAccumulator(str(finished_run / "tensorboard")).Reload()
    reported = [(event.step, pytest.approx(event.value)) for event in events.Scalars("train/loss")]
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines if "loss" in line] == reported
    assert len(events.Scalars("eval/loss")) == sum("eval_loss" in line for line in lines)


def test_a_killed_and_resumed_run_has_the_losses_of_an_uninterrupted_one(
    small_build: Path, tmp_path: Path, finished_run: Path
) -> None:
    run = tmp_path / "run"
    process = start_training(tmp_path / "output", "run", "--data", small_build, *RUN_OPTIONS, "--out", run)
    wait_for_step(run, 6, process)  # between two checkpoints
    process.kill()
    process.join()
    (run / "checkpoints" / ".partial").mkdir(exist_ok=True)  # as a kill while a checkpoint is written leaves it
    training_here("run", "--data", small_build, *RUN_OPTIONS, "--out", run, "--resume", "auto")
    assert logged_losses(run) == logged_losses(finished_run)  # bit-equal


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_run_with_a_checkpoint(
    small_build: Path, tmp_path: Path, finished_run: Path, number: signal.Signals, code: int
) -> None:
    run = tmp_path / "run"
    process = start_training(tmp_path / "output", "run", "--data", small_build, *RUN_OPTIONS, "--out", run)
    wait_for_step(run, 5, process)
    os.kill(process.pid or 0, number)
    process.join()
    printed = (tmp_path / "output").read_text()
    assert process.exitcode == code and "--resume auto" in printed, printed[-2000:]
    checkpoint = sorted((run / "checkpoints").glob("step-*"))[-1].name
    assert RunFolder(run).read()["status"] == f"stopped at step {int(checkpoint[5:])}"
    if number == signal.SIGTERM:
        training_here("run", "--data", small_build, *RUN_OPTIONS, "--out", run, "--resume", "auto")
        assert logged_losses(run) == logged_losses(finished_run)


def test_a_run_is_not_resumed_with_other_options_or_data(small_build: Path, tmp_path: Path, finished_run: Path) -> None:
    common = ["run", *RUN_OPTIONS, "--out", finished_run]
    for option, value, name in (("--lr", "1e-3", "lr"), ("--max-tokens", "512", "max_tokens")):
        done = training_here(*common, "--data", small_build, option, value, "--resume", "auto", check=1)
        assert f"was started with {name}" in done.stderr
    other = write_build(tmp_path / "other", chatter(60, seed=1))
    done = training_here(*common, "--data", other, "--resume", "auto", check=1)
    assert "was started with version" in done.stderr
    done = training_here(*common, "--data", small_build, check=1)
    assert "not empty" in done.stderr


def test_run_json_has_absolute_paths_and_a_resumed_run_keeps_its_build(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two", "model"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    monkeypatch.chdir(tmp_path)
    Path("latest").symlink_to("two")
    config = RunConfig(data=Path("latest"), model="model", out=Path("run"), resume="auto")
    full = with_full_paths(config)
    assert full.data == tmp_path / "two" and full.model == str(tmp_path / "model")
    copy_run(finished_run, Path("run"), operational__data=str(tmp_path / "one"))
    assert with_full_paths(config).data == tmp_path / "one"
    assert f"continues on {tmp_path / 'one'}" in capsys.readouterr().err
    assert with_full_paths(replace(config, data=Path("two"))).data == tmp_path / "two"  # its version is refused later
    assert with_full_paths(replace(config, model="tiny")).model == "tiny"


def test_run_json_says_why_a_run_failed(small_build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = import_module("training.run")

    def fail(*_: object) -> None:
        raise DataError("Nothing works.")

    monkeypatch.setattr(module, "_train", fail)
    config = RunConfig(data=small_build, model="tiny", device="cpu", out=tmp_path / "out", max_tokens=256, max_steps=1)
    with pytest.raises(DataError):
        module.run(config)
    assert RunFolder(tmp_path / "out").read()["status"] == "failed: Nothing works."


def test_truncated_and_dropped_rows_are_logged_and_recorded(tmp_path: Path) -> None:
    rows = [row(f"t{n}", [("hello " * (n % 30), "yes " * (1 + n % 40))] * 2) for n in range(60)]
    build = write_build(tmp_path / "b", rows, chatter(8))
    done = training_here("run", "--data", build, "--model", "tiny", "--max-steps", "1", "--max-tokens", "64",
                    "--out", tmp_path / "r", "--stop-prompts", "0")  # fmt: skip
    ledger = RunFolder(tmp_path / "r").read()["ledger"]["train"]
    assert ledger["rows_cut"] and f"{ledger['rows_cut']} conversations longer" in done.stderr
    assert ledger["rows_read"] == ledger["rows"] + ledger["rows_dropped"] + ledger["rows_untrained"]
    for name in ledger["dropped"]:
        assert name in done.stderr


def test_a_run_of_an_older_version_is_opened(finished_run: Path, tmp_path: Path) -> None:
    run = copy_run(finished_run, tmp_path / "copy")
    record = json.loads((run / "run.json").read_text())
    record["bond"] = record.pop("provenance")
    (run / "run.json").write_text(json.dumps(record))
    (run / "adapter" / "checksums.json").unlink()  # which it had not
    assert RunFolder(run).read()["provenance"] == record["bond"]
    assert open_finished_run(run).record["provenance"] == record["bond"]


@pytest.mark.parametrize(
    "content", ["", "[]", "null", '{"a": ', "[" * 50_000, '{"notes": 3}', '{"status": "\\ud800"}', "9" * 5000]
)
def test_a_damaged_record_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match="run.json cannot be read"):
        RunFolder(tmp_path).read()
