"""Guanaco texts as a source, and a build of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.builds import GUANACO_TEXTS, guanaco_file
from tests.support.commands import dataprep


@pytest.fixture
def source(tmp_path: Path) -> str:
    return guanaco_file(tmp_path, GUANACO_TEXTS)


@pytest.fixture
def built(tmp_path: Path, source: str) -> Path:
    """A build with a test split of 5 rows, in tmp_path/store."""
    done = dataprep("build", "--source", source, "--store", tmp_path / "store", "--json", "--split", "test=5")
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["path"])
