"""What a store lists, what a diff says and why, and what gc takes and leaves."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest

from dataprep import contract
from dataprep.common.errors import DamagedBuild, StoreError
from dataprep.contract import open_build
from dataprep.store import builds as store
from dataprep.store import history
from tests.support.builds import guanaco_file, guanaco_text, make_build
from tests.support.commands import dataprep, dataprep_error

QUICK = {"gate": "off", "near_dup": "off"}
PAIRS = [guanaco_text(f"question {n}", f"answer {n}") for n in range(30)]


def build(place: Path, texts: list[str] = PAIRS, **options: object) -> Path:
    path = make_build(place / "store", source=(guanaco_file(place, texts),), **QUICK | options).path
    assert path is not None
    return path


def difference(old: Path, new: Path) -> history.Difference:
    return history.diff(open_build(old), open_build(new))


def test_the_list_tells_each_version_and_which_is_latest(tmp_path: Path) -> None:
    old, new = build(tmp_path), build(tmp_path, split="test=5")
    found = {facts["version"]: facts for facts in history.listing(tmp_path / "store")}
    assert list(found) in ([old.name, new.name], [new.name, old.name])  # made in the same second
    assert (found[new.name]["latest"], found[old.name]["latest"]) == (True, False)
    assert found[new.name]["parent"] == old.name
    assert found[new.name]["splits"] == {"train": 25, "test": 5}
    files = [path for path in new.rglob("*") if path.is_file() and path.name != contract.MANIFEST]
    assert found[new.name]["bytes"] == sum(path.stat().st_size for path in files)
    (old / contract.MANIFEST).write_text("{")
    told = dataprep("list", "--store", tmp_path / "store")
    assert "25 + 5" in told.stdout and "cannot be read" in told.stdout
    assert len(json.loads(dataprep("list", "--json", "--store", tmp_path / "store").stdout)) == 2
    assert "no build" in dataprep("list", "--store", tmp_path / "none").stderr


def test_a_version_that_is_mended_keeps_its_parent(tmp_path: Path) -> None:
    paths = [build(tmp_path), build(tmp_path, sample=5)]
    for path, parent in zip(paths, (None, paths[0].name), strict=True):
        shard = next(path.glob("train/*.arrow"))
        shard.write_bytes(shard.read_bytes()[:-1])
        options = {"sample": 5} if parent else {}
        assert build(tmp_path, force=True, **options) == path
        assert open_build(path).manifest.facts["parent"] == parent
    (paths[1] / contract.MANIFEST).write_text("{")
    build(tmp_path, sample=5, force=True)
    assert open_build(paths[1]).manifest.facts["parent"] is None


def test_a_diff_names_the_rule_of_each_row(tmp_path: Path) -> None:
    texts = [*PAIRS, guanaco_text("short", "a"), guanaco_text("asked", "told", "and then?")]
    old = build(tmp_path, texts)
    new = build(tmp_path, [*texts[1:], guanaco_text("brand new", "row")], min_chars=8)
    found = difference(old, new)
    assert found.rows == (32, 31)
    assert history.by_rule(found.removed) == {history.NOT_IN_INPUT: 1, "too_short": 1}
    assert history.by_rule(found.added) == {history.NOT_IN_INPUT: 1}
    assert found.changed.is_empty()
    assert found.recipe["min_chars"] == (None, 8)
    assert set(found.recipe) == {"min_chars", "contents of sources"}
    assert difference(new, old).added["rule"].to_list().count("too_short") == 1


def test_a_diff_tells_samples_templates_splits_and_repairs_apart(tmp_path: Path) -> None:
    whole, part = build(tmp_path), build(tmp_path, sample=10)
    assert history.by_rule(difference(whole, part).removed) == {"not_sampled": 20}
    assert history.by_rule(difference(whole, build(tmp_path, template="chatml")).changed) == {history.TEMPLATE: 30}
    moved = difference(whole, build(tmp_path, split="test=4"))
    assert history.by_rule(moved.changed) == {history.SPLIT: 4}
    assert moved.changed["detail"].unique().to_list() == ["train to test"]
    same = difference(whole, whole)
    assert same.recipe == {} and all(f.is_empty() for f in (same.added, same.removed, same.changed))


def test_a_diff_names_the_repair_that_changed_a_row(tmp_path: Path) -> None:
    texts = [*PAIRS, guanaco_text("what is [INST] here", "a marker")]
    kept, escaped = (build(tmp_path, texts, control_tokens=how) for how in ("keep", "escape"))
    found = difference(kept, escaped)
    [(row, rule)] = found.changed.select("id", "rule").rows()
    assert rule == "escaped_control_token" and found.recipe == {"control_tokens": ("keep", "escape")}
    assert difference(escaped, kept).changed["rule"].to_list() == [rule]
    dropped = build(tmp_path, texts)
    assert difference(escaped, dropped).removed.select("id", "rule").rows() == [(row, "control_token")]


def chats(place: Path, name: str = "chats.jsonl", **answers: str) -> Path:
    """A version of conversations `one` (with a system text), `two` and `three`; `answers` by id."""
    texts = {"one": "a", "two": "b", "three": "c"} | answers
    own = [{"role": "system", "content": "My own."}]
    rows = [
        {
            "id": i,
            "messages": own * (i == "one") + [{"role": "user", "content": "q"}, {"role": "assistant", "content": t}],
        }
        for i, t in texts.items()
    ]
    (place / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return place / name


def test_a_diff_tells_the_system_option_and_another_file_name_from_other_input(tmp_path: Path) -> None:
    def make_of(source: Path, **options: object) -> Path:
        path = make_build(tmp_path / "store", source=(str(source),), **QUICK | options).path
        assert path is not None
        return path

    plain = make_of(chats(tmp_path))
    brief, long = (make_of(chats(tmp_path), system=text) for text in ("Be brief.", "Be long."))
    for old, new in ((plain, brief), (brief, plain), (brief, long)):
        assert dict(difference(old, new).changed.select("id", "rule").rows()) == {"two": "system", "three": "system"}
    edited = make_of(chats(tmp_path, two="other"), system="Be brief.")
    found = difference(plain, edited)
    assert dict(found.changed.select("id", "rule").rows()) == {"two": history.INPUT, "three": history.SYSTEM_TEXT}
    assert found.recipe["system"] == (None, "Be brief.")
    assert dict(difference(brief, edited).changed.select("id", "rule").rows()) == {"two": history.INPUT}
    renamed = difference(plain, make_of(chats(tmp_path, "renamed.jsonl")))
    assert renamed.changed["rule"].to_list() == [history.SOURCE] * 3
    restored = difference(make_of(chats(tmp_path)), make_of(chats(tmp_path, "renamed.jsonl"), template="chatml"))
    assert restored.changed["rule"].to_list() == [history.TEMPLATE] * 3


def test_the_commands_diff_and_gc(tmp_path: Path) -> None:
    old, new = build(tmp_path), build(tmp_path, sample=10)
    place = ("--store", tmp_path / "store")
    told = dataprep("diff", f"n@{old.name}", "n", *place).stdout
    assert "sample: none -> 10" in told and "- 20 removed: not_sampled 20" in told and "15 more" in told
    found = json.loads(dataprep("diff", old, new, "--json").stdout)
    assert len(found["removed"]) == 20 and found["rules"]["removed"] == {"not_sampled": 20}
    assert "Did you mean" in dataprep_error(1, "diff", f"n@{old.name[:-1]}x", "n", *place)
    assert str(old) in dataprep("gc", "--keep", "1", "--dry-run", *place).stdout
    assert old.is_dir()
    assert json.loads(dataprep("gc", "--keep", "1", "--json", *place).stdout)["folders"][0]["path"] == str(old)
    assert (old.exists(), new.is_dir()) == (False, True)
    assert "--keep is -1" in dataprep_error(1, "gc", "--keep", "-1", *place)


def test_gc_leaves_latest_the_newest_and_what_was_trained_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    paths = [build(tmp_path, sample=n) for n in range(1, 7)]
    for age, path in enumerate(paths):  # all were made within a second or two
        facts = json.loads((path / contract.MANIFEST).read_bytes())
        (path / contract.MANIFEST).write_text(json.dumps(facts | {"created": f"2026-01-0{age + 1}"}))
    build(tmp_path, sample=2)  # there already: becomes latest again
    inside, beside, here = tmp_path / "store/runs/a", tmp_path / "runs/b", tmp_path / "away/runs/c"
    for folder, path in ((inside, paths[0]), (beside, paths[2]), (here, paths[3])):
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({"bond": {"build": "n", "version": path.name}}))
    gone = history.gc(tmp_path / "store", 1)
    assert [path for path, _ in gone] == [paths[4], paths[3]]  # not run from there: ./away/runs is another place's
    assert store.versions(tmp_path / "store", "n") == sorted(paths[n].name for n in (0, 1, 2, 5))
    assert not list((tmp_path / "store/n").glob(".tmp-*"))
    assert store.latest_version(tmp_path / "store", "n") == paths[1].name
    (beside / "run.json").write_text("{}")
    with pytest.raises(StoreError, match="nothing is removed"):
        history.gc(tmp_path / "store", 0)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"template": None}, "holds no dict as template"),
        ({"recipe": None}, "holds no dict as recipe"),
        ({"created": None}, "holds no str as created"),
        ({"splits": []}, "holds no dict as splits"),
        ({"splits": {"train": {}}}, "lacks rows, shards in splits.train"),
        ({"splits": {"train": {"rows": "x", "shards": []}}}, "holds no int as splits.train.rows"),
        ({"splits": {"train": {"rows": 1, "shards": [[]]}}}, "holds no dict as splits.train.shards[0]"),
        ({"files": []}, "holds no dict as files"),
        ({"files": {"README.md": {}}}, "lacks bytes, sha256 in files.README.md"),
        ({"sources": [{"name": "x"}]}, "lacks digest in sources[0]"),
        ({"libraries": None}, "holds no dict as libraries"),
        ({"contract": True}, "names no contract"),
    ],
)
def test_one_malformed_manifest_is_told_and_hides_no_other(
    tmp_path: Path, wrong: dict[str, object], words: str
) -> None:
    good, bad = build(tmp_path), build(tmp_path, sample=5)
    facts = json.loads((bad / contract.MANIFEST).read_bytes())
    (bad / contract.MANIFEST).write_text(json.dumps(facts | wrong))
    found = {facts["version"]: facts for facts in history.listing(tmp_path / "store")}
    assert words in found[bad.name]["problem"] and found[good.name]["rows"] == 30
    assert [path for path, _ in history.gc(tmp_path / "store", 0)] == [good]
    with pytest.raises(DamagedBuild, match=re.escape(words)):
        open_build(bad)


def test_gc_takes_what_killed_builds_left_and_leaves_live_ones_and_unreadable_ones(tmp_path: Path) -> None:
    path, home = build(tmp_path), tmp_path / "store/n"
    (home / ".tmp-dead").mkdir()
    (home / ".tmp-dead/part").write_bytes(b"12345")
    (path / contract.MANIFEST).write_text("{")
    with store.new_version(tmp_path / "store", "n") as live:
        (home / ".tmp-dead").mkdir(exist_ok=True)  # new_version cleaned it
        (home / ".tmp-dead/part").write_bytes(b"12345")
        assert history.gc(tmp_path / "store", 0, dry_run=True) == [(home / ".tmp-dead", 5)]
        assert (home / ".tmp-dead").is_dir()
        assert history.gc(tmp_path / "store", 0) == [(home / ".tmp-dead", 5)]
        assert live.is_dir() and path.is_dir() and not (home / ".tmp-dead").exists()


def old_enough(path: Path) -> None:
    """Give all files of a build times of long ago: what was just written is not remembered."""
    then = time.time_ns() - 10**11
    for file in path.rglob("*"):
        os.utime(file, ns=(then, then))


def test_checksums_are_remembered_until_a_size_or_a_time_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build(tmp_path)
    reads: list[Path] = []
    real = contract.sha256_of
    monkeypatch.setattr(contract, "sha256_of", lambda file: reads.append(file) or real(file))
    open_build(path)
    open_build(path)
    assert len(reads) % 2 == 0 and reads  # just written: looked at twice
    monkeypatch.setattr(contract, "_COARSEST_CLOCK", -(10**12))  # as if it had been written long ago
    old_enough(path)
    open_build(path)
    reads.clear()
    open_build(path)
    assert not reads
    shard = next(path.glob("train/*.arrow"))
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    times = shard.stat()
    shard.write_bytes(data)
    os.utime(shard, ns=(times.st_atime_ns, times.st_mtime_ns))  # the time of its entry tells all the same
    with pytest.raises(DamagedBuild, match=shard.name):
        open_build(path)
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    open_build(path)
    reads.clear()
    assert dataprep("verify", path).returncode == 0
    contract.remembered(path).write_text("[]")
    open_build(path)
    assert reads


def test_a_place_that_cannot_be_written_is_read_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(tmp_path)
    monkeypatch.setattr(contract, "_COARSEST_CLOCK", -(10**12))
    monkeypatch.setattr(contract, "remembered", lambda folder: tmp_path / "none/there.json")
    assert open_build(path).splits["train"].num_rows == 30
