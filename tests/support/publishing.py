"""The publish command against a Hub on loopback, and data sets read back with `datasets`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataprep.contract import open_build
from tests.support.hub import Hub
from tests.support.paths import ROOT

NAME = "org/guanaco-llama2"

_LOAD = """
import json, sys
from datasets import load_dataset
data = load_dataset(sys.argv[1], revision=sys.argv[2])
print(json.dumps({split: rows.to_dict() for split, rows in data.items()}))
"""


def start(hub: Hub, folder: Path, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
    """Start `dataprep` with `arguments` in `folder`, with `hub` as its Hub, and return at once."""
    env = {**os.environ, **hub.environment(folder), "PYTHONPATH": str(ROOT), **environment}
    command = [sys.executable, "-m", "dataprep", *map(str, arguments)]
    return subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def client_of(hub: Hub, folder: Path, **environment: str) -> Iterator[None]:
    """Make the client of this process use `hub`, with its caches in `folder`, and retry without waiting.

    The client reads most of `Hub.environment` when it is imported, so the constants that it made of them are replaced.
    """
    from huggingface_hub import constants

    values = {**hub.environment(folder), **environment}
    endpoint = values["HF_ENDPOINT"]
    replaced = {
        "ENDPOINT": endpoint,
        "HUGGINGFACE_CO_URL_TEMPLATE": endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HUB_CACHE": str(folder / "hub"),
        "HF_HUB_OFFLINE": values["HF_HUB_OFFLINE"] == "1",
        "HF_HUB_DISABLE_XET": True,
        "HF_TOKEN_PATH": values.get("HF_TOKEN_PATH", str(folder / "token")),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in values.items():
            patch.setenv(name, value)
        for name, constant in replaced.items():
            patch.setattr(constants, name, constant)
        patch.setattr("dataprep.common.hub.WAITS", (0.01,) * 4)
        yield


def called(
    main: Callable[[], None], program: str, hub: Hub, folder: Path, *arguments: str | Path, **environment: str
) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a program that runs in this process, in `folder` and with `hub` as its Hub."""
    out, err, code = StringIO(), StringIO(), 0
    with client_of(hub, folder, **environment), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", [program, *map(str, arguments)])
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main()
            except SystemExit as ended:
                code = int(ended.code or 0)
    return code, out.getvalue(), err.getvalue()


def run(hub: Hub, folder: Path, *arguments: str | Path, code: int = 0, **environment: str) -> tuple[str, str]:
    """Return stdout and stderr of a `dataprep` command that must exit with `code`; the token may be in neither."""
    from dataprep.cli.main import main

    ended, out, err = called(main, "dataprep", hub, folder, *arguments, **environment)
    assert ended == code, err
    assert hub.token not in out + err
    assert "hf_" not in out + err.replace("hf_hub", "")
    return out, err


def publish(hub: Hub, folder: Path, build: Path, *options: str, code: int = 0, **environment: str) -> tuple[str, str]:
    """Publish `build` to `NAME`; return stdout and stderr."""
    return run(hub, folder, "publish", build, "--to", NAME, *options, code=code, **environment)


def publish_error(hub: Hub, folder: Path, build: Path, *options: str, **environment: str) -> str:
    """The one sentence on stderr of a publication that must be refused."""
    sentence = publish(hub, folder, build, *options, code=1, **environment)[1].strip()
    assert sentence.startswith("dataprep: ")
    assert "\n" not in sentence
    return sentence


def rows_on_hub(hub: Hub, revision: str, name: str = NAME) -> dict[str, pl.DataFrame]:
    """The rows of each split in the Parquet files of a revision."""
    repository = hub.repositories[name]
    tree = repository.commits[str(repository.resolved(revision))]
    files = {file: data for file, data in tree.items() if file.endswith(".parquet") and file.startswith("data/")}
    return {file.removeprefix("data/").split("-")[0]: pl.read_parquet(data) for file, data in sorted(files.items())}


def load_from_hub(hub: Hub, folder: Path, revision: str, name: str = NAME) -> dict[str, dict[str, list[Any]]]:
    """The columns of each split, as `datasets.load_dataset` gives them."""
    env = {**os.environ, **hub.environment(folder)}
    command = [sys.executable, "-c", _LOAD, name, revision]
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def column_of(build: Path, split: str, column: str) -> list[Any]:
    """A column of a build's split, sorted by id as exports are."""
    return pl.DataFrame(open_build(build).splits[split]).sort("id")[column].to_list()
