"""The command line: help, one sentence for bad input, exit codes, `inspect` and `plan`."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dataprep.common import command_line
from tests.support.commands import training_here
from tests.support.paths import ROOT
from tests.support.training_builds import chatter, write_build
from training.config import RunConfig
from training.data.training_data import open_training_build
from training.errors import ModelError, RunError, Stopped
from training.model.identity import read_model_config
from training.model.tiny import train_tokenizer
from training.model.tokenizer import load_tokenizer
from training.run import with_full_paths
from training.run_lookup import locate_run


def test_help_loads_no_heavy_library() -> None:
    code = (
        "import sys; from training.cli import main; sys.argv = ['training', 'run', '--help']\n"
        "try: main()\nexcept SystemExit: pass\nprint(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "--max-tokens" in loaded
    assert not {
        "numpy",
        "pyarrow",
        "msgspec",
        "torch",
        "transformers",
        "trl",
        "peft",
        "datasets",
        "bitsandbytes",
    } & set(loaded.split())


def test_bad_input_is_one_sentence_and_an_exit_code(small_build: Path, tmp_path: Path) -> None:
    empty = tmp_path / "model"
    empty.mkdir()
    (empty / "config.json").write_text("{}")
    cases = [
        (["--data", tmp_path / "none", "--model", "tiny"], 1, "There is no build"),
        (["--data", small_build, "--model", tmp_path / "none"], 1, "does not exist"),
        (["--data", small_build], 2, "training: run needs --model"),
        (["--data", small_build, "--model", "tiny", "--epcohs", "2"], 2, "Did you mean '--epochs'?"),
        (["--data", small_build, "--model", empty], 1, "has no tokenizer"),
    ]
    for arguments, code, sentence in cases:
        done = training_here("run", *arguments, "--out", tmp_path / "run", check=code)
        assert sentence in done.stderr + done.stdout and "Traceback" not in done.stderr, done.stderr


def test_a_damaged_build_exits_with_4(tmp_path: Path) -> None:
    build = write_build(tmp_path / "build", chatter(20))
    shard = next(build.glob("train/*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-8])
    done = training_here("run", "--data", build, "--model", "tiny", "--out", tmp_path / "run", check=4)
    assert "damaged" in done.stderr


def test_a_large_model_without_a_gpu_is_refused(small_build: Path, tmp_path: Path) -> None:
    folder = tmp_path / "llama"
    folder.mkdir()
    train_tokenizer(["text"], ["<s>", "</s>"]).backend.save(str(folder / "tokenizer.json"))
    shape = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
             "vocab_size": 32000, "model_type": "llama"}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(shape))
    options = ["--model", folder, "--device", "cpu", "--out", tmp_path / "r"]
    done = training_here("run", "--data", small_build, *options, check=1)
    assert "6.7 billion" in done.stderr and "--model tiny" in done.stderr


def test_inspect_prints_rows_and_plan_a_plan(small_build: Path) -> None:
    common = ["--data", small_build, "--model", "tiny"]
    lines = training_here("inspect", *common, "--rows", "0:5", "--json").stdout.splitlines()
    first = json.loads(lines[0])
    assert len(lines) == 5 and len(first["input_ids"]) == len(first["labels"])
    assert "trained" in training_here("inspect", *common, "--row", "3").stdout
    plan = json.loads(training_here("plan", *common, "--gpu", "t4", "--json").stdout)
    assert plan["steps"] == 60 and plan["memory_gib"]["total"] < 14


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_damaged_configuration_of_a_model_is_one_sentence(finished_run: Path, tmp_path: Path, file: str) -> None:
    folder = shutil.copytree(finished_run / "base", tmp_path / "base")
    (folder / file).write_text('{"hidden_size": ')
    with pytest.raises(ModelError, match=f"{file} is not a readable JSON object"):
        read_model_config(str(folder), None)
        load_tokenizer(str(folder))


def test_a_run_is_found_by_its_name_the_beginning_of_it_or_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("chats-1a2b-tiny", "other-3c4d-tiny", "other-5e6f-tiny"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "run.json").touch()
    expected = Path("runs/chats-1a2b-tiny")
    assert locate_run("chats-1a2b-tiny") == locate_run("chats") == locate_run(str(expected)) == expected
    with pytest.raises(RunError, match="beginning of more than one run in runs: other-3c4d-tiny, other-5e6f-tiny"):
        locate_run("other")
    assert "Did you mean 'chats-1a2b-tiny'?" in training_here("merge", "chat-1a2b", "--to", "x", check=1).stderr


def test_a_build_is_found_by_name_and_short_version(tmp_path: Path, small_build: Path) -> None:
    version = "0123456789ab"
    shutil.copytree(small_build, tmp_path / "store/chats" / version)
    (tmp_path / "store/chats/latest").symlink_to(version)
    for reference in ("chats", "chats@01234567"):
        config = RunConfig(data=Path(reference), model="tiny", store=tmp_path / "store")
        assert with_full_paths(config).data == tmp_path / "store/chats" / version
        assert open_training_build(config).path.name == version


def test_an_error_with_json_is_an_object_too() -> None:
    done = training_here("plan", "--data", "nowhere", "--model", "tiny", "--json", check=1)
    assert json.loads(done.stdout)["exit_code"] == 1
    assert done.stderr.startswith("training: There is no build 'nowhere' in data/builds")


@pytest.mark.parametrize(("rank", "lines"), [("0", 1), ("1", 0)])
def test_of_several_processes_that_a_signal_stops_the_first_one_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, rank: str, lines: int
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    code = command_line._report(Stopped(signal.SIGTERM, "Stopped after step 1."), "training", [])
    assert code == 128 + signal.SIGTERM
    assert capsys.readouterr().err.count("\n") == lines
