"""The card of a build of hostile data: valid metadata, and text that stays text."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from dataprep.report.card import card

HOSTILE = 'x"\n---\nlicense: evil\n---\n<script>alert(1)</script> ![t](https://e.org/t.png) ``` | \x1b[2J\x9b\u202e'


@pytest.fixture
def manifest() -> dict[str, Any]:
    return {
        "name": "n",
        "version": "0" * 12,
        "dataprep": "0.1.0",
        "rows": 1,
        "splits": {"train": {"rows": 1, "shards": []}},
        "template": {"name": HOSTILE},
        "recipe": {"source": [HOSTILE], "template": HOSTILE, "license": HOSTILE},
        "sources": [{"name": HOSTILE, "digest": ""}],
        "notes": [HOSTILE],
        "languages": {HOSTILE: 1, "en": 1, "pt-BR": 1, "unknown": 1},
        "funnel": [],
        "repairs": {},
        "near_dup": None,
        "gate": "off",
    }


def test_the_metadata_has_its_own_keys_and_real_languages_only(manifest: dict[str, Any]) -> None:
    begin, head, _ = card(manifest).split("---\n", 2)
    assert begin == ""
    metadata = yaml.safe_load(head)
    assert set(metadata) == {
        "pretty_name", "license", "language", "size_categories", "task_categories", "tags", "configs", "dataset_info",
    }  # fmt: skip
    assert metadata["language"] == ["en", "pt"]
    assert metadata["license"] == HOSTILE


def test_the_text_has_no_markup_of_the_data(manifest: dict[str, Any]) -> None:
    text = card(manifest)
    assert not set(text) & set("\x1b\x9b\u202e")
    without_code = re.sub(r"(`+)(?!`).+?(?<!`)\1(?!`)", "", text.split("---\n", 2)[2], flags=re.DOTALL)
    assert not re.search(
        r"(?<!\\)[<\[|]",
        without_code.replace("| stage | in | dropped | not sampled | out | dropped by rule |", "").replace(
            "|---|---:|---:|---:|---:|---|", ""
        ),
    )
