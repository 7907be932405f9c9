"""Default names of builds."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataprep.common.bundled import default_name
from tests.support.versions import write_version


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("../rows.jsonl", "rows"),
        ("org/name@main:train", "name"),
        ("../chats/*.jsonl", "chats"),
        ("../chats/**/*.jsonl", "chats"),
        ("*.jsonl", "chats"),
        (".", "chats"),
        ("../a[1].jsonl", "a-1"),
        ("../store/n/v1", "n"),
        ("../store/n/latest", "n"),
        ("../x/ä.jsonl", "build-e1beef6f"),
    ],
)
def test_the_default_name_is_that_of_the_first_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str
) -> None:
    (tmp_path / "chats/deep").mkdir(parents=True)
    (tmp_path / "a[1].jsonl").write_text("")
    write_version(tmp_path / "store")
    monkeypatch.chdir(tmp_path / "chats")
    assert default_name((source,)) == name


def test_the_default_name_without_a_source_is_that_of_the_sample() -> None:
    assert default_name(()) == "sample"
