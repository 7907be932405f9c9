"""Partitions: what is read does not depend on where files are cut, nor on the workers that read the parts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.common.executor import SERIAL, Executor
from dataprep.engine.executors import LocalExecutor
from dataprep.sources.containers import cut_points
from dataprep.sources.files import find_files
from dataprep.sources.options import ReadOptions
from dataprep.sources.reader import Partitioning, Reading, read
from tests.support.paths import REAL

_BAD_LINES = [b"", b"   ", b'{"messages": 7}', b"{broken", b'{"messages": [], "split": "test"}', b"\xff\xfe{"]


def chat_lines(count: int, seed: int = 3) -> bytes:
    """JSON lines of chats of all kinds, with blank and damaged lines, repeated ids, unknown keys and roles among them."""
    dice = random.Random(seed)
    lines: list[bytes] = []
    for number in range(count):
        turns = [
            {"role": dice.choice(["user", "user", "narrator"]), "content": f"question {number} " * dice.randint(1, 20)},
            {"role": "assistant", "content": f"answer {number}\n" * dice.randint(1, 9)},
        ]
        if dice.random() < 0.2:
            turns[1]["reasoning_content"] = "because"
        record: dict[str, Any] = {"messages": turns}
        if dice.random() < 0.4:
            record["id"] = f"id{dice.randint(0, 9)}"
        if dice.random() < 0.2:
            record["unknown"] = number
        if dice.random() < 0.1:
            record["split"] = "test"
        lines.append(json.dumps(record).encode())
        if dice.random() < 0.15:
            lines.append(dice.choice(_BAD_LINES))
    return b"\n".join(lines)


def read_cut(path: Path, max_bytes: int, executor: Executor = SERIAL, folder: Path | None = None) -> Reading:
    return read(find_files([str(path)]), ReadOptions(), executor=executor, partitioning=Partitioning(max_bytes, folder))


def assert_equal(left: Reading, right: Reading) -> None:
    assert left.conversations.equals(right.conversations)
    assert left.messages.equals(right.messages)
    assert left.fates.equals(right.fates)
    assert [(file.records, file.format) for file in left.files] == [(f.records, f.format) for f in right.files]
    assert left.notes == right.notes
    assert left.unused_fields == right.unused_fields


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("chats") / "chats.jsonl"
    path.write_bytes(chat_lines(150))
    return path


@pytest.fixture(scope="module")
def whole(chats: Path) -> Reading:
    return read_cut(chats, 1 << 30)


@pytest.mark.parametrize("max_bytes", [1, 700, 5_000, 15_000])
@pytest.mark.parametrize("workers", [1, 3])
def test_partitions_of_lines_read_the_same_as_the_whole_file(
    chats: Path, whole: Reading, max_bytes: int, workers: int, tmp_path: Path
) -> None:
    assert whole.fates.height > 10
    assert_equal(read_cut(chats, max_bytes, LocalExecutor(workers), tmp_path), whole)


def test_a_byte_order_mark_and_a_line_longer_than_a_partition_are_read_alike(tmp_path: Path) -> None:
    lines = chat_lines(20).splitlines()
    lines.insert(7, json.dumps({"messages": [{"role": "user", "content": "x" * 9000}]}).encode())
    path = tmp_path / "chats.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")
    assert_equal(read_cut(path, 500), read_cut(path, 1 << 30))


def test_row_groups_of_parquet_are_partitions(tmp_path: Path) -> None:
    records = [json.loads(line) for line in chat_lines(300).splitlines() if line.startswith(b'{"messages": [{')]
    path = tmp_path / "chats.parquet"
    pq.write_table(pa.Table.from_pylist(records), path, row_group_size=17)
    assert len(cut_points(path, 1)) == len(records) // 17
    assert_equal(read_cut(path, 1, LocalExecutor(2), tmp_path), read_cut(path, 1 << 30))


@pytest.mark.parametrize(
    "name", ["oasst/oasst1_en_validation_messages.jsonl", "oasst/en_100_tree.jsonl", "sharegpt/dummy_conversation.json"]
)
def test_real_files_read_the_same_in_small_partitions(name: str, tmp_path: Path) -> None:
    path = REAL / name
    if not path.exists():
        pytest.skip("the real data is not here")
    assert_equal(read_cut(path, 20_000, LocalExecutor(2), tmp_path), read_cut(path, 1 << 30))


def test_compressed_files_are_read_by_one_task_in_frames_of_bounded_size(
    chats: Path, whole: Reading, tmp_path: Path
) -> None:
    import gzip

    path = tmp_path / "chats.jsonl.gz"
    path.write_bytes(gzip.compress(chats.read_bytes(), 1))
    assert cut_points(path, 1) == []
    in_frames = read_cut(path, 1000, folder=tmp_path)
    assert in_frames.conversations.drop("source").equals(whole.conversations.drop("source"))


def test_cut_points_lie_at_line_ends_and_depend_on_the_file_alone(chats: Path) -> None:
    data = chats.read_bytes()
    points = cut_points(chats, 3000)
    assert all(data[point - 1 : point] == b"\n" for point in points)
    assert points == sorted(set(points))
    assert len(points) > 10


def test_texts_of_frames_in_files_are_views_of_the_mapped_files(chats: Path, tmp_path: Path) -> None:
    reading = read_cut(chats, 5_000, folder=tmp_path)
    assert len(list(tmp_path.glob("read-*.arrow"))) > 5
    assert reading.conversations.n_chunks() == 1
    for file in tmp_path.glob("read-*.arrow"):
        file.unlink()
    assert reading.conversations.select(pl.col("messages").list.len().sum()).item() > 0
