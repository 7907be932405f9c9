"""A version appears whole or not at all; names stay in the store; what was killed is cleaned up."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pytest
from datasets import Features

from dataprep.common.errors import BuildError, DamagedBuild, StoreError
from dataprep.contract import SHARD_SCHEMA, open_build
from dataprep.store import builds as store
from dataprep.store import shards
from dataprep.tables import FATES, conform


def batch(texts: list[str]) -> pa.RecordBatch:
    rows = [
        {
            "id": str(n),
            "text": text,
            "messages": [{"role": "user", "content": text}],
            "spans": [{"start": 0, "end": 1}],
            "controls": [],
            "message_ids": [],
        }
        for n, text in enumerate(texts)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=SHARD_SCHEMA)


def write(home: Path, version: str = "v1", texts: tuple[str, ...] = ("a", "b"), max_bytes: int = 10**6) -> Path:
    with store.new_version(home, "n") as folder:
        writer = shards.ShardWriter(folder, "train", max_bytes)
        writer.write(batch(list(texts)))
        entry = writer.finish("f")
        shards.write_dataset_dict(folder, ["train"])
        shards.write_fates(folder, conform(pl.DataFrame({"row": [0]}), FATES))
        facts: dict[str, Any] = {
            "contract": 1,
            "name": "n",
            "version": version,
            "recipe": {},
            "template": {},
            "gate": "off",
        }
        shards.write_manifest(folder, {**facts, "splits": {"train": entry}})
        return store.publish(folder, home, "n", version)


def test_a_version_can_be_opened_and_found(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert open_build(path).splits["train"]["text"].to_pylist() == ["a", "b"]
    for reference in (str(path), "n", "n@v1", "n@v"):
        assert store.locate(tmp_path, reference) == path.resolve()
    assert store.latest_version(tmp_path, "n") == "v1"


def test_what_is_not_there_is_told_with_the_nearest(tmp_path: Path) -> None:
    write(tmp_path)
    for reference in ("m", "n@w1", "../n", "n@../x", "/nowhere"):
        with pytest.raises(StoreError) as fault:
            store.locate(tmp_path, reference)
        assert "Available" in str(fault.value)


def test_shards_are_bounded_by_bytes_and_hold_all_rows(tmp_path: Path) -> None:
    texts = tuple("x" * 1000 for _ in range(50))
    path = write(tmp_path, texts=texts, max_bytes=10_000)
    shards = open_build(path).manifest.splits["train"]["shards"]
    assert len(shards) > 5
    assert sum(shard["rows"] for shard in shards) == 50
    assert max(shard["bytes"] for shard in shards) < 12_000
    assert [Path(shard["file"]).name for shard in shards][0] == f"data-00000-of-{len(shards):05d}.arrow"


def test_a_row_larger_than_a_shard_has_one_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, texts=("y" * 5000, "z" * 5000), max_bytes=100)
    assert [shard["rows"] for shard in open_build(path).manifest.splits["train"]["shards"]] == [1, 1]


def test_dataset_info_is_what_datasets_writes() -> None:
    assert shards.dataset_info()["features"] == Features.from_arrow_schema(SHARD_SCHEMA).to_dict()


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a..b", "x" * 97, "a b", "a\0"])
def test_names_cannot_leave_the_store(name: str) -> None:
    with pytest.raises(StoreError, match="cannot be a build's name"):
        store.check_name(name)


def test_an_error_inside_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), store.new_version(tmp_path, "n") as folder:
        (folder / "half").write_text("x")
        raise RuntimeError
    assert [entry.name for entry in (tmp_path / "n").iterdir()] in ([], [".lock"])


def test_what_a_killed_writer_left_is_cleaned_and_a_live_one_left_alone(tmp_path: Path) -> None:
    code = f"""
import os, signal
from pathlib import Path
from dataprep.store import shards
from dataprep.store import builds as store
with store.new_version(Path({str(tmp_path)!r}), "n") as folder:
    (folder / "half").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    assert len(list((tmp_path / "n").glob(".tmp-*/half"))) == 1
    with store.new_version(tmp_path, "n") as mine:
        assert not list((tmp_path / "n").glob(".tmp-*/half"))
        with store.new_version(tmp_path, "n"):
            assert mine.is_dir()


def test_a_rebuild_mends_a_damaged_version_and_refuses_other_shards(tmp_path: Path) -> None:
    path = write(tmp_path)
    shard = next(path.glob("train/*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-5])
    with pytest.raises(DamagedBuild, match=shard.name):
        store.existing(tmp_path, "n", "v1")
    write(tmp_path)
    assert store.existing(tmp_path, "n", "v1") == path
    with pytest.raises(DamagedBuild, match="other shards"):
        write(tmp_path, texts=("a", "c"))
    assert open_build(path).splits["train"]["text"].to_pylist() == ["a", "b"]


def test_a_store_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Not a directory"), store.new_version(tmp_path / "file" / "store", "n"):
        pass


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    full = pytest.raises(StoreError, match="No space left")
    with full, store.new_version(tmp_path, "n"), store.telling_os_errors(tmp_path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert not list((tmp_path / "n").glob(".tmp-*"))


def test_a_manifest_of_a_newer_contract_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    facts = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps({**facts, "contract": 99}))
    with pytest.raises(BuildError, match="contract 99"):
        store.check_files(path)
