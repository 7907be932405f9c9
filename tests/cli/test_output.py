"""What a person reads: the funnel, the list of builds and the differences of two, as golden files."""

from __future__ import annotations

import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dataprep.common.text import agree, duration, next_steps, time_ago
from tests.support.commands import dataprep
from tests.support.versions import write_version

GOLDEN = Path(__file__).parents[1] / "golden" / "output"


def test_the_funnel_counts_records_and_then_conversations(built: Path) -> None:
    assert dataprep("why", built).stdout == (GOLDEN / "funnel.txt").read_text()


def test_the_list_shows_what_must_be_typed_whole(built: Path) -> None:
    listed = dataprep("list", "--store", built.parent.parent).stdout.replace(built.name[:8], "01234567")
    stable = re.sub(r"[\d.]+ kB|\d+ \w+ ago|just now", "…", listed)
    assert re.sub(r" +", " ", stable) == (GOLDEN / "list.txt").read_text()


def test_versions_with_the_same_beginning_are_listed_longer(tmp_path: Path) -> None:
    for version in ("0123456789ab", "01234567cdef", "abcdef012345"):
        write_version(tmp_path, version=version)
    listed = dataprep("list", "--store", tmp_path).stdout
    assert {"n@012345678", "n@01234567c", "n@abcdef012"} <= set(listed.split())


@pytest.mark.parametrize("width", [60, 80])
def test_a_long_name_is_never_cut(tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataprep.common.terminal._PIPE_WIDTH", width)
    name = "a-name-of-" + "many-" * 8 + "words"
    write_version(tmp_path, name=name, version="0123456789ab")
    assert f"{name}@01234567\n" in dataprep("list", "--store", tmp_path).stdout


def test_an_export_says_how_to_open_it(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = dataprep("export", built, "--to", tmp_path / "an export")
    (command,) = done.stderr.partition("Next:\n")[2].splitlines()
    program, option, code = shlex.split(command.partition("look into it")[2])
    assert (program, option) == ("python", "-c")
    exec(code)  # noqa: S102 - the command that the program prints
    assert "num_rows: 28" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("trainer", "file"), [("axolotl", "axolotl.yml"), ("llamafactory", "llamafactory.yaml"), ("trl", "train_trl.py")]
)
def test_an_export_for_a_trainer_names_the_file_that_it_starts_from(
    built: Path, tmp_path: Path, trainer: str, file: str
) -> None:
    done = dataprep("export", built, "--to", tmp_path / "to", "--for", trainer)
    assert f"cd {tmp_path / 'to'} && " in done.stderr and file in done.stderr
    assert (tmp_path / "to" / file).is_file()


@pytest.mark.parametrize(
    ("ago", "text"),
    [
        (timedelta(seconds=20), "just now"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(hours=47), "1 day ago"),
        (timedelta(days=40), "1 month ago"),
        (timedelta(days=800), "2 years ago"),
    ],
)
def test_times_are_relative(ago: timedelta, text: str) -> None:
    now = datetime(2026, 11, 26, tzinfo=UTC)
    assert time_ago(now - ago, now) == text


def test_durations_have_the_unit_that_people_use() -> None:
    assert [duration(seconds) for seconds in (0.4, 99, 600, 12_000)] == ["0 s", "99 s", "10 min", "3 h 20 min"]


def test_a_verb_agrees_with_its_count() -> None:
    assert [agree(count, "has", "have") for count in (0, 1, 2)] == ["have", "has", "have"]


def test_next_steps_are_one_command_a_line() -> None:
    steps = [("look", "dataprep show n"), ("try it", "training run --data n --model tiny")]
    assert next_steps(steps) == "Next:\n  look    dataprep show n\n  try it  training run --data n --model tiny"
