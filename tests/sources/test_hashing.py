"""SHA-256 of source files, of their beginnings, and ahead of time."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.common.errors import InputError
from dataprep.sources.hashing import FileHash, hash_ahead, hash_of

CONTENT = bytes(range(250)) * 3


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hashing") / "rows.jsonl"
    path.write_bytes(CONTENT)
    return path


@given(step=st.integers(1, 800), position=st.integers(0, len(CONTENT)))
def test_the_digest_of_the_bytes_before_any_place_is_known(file: Path, step: int, position: int) -> None:
    computed = FileHash(file, step)
    assert computed.compute() == hashlib.sha256(CONTENT).hexdigest()
    assert computed.before(position) == hashlib.sha256(CONTENT[:position]).hexdigest()


def test_a_file_is_hashed_ahead_unless_it_changes(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"first")
    hash_ahead([str(path), str(tmp_path / "missing.jsonl"), "org/name"], 100)
    assert hash_of(path, 100).compute() == hashlib.sha256(b"first").hexdigest()
    hash_ahead([str(path)], 100)
    path.write_bytes(b"changed")
    assert hash_of(path, 100).compute() == hashlib.sha256(b"changed").hexdigest()


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing.jsonl cannot be read: No such file"):
        hash_of(tmp_path / "missing.jsonl", 100)
