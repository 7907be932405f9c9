"""From a build that `dataprep build` wrote to an answer: the two programs meet at the contract only."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dataprep.store.history import trained_on
from tests.support.commands import logged_losses, training
from tests.support.paths import ROOT
from tests.support.training_builds import REAL


def built(store: Path, *options: str) -> Path:
    command = [sys.executable, "-m", "dataprep", "build", "--gate", "off", "--store", str(store), *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(store.glob("*/latest")).resolve()


@pytest.mark.parametrize("template", ["llama2", "chatml"])
def test_the_bundled_sample_trains(tmp_path, template, monkeypatch):
    build = built(tmp_path / "store", "--template", template, "--sample", "150")
    run = tmp_path / "runs" / "first"
    training(
        "run",
        "--data",
        build,
        "--model",
        "tiny",
        "--max-steps",
        "4",
        "--eval-every",
        "4",
        "--out",
        run,
        "--stop-prompts",
        "0",
        "--held-out",
        "4",
    )
    facts = json.loads((run / "run.json").read_text())
    assert facts["bond"]["version"] == build.name and facts["ledger"]["train"]["rows_untrained"] == 0
    monkeypatch.chdir(tmp_path)  # which has no ./runs of somebody's own
    assert trained_on(tmp_path / "store") == {build.name}  # what `dataprep gc` never takes
    found = [loss for _, loss in logged_losses(run)]
    assert found[-1] < found[0]
    training("generate", "--run", run, "--prompt", "Hello", "--max-new-tokens", "4")


@pytest.mark.real
def test_real_rows_have_metas_ids(tmp_path, llama2):
    """Every pair of every row of the real guanaco test split, through both programs, against Meta's rule."""
    from dataprep.contract import open_build
    from training.data.encode import encode

    build = built(
        tmp_path / "store",
        "--template",
        "llama2",
        "--source",
        str(REAL / "guanaco" / "openassistant_best_replies_eval.jsonl"),
    )
    train = open_build(build).splits["train"]
    encoded = encode(train, llama2)
    for number, messages in enumerate(train["messages"].to_pylist()):
        meant = []
        for question, answer in zip(messages[::2], messages[1::2], strict=True):
            text = f"[INST] {question['content'].strip()} [/INST] {answer['content'].strip()} "
            meant += [1, *llama2.backend.encode(text, add_special_tokens=False).ids, 2]
        assert encoded.ids[encoded.bounds[number] : encoded.bounds[number + 1]].tolist() == meant
