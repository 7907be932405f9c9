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


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build `rows` with a test split of 5 rows, in a store; tests that change it work on a copy."""
    folder = tmp_path_factory.mktemp("built")
    source = guanaco_file(folder, GUANACO_TEXTS)
    done = dataprep("build", source, "--store", folder / "store", "--json", "--split", "test=5")
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["path"])
