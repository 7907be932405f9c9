"""Exports load in other programs, and can be built from."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from datasets import Features, load_dataset, load_from_disk

from dataprep.common.errors import StoreError
from dataprep.contract import Build, open_build
from dataprep.publish import data_files as data_files_module
from dataprep.publish.data_files import Format, data_files
from dataprep.publish.export import export, new_folder
from dataprep.publish.layouts import LAYOUTS, Layout, dataset_info, layout_schema, schema_of
from dataprep.publish.publishing import publish
from tests.support.builds import GUANACO_TEXTS, guanaco_file, guanaco_text, make_build
from tests.support.commands import dataprep, dataprep_error
from tests.support.paths import ROOT

QUICK = {"gate": "off", "near_dup": "off"}
ROLES = ("user", "assistant")


@pytest.fixture
def built(tmp_path: Path) -> Build:
    path = make_build(
        tmp_path / "store", source=(guanaco_file(tmp_path, GUANACO_TEXTS),), split="test=5", system="Be brief.", **QUICK
    ).path
    assert path is not None
    return open_build(path)


def sorted_split(build: Build, split: str, column: str) -> list[Any]:
    return pl.DataFrame(build.splits[split]).sort("id")[column].to_list()


def loaded(folder: Path, cache: Path) -> Any:
    return load_dataset(str(folder), cache_dir=str(cache))


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("layout", ["text", "messages", "sharegpt", "full"])
def test_every_layout_loads_with_every_row(built: Build, tmp_path: Path, layout: Layout, form: Format) -> None:
    sizes = export(built, tmp_path / "out", layout, form)
    assert sizes == {name: (tmp_path / "out" / name).stat().st_size for name in sizes}
    data = loaded(tmp_path / "out", tmp_path / "cache")
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 28, "test": 5}
    for split in ("train", "test"):
        rows = data[split]
        if layout == "sharegpt":
            back = {"human": "user", "gpt": "assistant", "system": "system"}
            messages = [
                [{"role": back[t["from"]], "content": t["value"]} for t in row] for row in rows["conversations"]
            ]
            assert messages == sorted_split(built, split, "messages")
        for column in layout_schema(schema_of(built), layout).names:
            if column != "conversations":
                assert list(rows[column]) == sorted_split(built, split, column), column
        assert set(rows.column_names) == set(layout_schema(schema_of(built), layout).names)
        if form == "parquet":
            assert rows.features.arrow_schema.remove_metadata().equals(layout_schema(schema_of(built), layout))
    assert not list(tmp_path.glob(".out-*"))


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("layout", ["messages", "sharegpt", "full"])
def test_a_build_from_an_export_has_the_same_conversations(
    built: Build, tmp_path: Path, layout: Layout, form: Format
) -> None:
    export(built, tmp_path / "out", layout, form)
    sources = tuple(f"{tmp_path / 'out'}:{split}" for split in ("train", "test"))
    again = make_build(tmp_path / "again", source=sources, **QUICK).path
    assert again is not None
    columns = ["id", "tree_id", "lang", "messages", "message_ids", "text"]
    before = pl.concat(pl.DataFrame(table.select(columns)) for table in built.splits.values()).sort("id")
    after = pl.DataFrame(open_build(again).splits["train"].select(columns)).sort("id")
    assert after.equals(before)


def test_features_on_a_card_are_those_of_datasets(built: Build) -> None:
    for layout in LAYOUTS:
        schema = layout_schema(schema_of(built), layout)
        info = dataset_info(built, layout, {"a": 5})
        assert Features._from_yaml_list(info["features"]) == Features.from_arrow_schema(schema)
        assert (info["download_size"], [split["num_examples"] for split in info["splits"]]) == (5, [28, 5])


def test_files_are_bounded_and_have_all_rows_in_order(built: Build, tmp_path: Path) -> None:
    files = dict(data_files(built, "messages", file_bytes=2000))
    train = [name for name in files if "train" in name]
    assert len(train) > 2 and train[0] == f"data/train-00000-of-{len(train):05d}.parquet"
    ids = [i for name in train for i in pq.read_table(io.BytesIO(files[name]))["id"].to_pylist()]
    assert ids == sorted_split(built, "train", "id")


@pytest.mark.parametrize("layout", ["text", "messages", "sharegpt", "full"])
def test_files_and_row_groups_are_bounded_where_long_rows_are_neighbours(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        {
            "id": f"{n:04d}",
            "messages": [{"role": r, "content": f"{n:04d}" + "x" * (5000 if n < 20 else 5)} for r in ROLES],
        }
        for n in range(400)
    ]
    file = tmp_path / "c.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = make_build(tmp_path / "store", source=(str(file),), **QUICK).path
    assert path is not None
    monkeypatch.setattr(data_files_module, "ROW_GROUP_BYTES", 35_000)
    contents = data_files(open_build(path), layout, file_bytes=70_000)
    files = [pq.ParquetFile(io.BytesIO(content)) for _, content in contents]
    assert all(file.read().nbytes <= 75_000 for file in files)
    groups = [file.read_row_group(n) for file in files for n in range(file.num_row_groups)]
    assert all(group.nbytes <= 38_000 for group in groups) and len(groups) > len(files) > 3
    assert sum(group.num_rows for group in groups) == 400


def test_an_additional_row_changes_few_bytes_of_a_parquet_file(tmp_path: Path) -> None:
    rng = random.Random(5)
    words = ["".join(rng.choices("abcdefghij", k=8)) for _ in range(3000)]
    texts = [" ".join(rng.choices(words, k=120)) for _ in range(6000)]
    rows = [
        {"id": f"{n:016x}", "messages": [{"role": r, "content": f"{n} {t}"} for r in ("user", "assistant")]}
        for n, t in enumerate(texts)
    ]
    pieces = []
    for number, version in enumerate((rows, rows[:1000] + rows[1001:])):
        file = tmp_path / f"{number}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in version))
        path = make_build(tmp_path / "store", source=(str(file),), **QUICK).path
        [name] = export(open_build(path), tmp_path / str(number), "text")
        data = (tmp_path / str(number) / name).read_bytes()
        group = pq.ParquetFile(tmp_path / str(number) / name).metadata.row_group(0)
        assert group.column(0).compression == "ZSTD"
        pieces.append(data)
    probes = [pieces[1][at : at + 64] for at in range(1000, len(pieces[1]) - 10_000, len(pieces[1]) // 50)]
    known = sum(probe in pieces[0] for probe in probes) / len(probes)
    assert known > 0.6, f"{known:.0%} of the bytes are unchanged"


def test_the_export_command_writes_files_or_one_sentence(built: Build, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = dataprep("export", built.path, "--to", out, "--layout", "sharegpt", "--format", "jsonl", "--json")
    assert list(json.loads(done.stdout)["files"]) == [
        "data/train-00000-of-00001.jsonl",
        "data/test-00000-of-00001.jsonl",
    ]
    assert "is no empty folder" in dataprep_error(1, "export", built.path, "--to", out)
    (tmp_path / "empty").mkdir()
    assert dataprep("export", built.path, "--to", tmp_path / "empty").stdout.count("parquet") == 2
    (tmp_path / "file").write_text("")
    assert "File exists" in dataprep_error(1, "export", built.path, "--to", tmp_path / "file" / "out")
    dataprep_error(2, "export", built.path, "--to", tmp_path / "x", "--layout", "chatty")
    assert "Available: n." in dataprep_error(1, "export", "m", "--to", tmp_path / "x", "--store", tmp_path / "store")
    shard = next(built.path.glob("train/*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert shard.name in dataprep_error(4, "export", built.path, "--to", tmp_path / "x")
    assert not (tmp_path / "x").exists()


# Runs a command as on a full disk: no file can have more than 20,000 bytes.
SMALL_DISK = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
runpy.run_module("dataprep", run_name="__main__")
"""


@pytest.mark.parametrize("command", [("export",), ("export", "--format", "jsonl"), ("publish",)])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(command: tuple[str, ...], tmp_path: Path) -> None:
    # Without the detour by way of memory, pyarrow would abort the process here.
    rng = random.Random(7)
    texts = [guanaco_text(f"question {n}", rng.randbytes(900).hex()) for n in range(60)]
    path = make_build(tmp_path / "store", source=(guanaco_file(tmp_path, texts),), **QUICK).path
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", SMALL_DISK, command[0], str(path), "--to", str(out), *command[1:]],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "File too large" in done.stderr and done.stderr.count("\n") == 1
    assert not out.exists() and not list(tmp_path.glob(".out-*"))


def test_leftovers_of_a_killed_export_are_removed_and_a_running_one_is_left_alone(built: Build, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with new_folder(out) as folder:
        (folder / "half").write_text("x")
        with pytest.raises(StoreError, match="Another process is writing"):
            export(built, out)
        assert (folder / "half").exists()
        leftover = tmp_path / "leftover"
        shutil.copytree(folder, leftover)
    shutil.rmtree(out)
    leftover.rename(folder)
    assert [path.name for path in out.parent.glob(".out-*")] == [folder.name]
    export(built, out)
    assert sorted(path.name for path in out.iterdir()) == ["data"] and not list(tmp_path.glob(".out-*"))


def test_an_empty_split_has_no_file_and_the_others_load(tmp_path: Path) -> None:
    path = make_build(
        tmp_path / "store",
        source=(guanaco_file(tmp_path, [guanaco_text(f"q{n}", "a") for n in range(6)]),),
        split="test=0.0001",
        **QUICK,
    ).path
    assert path is not None
    assert {split: rows.num_rows for split, rows in load_from_disk(path).items()} == {"train": 6, "test": 0}
    build = open_build(path)
    assert list(export(build, tmp_path / "out")) == ["data/train-00000-of-00001.parquet"]
    publish(build, str(tmp_path / "published"))
    for folder in ("out", "published"):
        data = loaded(tmp_path / folder, tmp_path / "cache")
        assert {split: rows.num_rows for split, rows in data.items()} == {"train": 6}
