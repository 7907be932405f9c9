"""Shards: bounded in bytes, complete, and described as datasets itself does."""

from __future__ import annotations

import resource
from pathlib import Path

import pyarrow as pa
import pytest
from datasets import Features

from dataprep.contract import SHARD_SCHEMA, open_build
from dataprep.store.shards import ShardWriter, dataset_info
from tests.support.versions import write_version


def test_a_written_version_can_be_opened(tmp_path: Path) -> None:
    assert open_build(write_version(tmp_path)).splits["train"]["text"].to_pylist() == ["a", "b"]


def test_shards_are_bounded_by_bytes_and_have_all_rows(tmp_path: Path) -> None:
    path = write_version(tmp_path, texts=("x" * 1000,) * 50, max_bytes=10_000)
    shards = open_build(path).manifest.splits["train"]["shards"]
    assert len(shards) > 5
    assert sum(shard["rows"] for shard in shards) == 50
    assert max(shard["bytes"] for shard in shards) < 12_000
    assert shards[0]["file"] == f"train/data-00000-of-{len(shards):05d}.arrow"


def test_a_row_larger_than_a_shard_is_a_shard_of_its_own(tmp_path: Path) -> None:
    path = write_version(tmp_path, texts=("y" * 5000, "z" * 5000), max_bytes=100)
    assert [shard["rows"] for shard in open_build(path).manifest.splits["train"]["shards"]] == [1, 1]


def test_dataset_info_equals_what_datasets_writes() -> None:
    assert dataset_info()["features"] == Features.from_arrow_schema(SHARD_SCHEMA).to_dict()


def test_a_shard_that_the_disk_cannot_take_is_an_error(tmp_path: Path) -> None:
    batch = pa.record_batch({"text": ["x" * 100_000]})
    writer = ShardWriter(tmp_path, "train", 1 << 20, batch.schema)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.write(batch)
            writer.finish("fingerprint")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
