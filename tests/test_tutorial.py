"""The commands of the tutorial run in order, with a Hub on loopback and the model `tiny` in the place of Llama 2."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.support.chats import chat
from tests.support.documented import Finished, run_commands, shell_commands
from tests.support.hub import Hub
from tests.support.paths import ROOT
from tests.support.processes import converters_in_forks
from tests.support.training_runs import short_answers

TUTORIAL = ROOT / "docs" / "tutorial.md"
SAMPLE = ROOT / "data" / "sample" / "oasst_sample.trees.jsonl.gz"
IN_THE_TEST = {
    "meta-llama/Llama-2-7b-chat-hf": "tiny",
    "--preset t4": "--device cpu --max-steps 4 --stop-prompts 2",
    "evaluate --run evening": "evaluate --run evening --prompts 4 --max-new-tokens 16",
    "me/": "alice/",  # the user of the Hub on loopback
}


def as_tested(command: str) -> str:
    """The command with the model and the account of the test."""
    for written, tested in IN_THE_TEST.items():
        command = command.replace(written, tested)
    return command


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with Hub() as server:
        server.commit("OpenAssistant/oasst1", {"2023-04-12_oasst_ready.trees.jsonl.gz": SAMPLE.read_bytes()})
        yield server


@pytest.fixture(scope="module")
def finished(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Finished]:
    """Each command of the tutorial, as it is written, after it has run."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "chats").mkdir()
    rows = "".join(
        json.dumps({"messages": chat(*(f"{turn} {n}" for turn in ("Question", "Answer", "Why", "Because")))}) + "\n"
        for n in range(30)
    )
    (folder / "chats" / "0.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    commands = [line for line in shell_commands(TUTORIAL) if line.startswith(("dataprep ", "training "))]
    build, *others = commands
    (first,) = run_commands([as_tested(build)], folder, hub)
    assert first.code == 0, first.err
    some_id = pl.read_parquet(folder / "data/builds/evening/latest/fates/*.parquet")["id"].drop_nulls()[0]
    with converters_in_forks(), short_answers():
        done = run_commands([as_tested(line).replace(" ID", f" {some_id}") for line in others], folder, hub)
    return dict(zip(commands, [first, *done], strict=True))


def test_every_command_of_the_tutorial_succeeds(finished: dict[str, Finished]) -> None:
    assert len(finished) >= 15
    failed = [(command, done.code, done.err[-1000:]) for command, done in finished.items() if done.code]
    assert not failed


def test_the_tutorial_publishes_the_data_and_the_adapter(finished: dict[str, Finished], hub: Hub) -> None:
    data, adapter = (hub.repositories[f"alice/evening-{what}"] for what in ("data", "adapter"))
    assert data.private and adapter.private
    assert "adapter_model.safetensors" in adapter.commits[adapter.refs["main"]]
    assert "manifest.json" in data.commits[data.refs["main"]]


def test_no_command_of_the_tutorial_prints_the_token(finished: dict[str, Finished], hub: Hub) -> None:
    assert not [command for command, done in finished.items() if hub.token in done.out + done.err]


def test_the_tutorial_names_no_page_that_does_not_exist() -> None:
    for page in ("tutorial.md", "faq.md"):
        links = re.findall(r"\]\(([^)#:]+)\)", (ROOT / "docs" / page).read_text("utf-8"))
        assert links
        assert not [link for link in links if not (ROOT / "docs" / Path(link)).resolve().exists()]
