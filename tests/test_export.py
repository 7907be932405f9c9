"""Exports are what other programs read, and what a build reads back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from datasets import Features, load_dataset

from dataprep import export
from dataprep.contract import Build, open_build
from dataprep.errors import StoreError
from tests.test_build import TEXTS, guanaco, make
from tests.test_cli import dataprep, refused

QUICK = {"gate": "off", "near_dup": "off"}


@pytest.fixture
def built(tmp_path: Path) -> Build:
    path = make(
        tmp_path / "store", source=(guanaco(tmp_path, TEXTS),), split="test=5", system="Be brief.", **QUICK
    ).path
    assert path is not None
    return open_build(path)


def sorted_split(build: Build, split: str, column: str) -> list[Any]:
    return pl.DataFrame(build.splits[split]).sort("id")[column].to_list()


def loaded(folder: Path, cache: Path) -> Any:
    return load_dataset(str(folder), cache_dir=str(cache))


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("layout", ["text", "messages", "sharegpt", "full"])
def test_every_layout_is_loaded_by_datasets_and_holds_every_row(
    built: Build, tmp_path: Path, layout: export.Layout, form: export.Format
) -> None:
    sizes = export.export(built, tmp_path / "out", layout, form)
    assert sizes == {name: (tmp_path / "out" / name).stat().st_size for name in sizes}
    data = loaded(tmp_path / "out", tmp_path / "cache")
    assert {split: rows.num_rows for split, rows in data.items()} == {"train": 28, "test": 5}
    for split in ("train", "test"):
        rows = data[split]
        if layout == "sharegpt":
            back = {"human": "user", "gpt": "assistant", "system": "system"}
            told = [[{"role": back[t["from"]], "content": t["value"]} for t in row] for row in rows["conversations"]]
            assert told == sorted_split(built, split, "messages")
        for column in export.SCHEMAS[layout].names:
            if column != "conversations":
                assert list(rows[column]) == sorted_split(built, split, column), column
        assert set(rows.column_names) == set(export.SCHEMAS[layout].names)
        if form == "parquet":
            assert rows.features.arrow_schema.remove_metadata().equals(export.SCHEMAS[layout])
    assert not list(tmp_path.glob(".out-*"))


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("layout", ["messages", "sharegpt", "full"])
def test_fed_back_it_gives_the_same_conversations(
    built: Build, tmp_path: Path, layout: export.Layout, form: export.Format
) -> None:
    export.export(built, tmp_path / "out", layout, form)
    again = make(tmp_path / "again", source=(str(tmp_path / "out"),), **QUICK).path
    assert again is not None
    columns = ["id", "tree_id", "lang", "messages", "message_ids", "text"]
    before = pl.concat(pl.DataFrame(table.select(columns)) for table in built.splits.values()).sort("id")
    after = pl.DataFrame(open_build(again).splits["train"].select(columns)).sort("id")
    assert after.equals(before)


def test_features_on_a_card_are_what_datasets_calls_them(built: Build) -> None:
    for layout, schema in export.SCHEMAS.items():
        info = export.dataset_info(built, layout, {"a": 5})  # type: ignore[arg-type]
        told = Features._from_yaml_list(info["features"])
        assert told == Features.from_arrow_schema(schema)
        assert (info["download_size"], [split["num_examples"] for split in info["splits"]]) == (5, [28, 5])


def test_shards_are_bounded_and_hold_all_rows_in_order(built: Build, tmp_path: Path) -> None:
    sizes = export.write_data(built, tmp_path, "messages", shard_bytes=2000)
    train = [name for name in sizes if "train" in name]
    assert len(train) > 2 and train[0] == f"data/train-00000-of-{len(train):05d}.parquet"
    ids = [i for name in train for i in pq.read_table(tmp_path / name)["id"].to_pylist()]
    assert ids == sorted_split(built, "train", "id")


def test_parquet_is_compressed_and_cut_where_the_content_says(tmp_path: Path) -> None:
    """One row more changes a few pages, not all that come after it."""
    import random

    rng = random.Random(5)
    words = ["".join(rng.choices("abcdefghij", k=8)) for _ in range(3000)]
    texts = [" ".join(rng.choices(words, k=120)) for _ in range(6000)]
    rows = [
        {"id": f"{n:016x}", "messages": [{"role": r, "content": f"{n} {t}"} for r in ("user", "assistant")]}
        for n, t in enumerate(texts)
    ]
    pieces = []
    for number, some in enumerate((rows, rows[:1000] + rows[1001:])):
        file = tmp_path / f"{number}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in some))
        path = make(tmp_path / "store", source=(str(file),), **QUICK).path
        [name] = export.export(open_build(path), tmp_path / str(number), "text")
        data = (tmp_path / str(number) / name).read_bytes()
        group = pq.ParquetFile(tmp_path / str(number) / name).metadata.row_group(0)
        assert group.column(0).compression == "ZSTD"
        pieces.append(data)
    probes = [pieces[1][at : at + 64] for at in range(1000, len(pieces[1]) - 10_000, len(pieces[1]) // 50)]
    known = sum(probe in pieces[0] for probe in probes) / len(probes)
    assert known > 0.6, f"{known:.0%} of the bytes were there before"


def test_the_command_and_its_mistakes(built: Build, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = dataprep("export", built.path, "--to", out, "--layout", "sharegpt", "--format", "jsonl", "--json")
    assert list(json.loads(done.stdout)["files"]) == [
        "data/train-00000-of-00001.jsonl",
        "data/test-00000-of-00001.jsonl",
    ]
    assert "is no empty folder" in refused(1, "export", built.path, "--to", out)
    (tmp_path / "empty").mkdir()
    assert dataprep("export", built.path, "--to", tmp_path / "empty").stdout.count("parquet") == 2
    (tmp_path / "file").write_text("")
    assert "File exists" in refused(1, "export", built.path, "--to", tmp_path / "file" / "out")
    refused(2, "export", built.path, "--to", tmp_path / "x", "--layout", "chatty")
    assert "Available: n." in refused(1, "export", "m", "--to", tmp_path / "x", "--store", tmp_path / "store")
    shard = next(built.path.glob("train/*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-1])
    assert shard.name in refused(4, "export", built.path, "--to", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_full_disk_leaves_nothing(built: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export.pq, "write_table", full)
    with pytest.raises(StoreError, match="No space left"):
        export.export(built, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".out-*"))
