"""A build holds the same bytes whatever it runs with: partitions, workers, engine, cache."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dataprep import cached_tasks
from dataprep.common.errors import InputError, RecipeError, StoreError
from dataprep.engine import cache
from dataprep.engine.cache import CACHE_FOLDER
from dataprep.resources import Resources
from dataprep.sources import partitions
from dataprep.store.fates import read_fates
from dataprep.store.history import gc
from tests.sources.test_partitions import chat_lines
from tests.support.builds import make_build

OPTIONS: dict[str, Any] = {"max_bad": 1.0, "split": "test=30", "max_turns": 3, "roles": ("narrator=user",)}


def tree_lines() -> bytes:
    """Flat OASST messages of trees whose replies lie far from their prompts, with an orphan and a repeated message."""
    prompts = [
        {"message_id": f"p{n}", "message_tree_id": f"p{n}", "text": f"prompt {n}", "role": "prompter"}
        for n in range(40)
    ]
    replies = [
        {
            **{"message_id": f"r{n}", "parent_id": f"p{n % 41}", "message_tree_id": f"p{n % 41}", "rank": n // 41},
            **{"text": f"reply {n} " * 9, "role": "assistant", "lang": "en"},
        }
        for n in range(82)
    ]
    messages: list[dict[str, Any]] = [*prompts, *replies]
    return b"".join(json.dumps(message).encode() + b"\n" for message in [*messages, messages[3]])


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tmp_path_factory.mktemp("sources")
    (folder / "chats.jsonl").write_bytes(chat_lines(250))
    (folder / "trees.jsonl").write_bytes(tree_lines())
    return str(folder / "chats.jsonl"), str(folder / "trees.jsonl")


def digest(store: Path) -> dict[str, Any]:
    """All of a build that does not name the time or the place of its making."""
    folder = (store / "n/latest").resolve()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.pop("created")
    return {"manifest": manifest, "fates": read_fates(folder).rows()}


@pytest.fixture(scope="module")
def expected(sources: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    store = tmp_path_factory.mktemp("expected")
    make_build(store, source=sources, workers=1, **OPTIONS)
    assert not (store / CACHE_FOLDER).exists()
    return digest(store)


@pytest.mark.parametrize(("workers", "partition_bytes"), [(1, "2kB"), (2, "7kB"), (4, "2kB"), (4, "60kB")])
def test_partitions_and_workers_do_not_change_a_build(
    sources: tuple[str, ...], expected: dict[str, Any], tmp_path: Path, workers: int, partition_bytes: str
) -> None:
    make_build(tmp_path, source=sources, workers=workers, partition_bytes=partition_bytes, no_cache=True, **OPTIONS)
    assert digest(tmp_path) == expected
    assert sorted(path.name for path in (tmp_path / "n").iterdir() if path.name.startswith(".tmp")) == []
    assert not (tmp_path / CACHE_FOLDER).exists()


def test_a_build_from_the_cache_equals_one_without(
    sources: tuple[str, ...], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_build(tmp_path, source=sources, partition_bytes="5kB", template="chatml", sample=50, **OPTIONS)

    def no_reading(task: object) -> None:
        raise AssertionError("a partition is read again")

    monkeypatch.setattr(cached_tasks, "read_partition", no_reading)
    make_build(tmp_path, source=sources, partition_bytes="5kB", **OPTIONS)
    cached = digest(tmp_path)
    assert cached["manifest"].pop("parent")
    assert cached == {**expected, "manifest": {k: v for k, v in expected["manifest"].items() if k != "parent"}}
    assert len(list((tmp_path / CACHE_FOLDER).iterdir())) > 10
    removed = gc(tmp_path, cache_bytes=1)
    assert len(removed) > 10
    assert list((tmp_path / CACHE_FOLDER).iterdir()) == []


def test_ray_gives_the_same_build_even_if_a_worker_is_killed(
    sources: tuple[str, ...], expected: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("ray")
    from dataprep.engine import ray_cluster

    killed: list[int] = []
    original = ray_cluster.RayExecutor.map

    def kill_a_worker_then_map(self: Any, function: Any, tasks: Any) -> Any:
        if not killed:
            killed.extend(original(self, _pid, [None]))
            os.kill(killed[0], signal.SIGKILL)
        return original(self, function, tasks)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ray_cluster.RayExecutor, "map", kill_a_worker_then_map)
        make_build(tmp_path, source=sources, engine="ray", workers=2, partition_bytes="60kB", **OPTIONS)
    assert len(killed) == 1
    assert digest(tmp_path) == expected


def _pid(task: None) -> int:
    return os.getpid()


def test_a_store_that_ray_workers_cannot_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from dataprep.engine.ray_cluster import RayExecutor

    class Elsewhere(RayExecutor):
        workers = 1

        def __init__(self) -> None:
            pass

        def map(self, function: Any, tasks: Any) -> Any:
            return (function((path.with_name("missing"), content)) for path, content in tasks)

    with pytest.raises(StoreError, match=r"cannot read .*: give a --store on a file system that all machines"):
        Elsewhere().require_shared(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_changes_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(chat_lines(60))

    def append_and_read(task: partitions.ReadTask) -> Any:
        if not task.start:
            with path.open("ab") as file:
                file.write(b"\n")
        return partitions.read_partition(task)

    monkeypatch.setattr(cached_tasks, "read_partition", append_and_read)
    with pytest.raises(InputError, match=r"chats\.jsonl changed while it was read: build again"):
        make_build(tmp_path / "s", source=(str(path),), partition_bytes="3kB", **OPTIONS)
    assert not list((tmp_path / "s").glob("n/.tmp-*"))


@pytest.mark.parametrize("writer", ["write_frame", "_write_header"])
def test_a_full_disk_among_the_scratch_files_is_one_sentence_and_leaves_nothing(
    sources: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if writer == "write_frame":
        monkeypatch.setattr(partitions, "write_frame", full)
    else:
        monkeypatch.setattr(cached_tasks, "_write_header", full)
    with pytest.raises(StoreError, match=r"could not be written \(the disk is full\): free some space"):
        make_build(tmp_path, source=sources, partition_bytes="5kB", no_cache=True, **OPTIONS)
    assert [path.name for path in (tmp_path / "n").iterdir()] == [".lock"]


def test_a_full_disk_in_the_cache_does_not_stop_a_build(
    sources: tuple[str, ...], expected: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path) -> str:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(cache, "_checksum", full)
    make_build(tmp_path, source=sources, partition_bytes="9kB", **OPTIONS)
    assert digest(tmp_path) == expected
    assert list((tmp_path / CACHE_FOLDER).iterdir()) == []


_KILLED_BUILD = """
import os, sys
from pathlib import Path
from dataprep import cached_tasks, writing
from tests.support.builds import make_build
def die(*arguments, **options):
    os.kill(os.getpid(), 9)
setattr({"read_partition": cached_tasks, "render_rows": writing}[sys.argv[3]], sys.argv[3], die)
make_build(Path(sys.argv[1]), source=(sys.argv[2],), partition_bytes="3kB", max_bad=1.0)
"""


@pytest.mark.parametrize("moment", ["read_partition", "render_rows"])
def test_the_build_after_a_killed_one_is_whole_and_removes_its_scratch_files(tmp_path: Path, moment: str) -> None:
    path = tmp_path / "chats.jsonl"
    path.write_bytes(chat_lines(60))
    done = subprocess.run([sys.executable, "-c", _KILLED_BUILD, str(tmp_path / "s"), str(path), moment], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list((tmp_path / "s").glob("n/.tmp-*/scratch"))
    make_build(tmp_path / "s", source=(str(path),), partition_bytes="3kB", max_bad=1.0)
    assert not list((tmp_path / "s").glob("n/.tmp-*"))
    make_build(tmp_path / "t", source=(str(path),), max_bad=1.0)
    assert digest(tmp_path / "s") == digest(tmp_path / "t")


@pytest.mark.parametrize(
    ("max_memory", "message"),
    [
        ("100MB", r"with partitions of 5kB takes at least 512 MiB, but --max-memory allows 95 MiB: allow more"),
        ("512.1MiB", r"The tables of 220 conversations take about 0 MiB beside 512 MiB .* allows 512 MiB"),
    ],
)
def test_a_build_that_does_not_fit_into_memory_says_how_much_it_takes(
    sources: tuple[str, ...], tmp_path: Path, max_memory: str, message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        make_build(tmp_path, source=sources[:1], partition_bytes="5kB", max_memory=max_memory, **OPTIONS)


def test_options_of_the_machine_are_checked() -> None:
    for wrong in ({"workers": 0}, {"ray_address": "auto"}, {"partition_bytes": "x"}, {"cache_size": ""}):
        with pytest.raises(RecipeError):
            Resources(**wrong)
    assert Resources(max_memory="2GB").memory == 2 * 10**9
