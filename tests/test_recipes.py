"""The two guanaco recipes, built from a Hub on loopback that has files named as the public data set's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dataprep.contract import open_build
from tests.support.builds import guanaco_text
from tests.support.hub import Hub
from tests.support.paths import ROOT

ROWS = 1200
NAMES = ("openassistant_best_replies_train.jsonl", "openassistant_best_replies_eval.jsonl")


def rows() -> list[str]:
    """Guanaco rows like the public ones: with Markdown headings, final questions and Llama's tokens in some."""
    texts = []
    for n in range(ROWS):
        turns = [f"question {n} about C#", f"answer {n}\n\n### Step 1\nDo it."]
        if n % 4 == 0:
            turns.append(f"and then, {n}?")
        if n % 100 == 7:
            turns[1] += " <s>old</s>"
        texts.append(guanaco_text(*turns))
    return texts


def build(recipe: str, folder: Path, hub: Hub) -> dict[str, Any]:
    environment = {**os.environ, **hub.environment(folder), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dataprep", "build", "--recipe", str(ROOT / "data/recipes" / recipe), "--json"]
    process = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    summary: dict[str, Any] = json.loads(process.stdout)
    return summary


@pytest.fixture
def hub() -> Any:
    with Hub() as server:
        files = {NAMES[0]: rows(), NAMES[1]: rows()[:3]}
        packed = {
            name: "".join(json.dumps({"text": t}) + "\n" for t in texts).encode() for name, texts in files.items()
        }
        server.commit("timdettmers/openassistant-guanaco", packed)
        yield server


def expected(n: int) -> str:
    answer = f"answer {n}\n\n### Step 1\nDo it." + (" < s>old< /s>" if n % 100 == 7 else "")
    return f"<s>[INST] question {n} about C# [/INST] {answer} </s>"


def test_the_thousand_rows_of_the_public_sample_are_built_in_its_order_with_headings_intact(
    tmp_path: Path, hub: Hub
) -> None:
    summary = build("guanaco-llama2-1k.toml", tmp_path, hub)
    texts = open_build(tmp_path / summary["path"]).splits["train"]["text"].to_pylist()
    assert texts == [expected(n) for n in np.random.default_rng(42).permutation(ROWS)[:1000]]
    assert summary["name"] == "openassistant-guanaco"


def test_all_rows_are_built_in_the_order_of_the_file(tmp_path: Path, hub: Hub) -> None:
    summary = build("guanaco-llama2.toml", tmp_path, hub)
    texts = open_build(tmp_path / summary["path"]).splits["train"]["text"].to_pylist()
    assert texts == [expected(n) for n in range(ROWS)]
    manifest = json.loads((tmp_path / summary["path"] / "manifest.json").read_text())
    assert manifest["sources"][0]["commit"] in manifest["recipe"]["source"][0]
