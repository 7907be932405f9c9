"""Commands on damaged builds, long names and full disks: one sentence and an exit code, never a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from dataprep.cli import main
from dataprep.contract import MANIFEST
from tests.hostile.builds import reseal
from tests.support.builds import GUANACO_TEXTS, guanaco_file, make_build
from tests.support.disk import limited_file_size

LONG = "x" * 300


class Result(NamedTuple):
    code: int
    out: str
    err: str


def run(*arguments: str | Path) -> Result:
    """Run a command in this process; an exception that no command handles is an error of the test."""
    out, err, argv, code = io.StringIO(), io.StringIO(), sys.argv, 0
    sys.argv = ["dataprep", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main.main()
    except SystemExit as exit:
        code = int(exit.code or 0)
    finally:
        sys.argv = argv
    return Result(code, out.getvalue(), err.getvalue())


def refuses(code: int, *arguments: str | Path) -> str:
    """The sentence of a command that must be refused with `code`."""
    result = run(*arguments)
    assert result.code == code, result
    assert "this is a bug" not in result.err
    assert result.err.startswith("dataprep: ")
    assert result.err.count("\n") == 1
    assert len(result.err) < 1500
    return result.err


@pytest.fixture(scope="module")
def folder_with_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows.jsonl and a build of it in store/n."""
    folder = tmp_path_factory.mktemp("original")
    options = {"gate": "off", "near_dup": "off", "name": "n"}
    make_build(folder / "store", source=(guanaco_file(folder, GUANACO_TEXTS),), **options)
    return folder


@pytest.fixture
def built(tmp_path: Path, folder_with_build: Path) -> Path:
    """A copy of the build for one test to damage, in tmp_path/store/n."""
    shutil.copytree(folder_with_build, tmp_path, dirs_exist_ok=True, symlinks=True)
    return (tmp_path / "store" / "n" / "latest").resolve()


@pytest.mark.parametrize(
    "command",
    [
        f"show {LONG}",
        f"show n@{LONG}",
        f"verify {LONG}/{LONG}",
        f"why n {LONG}",
        f"show n --split {LONG}",
        f"diff n {LONG}",
        f"export n --to {{tmp}}/{LONG}",
        f"publish n --to {{tmp}}/{LONG}",
        f"publish n --to {{tmp}}/{LONG} --dry-run",
        f"report n --out {{tmp}}/{LONG}",
        f"list --store {{tmp}}/{LONG}",
        f"gc --store {{tmp}}/{LONG}",
        f"build --source {{tmp}}/rows.jsonl --name {LONG} --store {{tmp}}/store",
        f"publish n --to org/{LONG}",
    ],
    ids=lambda command: command.split(" --store")[0].replace(LONG, "LONG"),
)
def test_names_over_255_bytes_are_refused(built: Path, tmp_path: Path, command: str) -> None:
    arguments = command.format(tmp=tmp_path).split()
    if "--store" not in arguments:
        arguments += ["--store", str(tmp_path / "store")]
    refuses(1, *arguments)


@pytest.mark.parametrize(
    "content", ["", "null", "[]", "3", "{}", '{"expectations": 3}', "[" * 10**5, '{"a": "\ud800"}', "NaN"]
)
def test_a_report_of_a_build_with_a_damaged_verdict_is_written_or_refused(
    built: Path, tmp_path: Path, content: str
) -> None:
    (built / "quality.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    reseal(built)
    result = run("report", built, "--out", tmp_path / "page.html")
    assert (result.code, "this is a bug" in result.err, (tmp_path / "page.html").exists()) in (
        (0, False, True),
        (4, False, False),
    )


@pytest.mark.parametrize("part", ["rows", "fates", "funnel", "languages", "notes", "created", "sources"])
@pytest.mark.parametrize("command", ["report", "publish", "diff", "show", "duplicates", "why"])
def test_a_manifest_without_a_part_is_read_or_called_damaged(
    built: Path, tmp_path: Path, part: str, command: str
) -> None:
    manifest = json.loads((built / MANIFEST).read_bytes())
    del manifest[part]
    (built / MANIFEST).write_text(json.dumps(manifest))
    arguments = {
        "report": ["--out", str(tmp_path / "page.html")],
        "publish": ["--to", str(tmp_path / "out")],
        "diff": [str(built)],
        "why": ["rows.jsonl:1"],
    }
    result = run(command, built, *arguments.get(command, []))
    assert result.code in (0, 4)
    assert "this is a bug" not in result.err


def test_a_report_on_a_full_disk_leaves_the_old_page(built: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("old")
    run("verify", built)  # so that nothing but the page is written
    with limited_file_size(4096):
        sentence = refuses(1, "report", built, "--out", page)
    assert "could not be written" in sentence
    assert page.read_text() == "old"
    assert not list(tmp_path.glob(".page*"))


def test_a_dry_run_whose_temporary_files_find_no_space_is_one_sentence(built: Path, tmp_path: Path) -> None:
    options = ("--dry-run", "--gate", "off", "--partition-bytes", "1kB", "--store", tmp_path / "new")
    with limited_file_size(1024):
        sentence = refuses(1, "build", "--source", tmp_path / "rows.jsonl", *options)
    assert "The temporary files of the dry run could not be written" in sentence


def test_a_name_with_a_newline_adds_no_line_to_the_output(tmp_path: Path) -> None:
    refuses(1, "show", "n\ndataprep: all is well", "--store", tmp_path)


def test_untrusted_text_in_json_output_is_escaped(tmp_path: Path) -> None:
    name = "\x9b2J\u202e\x7f\u061c"
    result = run("show", name, "--store", tmp_path, "--json")
    assert not set(result.out + result.err) & set(name.replace("2J", ""))
    assert json.loads(result.out)["error"].startswith(f"There is no build '{name}'")
