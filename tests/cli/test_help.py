"""Help in groups, at 80 columns, and completion for shells, of both programs.

After a change of an option: `COLUMNS=80 dataprep build --help > tests/golden/help/dataprep-build.txt`.
"""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from dataprep.cli import main as _  # noqa: F401 - adds the commands to the app
from dataprep.cli.common import app as dataprep_app
from dataprep.cli.option_groups import BUILD_GROUPS, BUILD_USUAL
from dataprep.common.command_line import SHELLS
from dataprep.options import flag
from dataprep.recipe import Recipe
from tests.support.commands import dataprep, dataprep_error, training_here
from training.cli import app as training_app
from training.config import RunConfig
from training.option_groups import INSPECT_USUAL, PLAN_USUAL, RUN_GROUPS, RUN_USUAL

GOLDEN = Path(__file__).parents[1] / "golden" / "help"
DATAPREP = [name for name in dataprep_app if not name.startswith("-")]
TRAINING = [name for name in training_app if not name.startswith("-")]


@pytest.fixture(autouse=True)
def narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.mark.parametrize(
    "command", [[], ["build"], ["why"], ["templates"]], ids=lambda command: "-".join(command) or "root"
)
def test_help_reads_as_the_golden_file(command: list[str]) -> None:
    golden = GOLDEN / f"dataprep-{'-'.join(command) or 'root'}.txt"
    assert dataprep(*command, "--help").stdout == golden.read_text()


@pytest.mark.parametrize("command", DATAPREP)
def test_help_of_dataprep_fits_80_columns(command: str) -> None:
    text = dataprep(command, "--help-all").stdout
    assert text.startswith(f"Usage: dataprep {command}")
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("command", TRAINING)
def test_help_of_training_fits_80_columns(command: str) -> None:
    text = training_here(command, "--help-all").stdout
    assert text.startswith(f"Usage: training {command}")
    assert max(map(len, text.splitlines())) <= 80


def test_the_note_on_commands_is_on_the_page_of_the_program_only() -> None:
    assert "--completion" in dataprep("--help").stdout
    assert "--completion" not in dataprep("show", "--help").stdout


def test_what_stands_by_position_follows_the_command_in_the_usage() -> None:
    assert dataprep("export", "--help").stdout.startswith("Usage: dataprep export BUILD --to PATH [OPTIONS]\n")


def test_a_flag_that_is_on_is_shown_as_it_is_switched_off() -> None:
    assert "On by default; --no-check switches it off." in " ".join(training_here("merge", "--help").stdout.split())


def options_in(text: str) -> set[str]:
    """The options that a help page lists."""
    return set(re.findall(r"^  (--[\w-]+)", text, re.MULTILINE))


def test_build_shows_the_usual_options_and_all_on_request() -> None:
    assert options_in(dataprep("build", "--help").stdout) == {name for name in BUILD_USUAL if name != "FILE"}
    everything = dataprep("build", "--help-all").stdout
    assert options_in(everything) >= {flag(field.name) for field in dataclasses.fields(Recipe)}
    assert "Other:" not in everything  # an option that is in no group


@pytest.mark.parametrize(("command", "usual"), [("run", RUN_USUAL), ("plan", PLAN_USUAL), ("inspect", INSPECT_USUAL)])
def test_training_shows_the_options_that_matter_to_a_command(command: str, usual: tuple[str, ...]) -> None:
    assert options_in(training_here(command, "--help").stdout) == set(usual)
    page = training_here(command, "--help-all").stdout
    assert "Other:" not in page  # an option that is in no group
    everything = options_in(page)
    assert everything >= {"--" + field.name.replace("_", "-") for field in dataclasses.fields(RunConfig)}


@pytest.mark.parametrize("groups", [BUILD_GROUPS, RUN_GROUPS], ids=["build", "run"])
def test_an_option_is_in_one_group(groups: dict[str, tuple[str, ...]]) -> None:
    names = [name for group in groups.values() for name in group]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_scripts_are_valid_and_name_the_commands(shell: str, tmp_path: Path) -> None:
    for program, script in (
        ("dataprep", dataprep("--completion", shell).stdout),
        ("training", training_here("--completion", shell).stdout),
    ):
        assert "merge" in script if program == "training" else "duplicates" in script
        if interpreter := shutil.which(shell):
            (tmp_path / "script").write_text(script)
            subprocess.run([interpreter, "-n", tmp_path / "script"], check=True)


def test_builds_are_completed_by_name_and_short_version(built: Path) -> None:
    done = dataprep("__complete", "show", "--store", built.parent.parent, "ro")
    assert [line.strip() for line in done.stdout.splitlines()[2:]] == ["rows", f"rows@{built.name[:8]}"]


def test_a_shell_without_completion_is_refused() -> None:
    assert "Available: bash, fish, zsh" in dataprep_error(2, "--completion", "tcsh")


def test_both_programs_print_their_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", dataprep("--version").stdout)
    assert dataprep("--version").stdout == training_here("--version").stdout
