"""The cache of a store: what an entry depends on, damage, the bound on its size, and builds that use it at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dataprep import cached_tasks
from dataprep.cached_tasks import CachedReader, fingerprint_table
from dataprep.common.executor import SERIAL
from dataprep.dedup.fingerprints import fingerprint, sketched_text
from dataprep.dedup.near import remove_near_duplicates
from dataprep.engine.cache import Cache, key_of
from dataprep.recipe import Recipe
from dataprep.sources import partitions
from dataprep.sources.files import SourceFile, find_files, hash_files
from dataprep.sources.options import ReadOptions
from dataprep.sources.partitions import PartitionRows, ReadTask, Recognised
from dataprep.sources.reader import Partitioning, Reading, read
from dataprep.store.fates import read_fates
from tests.support.builds import guanaco_file, guanaco_text, make_build

TEXTS = [guanaco_text(f"question {n}", f"answer {n} " * 20) for n in range(150)]


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def source(tmp_path: Path) -> SourceFile:
    return hash_files(find_files([guanaco_file(tmp_path, TEXTS)]))[0]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[ReadTask]:
    """The tasks that were read from their source, and not from the cache."""
    tasks: list[ReadTask] = []

    def read_and_count(task: ReadTask) -> Any:
        tasks.append(task)
        return partitions.read_partition(task)

    monkeypatch.setattr(cached_tasks, "read_partition", read_and_count)
    return tasks


def read_all(cache: Cache, file: SourceFile, folder: Path, max_bytes: int = 3000, **options: Any) -> Reading:
    folder.mkdir()
    how = Partitioning(max_bytes, folder, CachedReader(cache))
    return read(hash_files([replace(file, digest="")], part_bytes=max_bytes), ReadOptions(**options), partitioning=how)


def test_a_second_reading_takes_all_partitions_from_the_cache(
    cache: Cache, source: SourceFile, reads: list[ReadTask], tmp_path: Path
) -> None:
    first = read_all(cache, source, tmp_path / "1")
    assert len(reads) == 13
    reads.clear()
    second = read_all(cache, source, tmp_path / "2")
    assert reads == []
    assert second.conversations.equals(first.conversations)
    assert second.notes == first.notes


def test_an_appended_file_is_read_from_its_last_partition_on(
    cache: Cache, source: SourceFile, reads: list[ReadTask], tmp_path: Path
) -> None:
    read_all(cache, source, tmp_path / "1")
    count = len(reads)
    reads.clear()
    with source.path.open("a") as file:
        file.write(json.dumps({"text": guanaco_text("one more", "yes")}) + "\n")
    appended = replace(source, bytes=source.path.stat().st_size)
    reading = read_all(cache, appended, tmp_path / "2")
    assert 1 <= len(reads) <= 2 < count
    assert reading.conversations.height == len(TEXTS) + 1


def task_of(file: SourceFile, frames: Path, **changes: Any) -> ReadTask:
    recognised = Recognised("guanaco", [{"text": TEXTS[0]}])
    content = file.content_of(0, 1000)
    task = ReadTask(file, ReadOptions(), 0, 1000, recognised=recognised, frames=frames, content=content)
    return replace(task, **changes)


CHANGES: dict[str, Callable[[ReadTask], ReadTask]] = {
    "bytes of the partition": lambda task: replace(task, content=task.file.content_of(0, 2000)),
    "place in the file": lambda task: replace(task, start=1),
    "name of the file": lambda task: replace(task, file=replace(task.file, name="other.jsonl")),
    "split of the file": lambda task: replace(task, file=replace(task.file, split="test")),
    "stated split": lambda task: replace(task, file=replace(task.file, split_stated=True)),
    "format": lambda task: replace(task, recognised=Recognised("messages", [{"text": TEXTS[0]}])),
    "first records": lambda task: replace(task, recognised=Recognised("guanaco", [{"text": "x"}])),
    "longest record": lambda task: replace(task, options=ReadOptions(max_record_bytes=5_000_000)),
    "columns": lambda task: replace(task, options=ReadOptions(columns={"a": "b"})),
    "roles": lambda task: replace(task, options=ReadOptions(roles={"a": "user"})),
    "unknown fields": lambda task: replace(task, options=ReadOptions(unknown_fields="drop")),
    "preference": lambda task: replace(task, options=ReadOptions(preference="chosen")),
    "assumed language": lambda task: replace(task, options=ReadOptions(assume_lang="en")),
    "kept split": lambda task: replace(task, options=ReadOptions(keep_split=True)),
    "bytes of a frame": lambda task: replace(task, frame_bytes=1),
}


@pytest.mark.parametrize("part", CHANGES)
def test_a_change_of_any_part_of_the_key_alone_misses(part: str, source: SourceFile, tmp_path: Path) -> None:
    task = task_of(source, tmp_path / "frames")
    assert key_of(cached_tasks._read_parts(task)) == key_of(cached_tasks._read_parts(replace(task, frames=tmp_path)))
    assert key_of(cached_tasks._read_parts(CHANGES[part](task))) != key_of(cached_tasks._read_parts(task))


@pytest.mark.parametrize("name", ["code_digest", "library_versions"])
def test_other_code_or_another_version_of_a_library_misses(
    name: str, source: SourceFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = task_of(source, tmp_path / "frames")
    before = key_of(cached_tasks._read_parts(task))
    cached_tasks._program.cache_clear()
    monkeypatch.setattr(cached_tasks, name, lambda: "other")
    assert key_of(cached_tasks._read_parts(task)) != before
    cached_tasks._program.cache_clear()


@pytest.mark.parametrize(
    ("recipe", "tokens"),
    [
        (Recipe(system="Be kind."), []),
        (Recipe(control_tokens="escape"), ["<s>"]),
        (Recipe(near_dup_on="answer"), []),
        (Recipe(near_dup="off"), []),
    ],
)
def test_fingerprints_depend_on_repairs_and_on_the_compared_text(recipe: Recipe, tokens: list[str]) -> None:
    def key(chosen: Recipe, tokens: list[str]) -> str:
        return cached_tasks._fingerprint_key("p", sketched_text(chosen), chosen, tokens)

    assert key(recipe, tokens) != key(Recipe(), tokens)
    assert key(Recipe(sample=5, near_dup="0.9", gate="off"), ["</s>"]) == key(Recipe(), [])


def test_fingerprints_of_rows_that_another_recipe_dropped_are_added_to_the_entry(
    cache: Cache, source: SourceFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = read_all(cache, source, tmp_path / "1")
    rows = reading.conversations.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64))
    fresh: list[int] = []

    def fingerprint_and_count(frame: pl.DataFrame, compared: Any) -> Any:
        fresh.append(frame.height)
        return fingerprint(frame, compared)

    monkeypatch.setattr(cached_tasks, "fingerprint", fingerprint_and_count)

    def table(chosen: pl.DataFrame) -> dict[str, list[Any]]:
        fresh.clear()
        result = fingerprint_table(chosen, reading.partitions, Recipe(), [], SERIAL, cache, tmp_path / "1")
        assert result.rows.tolist() == chosen["row"].to_list()
        return {name: column.tolist() for name, column in result.fingerprints._asdict().items()}

    table(rows.filter(pl.col("row") % 3 != 0))
    whole = table(rows)
    assert sum(fresh) == 50
    assert table(rows) == whole
    assert sum(fresh) == 0
    expected = fingerprint(rows, "thread")
    assert whole == {name: column.tolist() for name, column in expected._asdict().items()}


def entry(cache: Cache, folder: Path, key: str, content: str = "content") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"source-{key}"
    path.write_text(content)
    cache.store(key, {"file": path})
    return cache.folder / key


@pytest.mark.parametrize("damage", [b"CONTENT", b"", b"content and more"])
def test_a_damaged_entry_is_not_used_and_made_again(cache: Cache, tmp_path: Path, damage: bytes) -> None:
    folder = entry(cache, tmp_path / "a", "k")
    (folder / "file").unlink()
    (folder / "file").write_bytes(damage)
    assert cache.fetch("k", tmp_path / "out") is None
    assert not folder.exists()
    assert not list(tmp_path.glob("out-*"))
    entry(cache, tmp_path / "a", "k")
    files = cache.fetch("k", tmp_path / "out")
    assert files is not None
    assert files["file"].read_text() == "content"


def test_a_file_that_was_fetched_outlives_its_entry(cache: Cache, tmp_path: Path) -> None:
    entry(cache, tmp_path / "a", "k")
    files = cache.fetch("k", tmp_path / "out")
    assert files is not None
    assert [path.name for path, _ in cache.trim(0)] == ["k"]
    assert files["file"].read_text() == "content"
    assert cache.fetch("k", tmp_path / "out2") is None


def test_the_entries_used_least_recently_are_removed_first(cache: Cache, tmp_path: Path) -> None:
    for age, key in enumerate(["new", "old", "older"]):
        os.utime(entry(cache, tmp_path / "a", key), (1e9 - age, 1e9 - age))
    cache.fetch("older", tmp_path / "out")
    size = sum(file.stat().st_size for file in (cache.folder / "new").iterdir())
    assert [path.name for path, _ in cache.trim(2 * size, dry_run=True)] == ["old"]
    assert (cache.folder / "old").exists()
    cache.trim(2 * size)
    assert sorted(path.name for path in cache.folder.iterdir()) == ["new", "older"]


def test_a_folder_that_a_killed_process_left_is_removed(cache: Cache, tmp_path: Path) -> None:
    entry(cache, tmp_path / "a", "k")
    for name, age in (("killed", 1e9), ("running", None)):
        (cache.folder / f".tmp-{name}").mkdir()
        if age:
            os.utime(cache.folder / f".tmp-{name}", (age, age))
    cache.trim(1 << 30)
    assert sorted(path.name for path in cache.folder.iterdir()) == [".tmp-running", "k"]


def test_builds_that_store_fetch_and_trim_at_once_see_whole_entries(cache: Cache, tmp_path: Path) -> None:
    def work(number: int) -> list[str]:
        seen = []
        for turn in range(20):
            key = f"k{turn % 3}"
            entry(cache, tmp_path / f"w{number}", key)
            files = cache.fetch(key, tmp_path / f"w{number}" / f"out{turn}")
            seen += [files["file"].read_text()] if files else []
            cache.trim(20 if turn % 5 == 0 else 1 << 20)
        return seen

    with ThreadPoolExecutor(4) as pool:
        contents = [content for seen in pool.map(work, range(4)) for content in seen]
    assert set(contents) == {"content"}


def test_what_was_read_while_a_file_changed_is_not_kept(
    cache: Cache, source: SourceFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def change(task: ReadTask) -> Any:
        rows = partitions.read_partition(task)
        os.utime(task.file.path, (1e9, 1e9))
        return rows

    monkeypatch.setattr(cached_tasks, "read_partition", change)
    rows = CachedReader(cache)(task_of(source, tmp_path / "frames"))
    assert isinstance(rows, PartitionRows)
    assert rows.key is None
    assert not cache.folder.exists()


def test_near_duplicates_are_searched_again_only_if_something_that_decides_them_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[int] = []

    def search(conversations: pl.DataFrame, *others: Any) -> Any:
        searches.append(conversations.height)
        return remove_near_duplicates(conversations, *others)

    monkeypatch.setattr(cached_tasks, "remove_near_duplicates", search)
    texts = [*TEXTS, *(text.replace("answer 7 ", "answer seven ", 1) for text in TEXTS[:20])]
    path = guanaco_file(tmp_path, texts)

    def searches_of(**options: Any) -> int:
        searches.clear()
        make_build(tmp_path / "s", source=(path,), partition_bytes="3kB", **options)
        return len(searches)

    assert searches_of() == 1
    assert searches_of(sample=30, template="chatml", split="test=5", shard_size="1MB") == 0
    assert [
        searches_of(near_dup="0.9"),
        searches_of(near_dup_on="answer"),
        searches_of(max_chars=200),
        searches_of(system="Be kind."),
        searches_of(max_memory="900MB", force=True),
        searches_of(no_cache=True, force=True),
    ] == [1] * 6
    make_build(tmp_path / "t", source=(path,), sample=30)
    make_build(tmp_path / "s", source=(path,), partition_bytes="3kB", sample=30)
    fates, manifests = [], []
    for store in (tmp_path / "s", tmp_path / "t"):
        folder = (store / "n/latest").resolve()
        fates.append(read_fates(folder).rows())
        manifests.append(json.loads((folder / "manifest.json").read_text())["near_dup"])
    assert fates[0] == fates[1]
    assert fates[0] != []
    assert manifests[0] == manifests[1]
