"""The program as a whole: help, usage errors, errors as JSON, and a boundary for unexpected exceptions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataprep.cli import inspecting, main
from tests.support.commands import dataprep, dataprep_error
from tests.support.versions import write_version


@pytest.mark.parametrize(
    "command", [[], ["build"], ["show"], ["why"], ["verify"], ["templates"], ["templates", "check"]], ids=" ".join
)
def test_every_command_has_help(command: list[str]) -> None:
    done = dataprep(*command, "--help")
    assert done.returncode == 0
    assert "Usage: dataprep" in done.stdout


def test_importing_the_command_line_imports_no_heavy_library() -> None:
    heavy = ("polars", "pyarrow", "datasets", "torch", "jinja2")
    code = f"import sys, dataprep.cli.main; print([name for name in {heavy} if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [("build", "--sample", "many"), ("build", "--paths", "best"), ("build", "--nonsense"), ("bild",), ("show",)],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...]) -> None:
    assert dataprep_error(2, *arguments)


def test_an_error_with_json_is_an_object_too() -> None:
    done = dataprep("build", "--source", "none.jsonl", "--json")
    assert json.loads(done.stdout)["exit_code"] == done.returncode == 1


def raise_unexpectedly(*_: object) -> None:
    raise ZeroDivisionError("of a \x1b[2J kind " + "x" * 10_000)


def test_an_unexpected_exception_is_one_sentence_that_says_how_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(inspecting, "open_named", raise_unexpectedly)
    monkeypatch.setattr(sys, "argv", ["dataprep", "show", "n", "--json"])
    with pytest.raises(SystemExit) as exit:
        main.main()
    out, err = capsys.readouterr()
    assert exit.value.code == 1
    assert err.startswith("dataprep: Unexpected ZeroDivisionError (of a <U+001B>[2J kind xxx")
    assert "in `dataprep show n --json`: this is a bug. Run it again with DATAPREP_DEBUG=1" in err
    assert len(err) < 1000
    assert err.count("\n") == 1
    assert json.loads(out)["exit_code"] == 1


def test_the_debug_variable_shows_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspecting, "open_named", raise_unexpectedly)
    monkeypatch.setattr(sys, "argv", ["dataprep", "show", "n"])
    monkeypatch.setenv("DATAPREP_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main.main()


# Runs commands as another user. Each runs as root first: the interpreter's own files may be readable by root only.
AS_ANOTHER_USER = """
import os, sys
from dataprep.cli.main import main
store, *commands = sys.argv[1:]
for user, mode in ((0, 0o755), (65534, 0o700)):
    os.chmod(store, mode)
    os.seteuid(user)
    for command in commands:
        sys.argv = ["dataprep", *command.split(), "--store", store]
        try:
            main()
        except SystemExit as exit:
            print(command, exit.code, file=sys.stderr)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run a command as another user")
def test_an_unreadable_store_is_one_sentence(tmp_path: Path) -> None:
    write_version(tmp_path / "store")
    commands = ("list", "show n", "verify n", "gc", "diff n n", "duplicates n", "export n --to /x")
    script = [sys.executable, "-c", AS_ANOTHER_USER, str(tmp_path / "store"), *commands]
    done = subprocess.run(script, capture_output=True, text=True, timeout=300)
    lines = done.stderr.splitlines()
    assert [line for line in lines if line.endswith(" 1")][-len(commands) :] == [f"{command} 1" for command in commands]
    denied = [line for line in lines if "Permission denied" in line]
    assert len(denied) == len(commands)
    assert all(line.startswith("dataprep: ") for line in denied)
    assert "Traceback" not in done.stderr
