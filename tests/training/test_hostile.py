"""Hostile and damaged input of `training` ends in one sentence and an exit code, not in a traceback."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.support.training_builds import chatter, write_build
from training import cli
from training.errors import ModelError
from training.model.files import read_json_object
from training.model.tiny import train_tokenizer

TOML_FILES = [
    b"lr = { a = 1 }",
    b'lora_r = "x"',
    b"[max_tokens.a]\nb = 1",
    b"a = " + b"[" * 5000,
    b"lr = " + b"{a=" * 5000,
    b"seed = " + b"9" * 5000,
    b"lora_r = 1000000000",
    b"data = [1, 2]",
    b"epochs = true",
    b"allow_failed_gate = 1",
    b"lr = 2026-01-01",
    b"\xff\xfe",
    b'model = "\\ud800"',
    b"preset = [1]",
    b'preset = "\x1b[31m"',
    b"max_tokens = 1e400",
    b"lr = nan",
    b'config = "a.toml"',
]


def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object
) -> tuple[int, str]:
    """Run `training` in this process; returns the exit code and what it printed to stderr."""
    monkeypatch.setattr("sys.argv", ["training", *map(str, arguments)])
    monkeypatch.delenv("DATAPREP_DEBUG", raising=False)
    try:
        cli.main()
        code: Any = 0
    except SystemExit as leaving:
        code = leaving.code
    return code, capsys.readouterr().err


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_build(tmp_path_factory.mktemp("hostile") / "build", chatter(20))


@pytest.mark.parametrize("content", TOML_FILES)
def test_a_bad_toml_file_is_one_sentence(
    build: Path, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.toml"
    path.write_bytes(content)
    options = ["--data", build, "--model", "tiny", "--device", "cpu", "--out", tmp_path / "run"]
    code, printed = run_command(monkeypatch, capsys, "run", *options, "--config", path)
    assert code in (1, 2), printed
    assert printed.startswith("training: ") and "Unexpected" not in printed and "\x1b" not in printed
    assert printed.count("\n") <= 2 and len(printed) < 2000
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("argument", ["\x1b]0;title\x07", "\u202e", "\x9b31m"])
def test_control_characters_of_arguments_are_printed_as_text(
    argument: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["run", "--data=" + argument, "--model=" + argument], ["run", argument], [argument]):
        code, printed = run_command(monkeypatch, capsys, *arguments)
        assert code in (1, 2) and argument not in printed
    assert "<U+" in printed


def test_an_unexpected_error_is_one_sentence_and_a_traceback_on_request(
    build: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("\x1b a bug")

    monkeypatch.setattr(import_module("training.run"), "check", fail)
    arguments = ["run", "--data", build, "--model", "tiny"]
    code, printed = run_command(monkeypatch, capsys, *arguments)
    assert code == 1 and "Unexpected LookupError (<U+001B> a bug)" in printed and "DATAPREP_DEBUG=1" in printed
    monkeypatch.setattr("sys.argv", ["training", *map(str, arguments)])
    monkeypatch.setenv("DATAPREP_DEBUG", "1")
    with pytest.raises(LookupError):
        cli.main()


@pytest.mark.parametrize(
    "file", ["adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "checksums.json"]
)
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped"])
def test_a_damaged_adapter_is_refused_before_it_is_used(
    finished_run: Path, tmp_path: Path, file: str, damage: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    shutil.copytree(finished_run, run, ignore=shutil.ignore_patterns("checkpoints", "base"))
    (run / "base").symlink_to(finished_run / "base")
    path = run / "adapter" / file
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        half = len(content) // 2
        flipped = content[:half] + bytes([content[half] ^ 1]) + content[half + 1 :]
        path.write_bytes({"empty": b"", "cut": content[:half], "flipped": flipped}[damage])
    for command in (["generate", "--prompt", "Hi"], ["merge", "--to", tmp_path / "merged"], ["evaluate"]):
        code, printed = run_command(monkeypatch, capsys, command[0], "--run", run, *command[1:])
        assert code == 1 and printed.startswith("training: ") and "Unexpected" not in printed, printed
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"a": ' * 5000, b"[1, 2]", b"null", b"9" * 5000, b'"\xff"'])
def test_a_file_of_a_model_that_holds_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match="is not a readable JSON object") as error:
        read_json_object(tmp_path / "config.json")
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    "changes",
    [{"hidden_size": -64}, {"hidden_size": "wide"}, {"num_attention_heads": 0}, {"vocab_size": [1]},
     {"num_hidden_layers": 10_000_000}, {"intermediate_size": "9" * 5000}, {"model_type": "\ud800"}],
)  # fmt: skip
def test_bad_sizes_in_config_json_are_one_sentence(
    build: Path, tmp_path: Path, changes: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    sizes = {"model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "vocab_size": 2048}  # fmt: skip
    train_tokenizer(["text"], ["<s>", "</s>"]).backend.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "config.json").write_text(json.dumps(sizes | changes))
    options = ["--data", build, "--model", tmp_path, "--device", "cpu"]
    code, printed = run_command(monkeypatch, capsys, "plan", *options)
    assert code == 1 and printed.startswith("training: ") and "Unexpected" not in printed, printed
    assert len(printed) < 2000
