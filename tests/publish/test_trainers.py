"""Exports for other trainers: rows with ids and labels, prompts with completions, and configuration beside the data."""

from __future__ import annotations

import json
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataprep.common.errors import StoreError
from dataprep.contract import Build, open_build
from dataprep.publish.export import export
from dataprep.publish.trainers import Trainer
from tests.support.builds import GUANACO_TEXTS, guanaco_file, make_build
from tests.support.paths import ROOT
from training.config import RunConfig
from training.data.inspect import json_lines
from training.model.tiny import write_model


def built(folder: Path, **options: Any) -> Build:
    options = {"source": (guanaco_file(folder, GUANACO_TEXTS),), "near_dup": "off", "template": "chatml"} | options
    path = make_build(folder / "store", **options).path
    assert path is not None
    return open_build(path)


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Conversations of one and two turns in ChatML, some of them held out."""
    return built(tmp_path_factory.mktemp("build"), split="test=5")


@pytest.fixture(scope="module")
def model(build: Build, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model with a tokenizer that was trained on the build."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_model(folder, build, seed=0)
    return folder


@pytest.fixture
def context_only(tmp_path: Path) -> Build:
    """A build with an answer that is context only."""
    turns = [("user", "a", None), ("assistant", "b", 0), ("user", "c", None), ("assistant", "d", 1)]
    messages = [{"role": role, "content": text} | ({} if w is None else {"weight": w}) for role, text, w in turns]
    source = tmp_path / "chats.jsonl"
    source.write_text(json.dumps({"messages": messages}) + "\n")
    return built(tmp_path, source=(str(source),))


def read(folder: Path, split: str = "train") -> pl.DataFrame:
    return pl.read_parquet(folder / "data" / f"{split}-*.parquet")


def test_tokens_are_the_ids_and_labels_that_training_uses(build: Build, model: Path, tmp_path: Path) -> None:
    export(build, tmp_path / "out", "tokens", tokenizer=str(model))
    options = RunConfig(data=build.path, model=str(model))
    expected = {row["id"]: row for row in map(json.loads, json_lines(options, "all"))}
    rows = read(tmp_path / "out").to_dicts()
    assert {row["id"]: row for row in rows} == expected
    assert any(label != -100 for label in rows[0]["labels"])
    assert len(read(tmp_path / "out", "test")) == 5


def test_context_only_answers_have_no_labels(context_only: Build, tmp_path: Path) -> None:
    write_model(tmp_path / "model", context_only, seed=0)
    export(context_only, tmp_path / "out", "tokens", tokenizer=str(tmp_path / "model"))
    row = read(tmp_path / "out").to_dicts()[0]
    spans = context_only.splits["train"]["spans"].to_pylist()[0]
    assert len(spans) == 1
    assert sum(label != -100 for label in row["labels"]) < len(row["labels"]) / 2


def test_each_trained_answer_is_a_row_with_the_text_before_it(build: Build, tmp_path: Path) -> None:
    export(build, tmp_path / "out", "prompt-completion", "jsonl")
    lines = (tmp_path / "out" / "data" / "train-00000-of-00001.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    expected = [
        {
            "id": row["id"],
            "prompt": row["text"][: span["start"]],
            "completion": row["text"][span["start"] : span["end"]],
        }
        for row in sorted(build.splits["train"].to_pylist(), key=lambda row: row["id"])
        for span in row["spans"]
    ]
    assert rows == expected
    assert all(row["prompt"].endswith("<|im_start|>assistant\n") for row in rows)
    assert all(row["completion"].endswith("<|im_end|>") for row in rows)


def test_tokens_need_a_tokenizer(build: Build, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="--layout tokens needs --tokenizer"):
        export(build, tmp_path / "out", "tokens")
    assert not (tmp_path / "out").exists()


def test_axolotl_reads_the_messages_with_the_builds_template(build: Build, tmp_path: Path) -> None:
    import yaml  # type: ignore[import-untyped]

    sizes = export(build, tmp_path / "out", trainer="axolotl")
    config = yaml.safe_load((tmp_path / "out" / "axolotl.yml").read_text("utf-8"))
    assert [entry["path"] for entry in config["datasets"]] == ["data/train-00000-of-00001.jsonl"]
    assert [entry["path"] for entry in config["test_datasets"]] == ["data/test-00000-of-00001.jsonl"]
    assert config["datasets"][0]["message_field_training"] == "train"
    assert config["eot_tokens"] == ["<|im_end|>"]
    template = (tmp_path / "out" / config["chat_template_jinja"]).read_text("utf-8")
    assert template == (build.path / "template.jinja").read_text("utf-8")
    assert sizes.keys() == {
        path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()
    }


def test_llama_factory_gets_the_data_sets_that_its_configuration_names(build: Build, tmp_path: Path) -> None:
    import yaml

    export(build, tmp_path / "out", trainer="llamafactory")
    info = json.loads((tmp_path / "out" / "dataset_info.json").read_text("utf-8"))
    config = yaml.safe_load((tmp_path / "out" / "llamafactory.yaml").read_text("utf-8"))
    assert (config["dataset"], config["eval_dataset"], config["template"]) == ("train_0", "test_0", "chatml")
    for name in ("train_0", "test_0"):
        first = json.loads((tmp_path / "out" / info[name]["file_name"]).read_text("utf-8").splitlines()[0])
        turns = first[info[name]["columns"]["messages"]]
        assert [turn[info[name]["tags"]["role_tag"]] for turn in turns[:2]] == ["human", "gpt"]


def test_what_a_trainer_would_learn_otherwise_is_refused(context_only: Build, tmp_path: Path) -> None:
    trainers: tuple[Trainer, ...] = ("llamafactory", "trl")
    for trainer in trainers:
        with pytest.raises(StoreError, match="1 answers of the build are context only"):
            export(context_only, tmp_path / trainer, trainer=trainer)
    with pytest.raises(StoreError, match="pass --tokenizer"):
        export(context_only, tmp_path / "unsloth", trainer="unsloth")
    export(context_only, tmp_path / "axolotl", trainer="axolotl")
    line = (tmp_path / "axolotl" / "data" / "train-00000-of-00001.jsonl").read_text("utf-8")
    assert [turn.get("train") for turn in json.loads(line)["messages"]] == [None, False, None, None]


def test_a_template_of_ones_own_is_no_template_of_llama_factory(tmp_path: Path) -> None:
    (tmp_path / "chatml.jinja").write_text(
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    own = built(tmp_path, template=str(tmp_path / "chatml.jinja"))
    with pytest.raises(StoreError, match="has none for chatml: use --for axolotl"):
        export(own, tmp_path / "factory", trainer="llamafactory")
    with pytest.raises(StoreError, match="no generation blocks"):
        export(own, tmp_path / "trl", trainer="trl")


@pytest.fixture
def arguments(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The command line of a script that runs in this process."""
    values: list[str] = []
    monkeypatch.setattr(sys, "argv", values)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    yield values


@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_the_trl_script_trains_the_tokens_of_the_build(
    build: Build, model: Path, tmp_path: Path, arguments: list[str], with_tokenizer: bool
) -> None:
    pytest.importorskip("trl")
    export(build, tmp_path / "out", trainer="trl", tokenizer=str(model) if with_tokenizer else None)
    arguments[:] = ["train_trl.py", str(model), str(tmp_path / "run")]
    trainer = runpy.run_path(str(tmp_path / "out" / "train_trl.py"))["trainer"]
    assert (tmp_path / "run" / "adapter_model.safetensors").exists()
    assert all(record["loss"] > 0 for record in trainer.state.log_history if "loss" in record)
    expected = {
        tuple(row["input_ids"]): row["labels"]
        for row in map(json.loads, json_lines(RunConfig(data=build.path, model=str(model)), "all"))
    }
    batches = [trainer.data_collator([row]) for row in trainer.train_dataset]
    assert {tuple(b["input_ids"][0].tolist()): b["labels"][0].tolist() for b in batches} == expected


def test_the_commands_of_the_page_write_data_and_configuration(build: Build, model: Path, tmp_path: Path) -> None:
    from tests.support.hub import Hub
    from tests.support.publishing import run

    lines = re.findall(r"^    dataprep (export .+)$", (ROOT / "docs" / "trainers.md").read_text("utf-8"), re.MULTILINE)
    assert len(lines) == 5
    hub = Hub()  # not started: nothing is read from the Hub
    for number, line in enumerate(lines):
        words = [
            {"NAME": str(build.path), "MODEL": str(model), "exported": f"out{number}"}.get(w, w) for w in line.split()
        ]
        out, _ = run(hub, tmp_path, *words)
        assert "data/train-00000-of-00001" in out
        assert [path for path in (tmp_path / f"out{number}").iterdir() if path.suffix in (".py", ".yml", ".yaml")]


def test_the_unsloth_script_is_python_and_reads_the_ids(build: Build, model: Path, tmp_path: Path) -> None:
    export(build, tmp_path / "out", trainer="unsloth", tokenizer=str(model))
    script = tmp_path / "out" / "train_unsloth.py"
    compile(script.read_text("utf-8"), str(script), "exec")
    assert read(tmp_path / "out").columns == ["id", "input_ids", "labels"]
