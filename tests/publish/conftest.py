"""A Hub on loopback, and a small build."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builds import GUANACO_TEXTS, guanaco_file, make_build
from tests.support.hub import Hub


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server
    assert not server.leaks, "the token was sent to the storage"


@pytest.fixture(scope="session")
def published_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of guanaco texts with a test split of 5 rows; do not change it."""
    folder = tmp_path_factory.mktemp("published_build")
    source = guanaco_file(folder, GUANACO_TEXTS)
    path = make_build(folder / "store", source=(source,), split="test=5", gate="off", near_dup="off").path
    assert path is not None
    return path
