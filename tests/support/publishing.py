"""The publish command against a Hub on loopback, and data sets read back with `datasets`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl

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


def run(hub: Hub, folder: Path, *arguments: str | Path, code: int = 0, **environment: str) -> tuple[str, str]:
    """Return stdout and stderr of a command that must exit with `code`; the token may be in neither."""
    process = start(hub, folder, *arguments, **environment)
    out, err = process.communicate(timeout=300)
    assert process.returncode == code, err
    assert hub.token not in out + err
    assert "hf_" not in out + err.replace("hf_hub", "")
    assert "Traceback" not in err
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
