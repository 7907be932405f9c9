"""Builds from end to end: what a version holds, that it is reproducible, and that nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from datasets import load_from_disk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataprep.common.errors import DamagedBuild, InputError
from dataprep.contract import SHARD_SCHEMA, open_build
from dataprep.engine.executors import LocalExecutor
from dataprep.rendering import Renderer, load_template
from dataprep.sources.files import find_files
from dataprep.sources.reader import read
from dataprep.store.fates import read_fates
from dataprep.store.splits import write_splits
from dataprep.store.verification import verify_build
from dataprep.tasks import render_rows, render_tasks
from tests.support.builds import GUANACO_TEXTS, guanaco_file, guanaco_text, make_build
from tests.support.commands import dataprep


@pytest.fixture
def source(tmp_path: Path) -> str:
    return guanaco_file(tmp_path, GUANACO_TEXTS)


def test_a_build_has_the_columns_and_spans_of_the_contract(tmp_path: Path, source: str) -> None:
    outcome = make_build(tmp_path / "store", source=(source,), split="test=5")
    opened = open_build(outcome.path)
    assert {name: table.num_rows for name, table in opened.splits.items()} == {"train": 28, "test": 5}
    for table in opened.splits.values():
        assert table.schema.equals(SHARD_SCHEMA)
        for row in table.to_pylist():
            assert [row["text"][c["start"] : c["end"]] for c in row["controls"]] == ["<s>", "</s>"] * len(row["spans"])
            answers = [turn["content"] for turn in row["messages"] if turn["role"] == "assistant"]
            assert [row["text"][s["start"] : s["end"]] for s in row["spans"]] == [f" {a.strip()} </s>" for a in answers]
    assert verify_build(outcome.path)["rows"] == 33


def test_every_line_has_a_fate_and_the_sums_hold(tmp_path: Path, source: str) -> None:
    outcome = make_build(tmp_path / "store", source=(source,), sample=10)
    fates = read_fates(outcome.path)
    assert sorted(fates["line"].unique()) == list(range(1, len(GUANACO_TEXTS) + 1))
    assert fates["row"].is_unique().all()
    assert outcome.summary["fates"] == {
        "kept": 10,
        "dropped": 4,
        "not_sampled": 23,
        "rules": {"control_token": 1, "exact_duplicate": 1, "no_answer": 1, "no_role_marker": 1},
    }
    for stage in outcome.summary["funnel"]:
        assert stage["in"] == stage["out"] + stage["dropped"] + stage["not_sampled"]
    repaired = fates.filter(pl.col("repairs").list.len() > 0)
    assert repaired["repairs"].to_list() == [[{"rule": "dangling_question", "detail": "and then?"}]]
    assert set(outcome.seconds) >= {"read", "rules", "dedup", "select", "render", "write"}


def test_datasets_opens_a_build_without_copying(tmp_path: Path, source: str) -> None:
    outcome = make_build(tmp_path / "store", source=(source,), split="test=5")
    before = pa.total_allocated_bytes()
    whole = load_from_disk(str(outcome.path))
    train = load_from_disk(f"{outcome.path}/train")
    assert pa.total_allocated_bytes() - before < 10_000
    assert (whole["train"].num_rows, whole["test"].num_rows, train.num_rows) == (28, 5, 28)
    assert "<s>[INST] Multi [/INST] one </s><s>[INST] more [/INST] two ### Step 1 </s>" in train["text"]
    assert train.column_names == SHARD_SCHEMA.names


def test_an_existing_version_is_returned_and_not_built_again(tmp_path: Path, source: str) -> None:
    first = make_build(tmp_path / "store", source=(source,))
    modified = (first.path / "manifest.json").stat().st_mtime_ns
    again = make_build(tmp_path / "store", source=(source,))
    assert (again.version, again.built) == (first.version, False)
    assert (first.path / "manifest.json").stat().st_mtime_ns == modified
    assert "read" not in again.seconds
    other = make_build(tmp_path / "store", source=(source,), seed=1)
    assert other.version != first.version
    make_build(tmp_path / "store", source=(source,))
    assert os.readlink(tmp_path / "store/n/latest") == first.version
    assert json.loads((other.path / "manifest.json").read_text())["parent"] == first.version


def test_the_version_depends_on_bytes_and_recipe_only(tmp_path: Path, source: str) -> None:
    first = make_build(tmp_path / "one", source=(source,))
    (tmp_path / "elsewhere").mkdir()
    moved = shutil.copy(source, tmp_path / "elsewhere")
    assert make_build(tmp_path / "two", source=(moved,), name="other").version == first.version
    changed = guanaco_file(tmp_path / "elsewhere", [*GUANACO_TEXTS, guanaco_text("new", "one")])
    assert make_build(tmp_path / "two", source=(changed,)).version != first.version
    template = tmp_path / "llama2.jinja"
    template.write_text((Path(__file__).parents[1] / "templates/llama2.jinja").read_text())
    assert make_build(tmp_path / "three", source=(source,), template=str(template)).version == first.version
    template.write_text(template.read_text() + "\n{# changed #}")
    assert make_build(tmp_path / "three", source=(source,), template=str(template)).version != first.version


@pytest.mark.parametrize("threads", ["1", "4"])
def test_shards_are_identical_with_any_number_of_threads(tmp_path: Path, source: str, threads: str) -> None:
    built = make_build(tmp_path / "store", source=(source,), split="test=0.2", sample=25)
    command = [
        sys.executable,
        "-m",
        "dataprep",
        "build",
        "--source",
        source,
        "--split",
        "test=0.2",
        "--sample",
        "25",
        "--gate",
        "off",
    ]
    command += ["--json", "--name", "n", "--store", str(tmp_path / "other")]
    environment = {**os.environ, "POLARS_MAX_THREADS": threads, "OMP_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    other = json.loads(process.stdout)
    assert other["version"] == built.version
    files = sorted(
        path.relative_to(built.path) for path in built.path.rglob("*") if path.suffix in (".arrow", ".parquet", ".json")
    )
    for file in files:
        if file.name != "manifest.json":
            assert (built.path / file).read_bytes() == (Path(other["path"]) / file).read_bytes(), file


def test_a_manifest_can_be_built_again_as_a_recipe(tmp_path: Path, source: str) -> None:
    first = make_build(tmp_path / "store", source=(source,), split="test=0.2", lang=(), max_chars=500)
    done = dataprep("build", "--recipe", first.path / "manifest.json", "--json", "--store", tmp_path / "other")
    assert json.loads(done.stdout)["version"] == first.version


def test_force_rebuilds_a_damaged_version_with_identical_shards(tmp_path: Path, source: str) -> None:
    first = make_build(tmp_path / "store", source=(source,))
    shard = next(first.path.glob("train/*.arrow"))
    sound = shard.read_bytes()
    shard.write_bytes(sound[:-1] + b"x")
    with pytest.raises(DamagedBuild, match=shard.name):
        make_build(tmp_path / "store", source=(source,))
    assert make_build(tmp_path / "store", source=(source,), force=True).built
    assert shard.read_bytes() == sound


def test_a_dry_run_writes_nothing(tmp_path: Path, source: str) -> None:
    outcome = make_build(tmp_path / "store", source=(source,), dry_run=True)
    assert outcome.path is None
    assert outcome.summary["rows"] == 33
    assert not (tmp_path / "store").exists()


def test_a_sample_larger_than_the_number_of_rows_is_noted(tmp_path: Path, source: str) -> None:
    outcome = make_build(tmp_path / "store", source=(source,), sample=1000)
    assert outcome.summary["rows"] == 33
    assert "--sample 1000 asks for more than is left" in outcome.summary["notes"][-1]


def test_a_shuffled_sample_has_the_rows_and_order_of_numpys_permutation(tmp_path: Path) -> None:
    import numpy as np

    source = guanaco_file(tmp_path, [guanaco_text(f"q{n}", f"a{n}") for n in range(300)])
    outcome = make_build(tmp_path / "store", source=(source,), sample=50, sample_method="shuffle")
    texts = open_build(outcome.path).splits["train"]["text"].to_pylist()
    assert texts == [f"<s>[INST] q{n} [/INST] a{n} </s>" for n in np.random.default_rng(42).permutation(300)[:50]]


def test_a_build_without_rows_is_an_error_that_names_the_rules(tmp_path: Path) -> None:
    source = guanaco_file(tmp_path, [guanaco_text("only asked"), guanaco_text("again")])
    with pytest.raises(InputError, match="Nothing would be left.*2 no_answer"):
        make_build(tmp_path / "store", source=(source,))


def test_too_many_unreadable_records_are_an_error_and_few_are_a_note(tmp_path: Path) -> None:
    source = guanaco_file(tmp_path, GUANACO_TEXTS)
    with Path(source).open("a") as file:
        file.write('{"text": "### Human: cut of\n' * 5)
    with pytest.raises(InputError, match="above --max-bad 0.05"):
        make_build(tmp_path / "store", source=(source,))
    outcome = make_build(tmp_path / "store", source=(source,), max_bad=0.5)
    assert outcome.summary["rows"] == 33
    assert outcome.summary["fates"]["rules"]["bad_json"] == 5
    assert (
        f"6 of {len(GUANACO_TEXTS) + 5} records cannot be read; the first is in line 7 of"
        in outcome.summary["notes"][0]
    )


def test_a_tree_with_an_unreadable_message_is_noted_like_an_unreadable_line(tmp_path: Path) -> None:
    def tree(n: int, **reply: str) -> dict:
        answer = {"message_id": f"a{n}", "parent_id": f"q{n}", "role": "assistant", **reply}
        prompt = {"message_id": f"q{n}", "text": f"question {n}", "role": "prompter", "replies": [answer]}
        return {"message_tree_id": f"q{n}", "tree_state": "ready_for_export", "prompt": prompt}

    path = tmp_path / "trees.jsonl"
    path.write_text("".join(json.dumps(tree(n, **({"text": "yes"} if n else {}))) + "\n" for n in range(5)))
    outcome = make_build(tmp_path / "store", source=(str(path),), max_bad=0.5)
    assert "1 of 5 records cannot be read; the first is in line 1 of trees.jsonl" in outcome.summary["notes"][0]


def test_a_tree_with_many_unreadable_messages_is_one_record(tmp_path: Path) -> None:
    def tree(n: int) -> dict:
        reply = {"message_id": f"a{n}", "text": f"answer {n}", "role": "assistant"}
        textless = [{"message_id": f"{n}-{k}", "role": "assistant"} for k in range(0 if n else 45)]
        prompt = {"message_id": f"q{n}", "text": f"question {n}", "role": "prompter", "replies": [reply, *textless]}
        return {"message_tree_id": f"q{n}", "prompt": prompt}

    path = tmp_path / "trees.jsonl"
    path.write_text("".join(json.dumps(tree(n)) + "\n" for n in range(40)))
    outcome = make_build(tmp_path / "store", source=(str(path),), near_dup="off")
    assert outcome.summary["fates"]["rules"]["wrong_schema"] == 45 and outcome.summary["rows"] == 40
    assert outcome.summary["notes"][0].startswith("1 of 40 records cannot be read")


def test_an_interrupted_build_leaves_no_thread_running(tmp_path: Path, source: str) -> None:
    """Otherwise the interpreter ends the thread that renders ahead, which can print a traceback."""
    frame = read(find_files([source])).conversations.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    frame = frame.filter(pl.col("messages").list.len() % 2 == 0)

    def interrupted(done: int) -> None:
        raise KeyboardInterrupt

    def render(frame: pl.DataFrame, split: str) -> Generator[pa.RecordBatch]:
        tasks = render_tasks(frame, split, Renderer(load_template("llama2")), None)
        with closing(LocalExecutor(2).map(render_rows, tasks)) as results:
            for batches in results:
                yield from (batch.rows for batch in batches)

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt) as caught:  # its traceback keeps what was not closed
        write_splits(tmp_path, {"train": frame}, render, 1 << 28, "v", interrupted)
    assert caught.traceback and threading.active_count() - before <= 2  # those that write and take checksums


def test_a_conversation_that_the_template_refuses_has_its_fate_and_is_replaced_in_the_sample(
    tmp_path: Path, source: str
) -> None:
    template = tmp_path / "strict.jinja"
    text = (Path(__file__).parents[1] / "templates/chatml.jinja").read_text()
    template.write_text(text + "{% if messages | length > 2 %}{{ raise_exception('one turn only') }}{% endif %}")
    outcome = make_build(tmp_path / "store", source=(source,), template=str(template), sample=33)
    fates = read_fates(outcome.path).filter(rule="template_refused")
    assert fates.select("stage", "line").rows() == [("render", 2)]
    assert "one turn only" in fates["detail"][0]
    assert outcome.summary["rows"] == 33  # another row took its place in the sample; </s> is not a token of ChatML


rows = st.lists(
    st.lists(st.text(alphabet="ab é\n#", min_size=0, max_size=8), min_size=1, max_size=5).map(
        lambda turns: guanaco_text(*turns)
    )
    | st.text(max_size=10),
    min_size=1,
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows, st.sampled_from([None, 1, 3]), st.sampled_from([None, "test=0.5"]))
def test_every_line_of_random_text_is_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], sample: Any, split: Any
) -> None:
    folder = tmp_path_factory.mktemp("any")
    source = guanaco_file(folder, texts)
    try:
        outcome = make_build(
            folder / "store", source=(source,), format="guanaco", sample=sample, split=split, max_bad=1.0
        )
    except InputError as fault:
        assert "Nothing would be left" in str(fault)
        return
    fates = read_fates(outcome.path)
    assert set(fates["line"]) == set(range(1, len(texts) + 1))
    assert fates.height == len(texts)
    assert verify_build(outcome.path)["rows"] == outcome.summary["fates"]["kept"]
