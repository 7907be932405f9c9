"""--report-to: what each tracker's own package records of a run, offline."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from peft import LoraConfig
from transformers import LlamaConfig, TrainerControl, TrainerState, TrainingArguments

from training.errors import OptionError
from training.loop.trackers import tracked_config, tracking
from training.run_folder import RunFolder

RECORD: dict[str, Any] = {
    "provenance": {
        "build": "sample", "version": "abc123", "recipe_sha256": "", "template": "llama2", "gate": "passed", "tokenizer_sha256": "",
    },
    "model": {"name": "/home/me/models/Llama-2-7b", "revision": "r"},
    "options": {}, "operational": {}, "template": {}, "packing": {}, "memory": {}, "self_test": {}, "versions": {},
    "place": {"device": "cpu", "precision": "fp32", "attention": "sdpa", "liger": False},
    "resolved": {
        "micro_batch": 1, "checkpoint_layers": 0, "optimizer": "adamw", "processes": 1, "accumulate": 1, "per_step": 1,
        "wanted": 1, "tokens_per_step": 2048, "steps_an_epoch": 2, "steps": 2,
    },
    "ledger": {
        "rows": {"train": 9, "held_out": 1, "not_used": 0}, "test": None,
        "train": {"tokens_trained": 71, "tokens_cut": 5, "dropped": ["a"]},
    },
    "notes": [], "status": "running",
}  # fmt: skip
BUILD = "sample@abc123"
LOSSES = [3.5, 2.5]


def new_folder(path: Path) -> RunFolder:
    """A run's folder as it is before the first step."""
    path.mkdir()
    folder = RunFolder(path)
    folder.write(RECORD)
    return folder


def report(kind: str, folder: RunFolder, losses: list[float], *, first_step: int = 1) -> None:
    """What transformers' trainer reports of a run with these losses."""
    model = SimpleNamespace(
        config=LlamaConfig(), peft_config={"default": LoraConfig(target_modules=["q_proj"])}, num_parameters=lambda: 7
    )
    args = TrainingArguments(
        output_dir=str(folder.path), report_to="none", use_cpu=True, eval_strategy="no", seed=first_step
    )
    state, control = TrainerState(is_world_process_zero=True), TrainerControl()
    with tracking(kind, folder, first_step - 1 if first_step > 1 else -1) as callbacks:
        for callback in callbacks:
            callback.on_train_begin(args, state, control, model=model)
        for state.global_step, loss in enumerate(losses, start=first_step):
            for callback in callbacks:
                callback.on_log(args, state, control, model=model, logs={"loss": loss})
        for callback in callbacks:
            callback.on_train_end(args, state, control, model=model)


def test_the_entries_name_the_build_and_count_its_rows_and_tokens() -> None:
    entries = tracked_config(RECORD)  # type: ignore[arg-type]
    assert entries == {
        "dataprep/build": BUILD, "dataprep/template": "llama2", "dataprep/gate": "passed",
        "dataprep/base_model": "Llama-2-7b", "dataprep/steps": 2, "dataprep/tokens_per_step": 2048,
        "dataprep/rows/train": 9, "dataprep/rows/held_out": 1, "dataprep/rows/not_used": 0,
        "dataprep/ledger/tokens_trained": 71, "dataprep/ledger/tokens_cut": 5,
    }  # fmt: skip


def test_wandb_offline_writes_a_folder_that_names_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    wandb = pytest.importorskip("wandb")
    secret = "0123456789abcdef" * 3
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", secret)
    folder = new_folder(tmp_path / "run")
    report("wandb", folder, LOSSES)
    wandb.teardown()  # its process writes what is left
    (written,) = folder.path.glob("wandb/offline-run-*/run-*.wandb")
    tracked = folder.read()["tracked_run"]
    assert tracked["tracker"] == "wandb"
    assert written.name == f"run-{tracked['id']}.wandb"
    content = written.read_bytes()
    assert b"dataprep/build" in content and BUILD.encode() in content and b"train/loss" in content
    assert secret not in "".join(capfd.readouterr())
    assert not [file for file in folder.path.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]


def test_mlflow_records_the_build_as_tags_and_a_resumed_run_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "mlruns").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    folder = new_folder(tmp_path / "run")
    report("mlflow", folder, LOSSES)
    number = folder.read()["tracked_run"]["id"]
    report("mlflow", folder, [1.5], first_step=3)
    assert folder.read()["tracked_run"]["id"] == number
    run = mlflow.get_run(number)
    assert run.info.status == "FINISHED" and run.data.tags["dataprep/build"] == BUILD
    history = mlflow.MlflowClient().get_metric_history(number, "loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(1, 3.5), (2, 2.5), (3, 1.5)]


def test_trackio_records_the_build_in_its_local_database_and_prints_nothing_to_stdout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trackio")
    from trackio import utils

    monkeypatch.setattr(utils, "TRACKIO_DIR", tmp_path / "trackio")
    import trackio.sqlite_storage as storage

    monkeypatch.setattr(storage, "TRACKIO_DIR", tmp_path / "trackio")
    folder = new_folder(tmp_path / "run")
    report("trackio", folder, LOSSES)
    assert capsys.readouterr().out == ""
    (database,) = (tmp_path / "trackio").glob("*.db")
    with sqlite3.connect(database) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = json.dumps([[str(row) for row in connection.execute(f"SELECT * FROM {table}")] for table in tables])
    assert BUILD in rows and "train/loss" in rows and folder.read()["tracked_run"]["id"] in rows


def test_a_tracker_that_cannot_begin_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_PROJECT", "a/b")  # not a name
    with pytest.raises(OptionError, match="--report-to wandb: the tracked run cannot begin .*WANDB_MODE=offline"):
        report("wandb", new_folder(tmp_path / "run"), LOSSES)


@pytest.mark.parametrize("kind, variable", [("wandb", "WANDB_LOG_MODEL"), ("mlflow", "HF_MLFLOW_LOG_ARTIFACTS")])
def test_variables_that_upload_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, variable: str
) -> None:
    monkeypatch.setenv(variable, "end")
    with pytest.raises(OptionError, match=f"{variable} is set"):
        report(kind, new_folder(tmp_path / "run"), LOSSES)


def test_no_tracker_is_the_default(tmp_path: Path) -> None:
    folder = new_folder(tmp_path / "run")
    report("none", folder, LOSSES)
    assert [file.name for file in folder.path.iterdir()] == ["run.json"]
