"""From a build that `dataprep build` wrote to an answer: the two programs share only the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataprep.contract import open_build
from dataprep.store.history import trained_on
from tests.support.commands import dataprep, logged_losses, training_here
from tests.support.paths import REAL
from training.data.encode import encode
from training.model.tokenizer import ChatTokenizer
from training.run_folder import RunFolder


def build_with_dataprep(store: Path, *options: str) -> Path:
    """Run `dataprep build`; returns the folder of the version."""
    done = dataprep("build", "--store", store, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(store.glob("*/latest")).resolve()


@pytest.mark.parametrize("template", ["llama2", "chatml"])
def test_the_bundled_sample_trains_and_gc_keeps_its_build(
    tmp_path: Path, template: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = build_with_dataprep(tmp_path / "store", "--template", template, "--sample", "150")
    run = tmp_path / "runs" / "first"
    options = ["--model", "tiny", "--max-steps", "4", "--eval-every", "4", "--stop-prompts", "0", "--held-out", "4"]
    training_here("run", "--data", build, *options, "--out", run)
    record = RunFolder(run).read()
    assert record["provenance"]["version"] == build.name and record["ledger"]["train"]["rows_untrained"] == 0
    monkeypatch.chdir(tmp_path)  # a folder without other runs
    assert trained_on(tmp_path / "store") == {build.name}  # `dataprep gc` keeps these versions
    losses = [loss for _, loss in logged_losses(run)]
    assert losses[-1] < losses[0]
    training_here("generate", "--run", run, "--prompt", "Hello", "--max-new-tokens", "4")


@pytest.mark.real
def test_real_conversations_have_the_ids_of_metas_rule_after_both_programs(
    tmp_path: Path, llama2: ChatTokenizer
) -> None:
    source = REAL / "guanaco" / "openassistant_best_replies_eval.jsonl"
    build = build_with_dataprep(tmp_path / "store", "--template", "llama2", "--source", str(source))
    train = open_build(build).splits["train"]
    encoded = encode(train, llama2)
    for number, messages in enumerate(train["messages"].to_pylist()):
        expected: list[int] = []
        for question, answer in zip(messages[::2], messages[1::2], strict=True):
            text = f"[INST] {question['content'].strip()} [/INST] {answer['content'].strip()} "
            expected += [1, *llama2.backend.encode(text, add_special_tokens=False).ids, 2]
        assert encoded.ids[encoded.bounds[number] : encoded.bounds[number + 1]].tolist() == expected
