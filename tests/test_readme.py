"""The documentation matches the code: the table of options is generated from it, and the README's commands run."""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.documented import run_commands, shell_commands
from tests.support.options_table import OPTIONS, with_table
from tests.support.paths import ROOT


def test_the_table_of_options_is_up_to_date() -> None:
    text = OPTIONS.read_text()
    assert text == with_table(text), "run `make docs`"


README = ROOT / "README.md"
FIRST_BUILD = "dataprep build --template llama2 --sample 1000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), flags=re.DOTALL)


def shell_lines() -> list[str]:
    return shell_commands(README)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README's examples use."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "data").mkdir()
    (folder / "data/recipes").symlink_to(ROOT / "data/recipes")
    (folder / "chats").mkdir()
    chat = [{"role": r, "content": f"{r} {n}"} for n in range(2) for r in ("user", "assistant")]
    for part in range(2):
        lines = "".join(
            json.dumps({"messages": [*chat[:3], {"role": "assistant", "content": f"{part} {n}"}]}) + "\n"
            for n in range(9)
        )
        (folder / f"chats/{part}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (folder / "chat.json").write_text(json.dumps(chat))
    (folder / "my.jinja").write_text((ROOT / "templates/chatml.jinja").read_text())
    (folder / "set.jsonl").write_text(json.dumps({"text": "<s>[INST] a [/INST] b </s>"}) + "\n")
    return folder


@pytest.fixture(scope="module")
def first_build(files: Path) -> subprocess.CompletedProcess[str]:
    """The README's first build, after it has run in `files`."""
    return run(files, FIRST_BUILD)


@pytest.fixture(scope="module")
def folder(files: Path, first_build: subprocess.CompletedProcess[str]) -> Path:
    """The folder `files` with the first build."""
    assert first_build.returncode == 0, first_build.stderr
    return files


def as_printed(text: str) -> list[str]:
    """The lines of a command's output, without what differs from run to run: times and versions."""
    text = re.sub(r"in [\d.]+ s", "in N s", re.sub(r"(?<=sample[@/])[0-9a-f]+", "VERSION", text))
    return [line.rstrip() for line in text.splitlines() if line.strip()]


def console_examples() -> list[tuple[str, list[str]]]:
    """Each command of the README's ```console blocks, with the lines that are shown of its output."""
    examples = "".join(blocks("console")).split("$ ")[1:]
    commands = [example.partition("\n")[::2] for example in examples]
    return [(command, as_printed(output.replace("…\n", ""))) for command, output in commands]


@pytest.mark.parametrize(("command", "shown"), console_examples())
def test_the_outputs_that_the_readme_shows_are_real(
    command: str, shown: list[str], folder: Path, first_build: subprocess.CompletedProcess[str]
) -> None:
    done = first_build if command == FIRST_BUILD else run(folder, command)
    assert done.returncode == 0, done.stderr
    printed = iter(as_printed(done.stderr + done.stdout))
    assert shown
    assert not [line for line in shown if line not in printed]  # all lines, in the order of the README


def run(folder: Path, line: str) -> subprocess.CompletedProcess[str]:
    line = re.sub(r"^dataprep", f"{sys.executable} -m dataprep", line)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, timeout=300, env=environment)


def uses_the_hub(line: str) -> bool:
    """Whether a command uses the Hub: it names org/name after build, --source or --to, or a guanaco recipe."""
    return re.search(r"(--source|--to|build) [A-Za-z0-9][\w.-]*/[\w-]+(\s|$)|guanaco", line) is not None


def test_the_readmes_commands_run(folder: Path) -> None:
    import polars as pl

    first_id = pl.read_parquet(folder / "data/builds/sample/latest/fates/*.parquet")["id"][0]
    # `make` runs this test, and the Hub has its own
    lines = [line for line in shell_lines() if line.startswith("dataprep ") and not uses_the_hub(line)]
    lines = [line.replace(" ID", f" {first_id}") for line in lines]
    assert len(lines) >= 7
    failed = [(done.command, done.err) for done in run_commands(lines, folder) if done.code]
    assert not failed


def test_the_readmes_python_runs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snippets = "\n".join(blocks("python")).replace(
        'model="tiny"', 'model="tiny", max_steps=2, stop_prompts=0, held_out=4'
    )
    with contextlib.chdir(folder):
        exec(f"{snippets}\nprint(train.num_rows, train.column_names)", {})
    assert capsys.readouterr().out.splitlines()[-1].startswith("1000 ['id', 'tree_id'")


@pytest.mark.parametrize("program", ["dataprep", "training"])
def test_every_command_of_the_readme_is_accepted_by_its_program(
    program: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes commands that need a Hub, a GPU or a trained run, whose effects have their own tests."""
    app = importlib.import_module({"dataprep": "dataprep.cli.main", "training": "training.cli"}[program]).app
    monkeypatch.chdir(folder)
    lines = [line.replace("torchrun --nproc-per-node 2 -m training", "training") for line in shell_lines()]
    parsed = [
        app.parse_args(shlex.split(line)[1:], print_error=False, exit_on_error=False)
        for line in lines
        if line.startswith(f"{program} ")
    ]
    assert len(parsed) >= 7
