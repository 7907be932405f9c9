"""Splits of the sources: held-out files and rows do not become training data."""

from __future__ import annotations

from pathlib import Path

import pytest

from dataprep.common.errors import InputError
from dataprep.sources.files import find_files
from dataprep.sources.options import ReadOptions
from dataprep.sources.reader import read
from dataprep.sources.splits import is_of_split, split_of
from tests.support.reading import fates, json_lines, read_bytes

CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def folder(path: Path, *names: str) -> Path:
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(json_lines([CHAT]))
    return path


def names(source: str, **options: bool) -> list[str]:
    return [file.name for file in find_files([source], **options)]


def test_of_a_folder_with_splits_only_the_training_split_is_read(tmp_path: Path) -> None:
    folder(tmp_path, "train.jsonl", "test.jsonl", "more.jsonl", "validation/a.jsonl")
    reading = read(find_files([str(tmp_path)]))
    assert [file.name for file in reading.files] == ["more.jsonl", "train.jsonl"]
    assert reading.notes == [
        f"{tmp_path}: only its training split is read. Left out, as of other splits (test, validation): "
        f"test.jsonl, validation/a.jsonl. --source {tmp_path}:test reads one of them, and --split keep holds them out."
    ]


def test_a_glob_reads_the_training_split_too(tmp_path: Path) -> None:
    folder(tmp_path, "x_train.jsonl", "x_eval.jsonl")
    assert names(f"{tmp_path}/*.jsonl") == ["x_train.jsonl"]
    assert names(f"{tmp_path}/*eval.jsonl") == ["x_eval.jsonl"]


@pytest.mark.parametrize("files", [["test.jsonl"], ["a.jsonl", "test_cases.jsonl"], ["a.jsonl", "b.jsonl"]])
def test_a_folder_without_a_training_split_is_read_whole(tmp_path: Path, files: list[str]) -> None:
    assert names(str(folder(tmp_path, *files))) == files
    assert find_files([str(tmp_path)])[0].note == ""


def test_a_source_may_name_a_split(tmp_path: Path) -> None:
    folder(tmp_path, "train/a.jsonl", "test/a.jsonl", "dev/a.jsonl", "gen/a.jsonl")
    for split, expected in (("test", "test/a.jsonl"), ("validation", "dev/a.jsonl"), ("gen", "gen/a.jsonl")):
        assert names(f"{tmp_path}:{split}") == [expected]
    with pytest.raises(InputError, match="has no split 'other'; its splits are: test, train, validation"):
        names(f"{tmp_path}:other")
    with pytest.raises(InputError, match="only folders have splits"):
        names(f"{tmp_path}/train/a.jsonl:test")


def test_all_splits_are_read_to_be_kept(tmp_path: Path) -> None:
    folder(tmp_path, "train.jsonl", "eval.jsonl", "more.jsonl")
    files = find_files([str(tmp_path)], all_splits=True)
    frame = read(files, ReadOptions(keep_split=True)).conversations
    assert dict(frame.select("source", "split").rows()) == {
        "train.jsonl": "train",
        "eval.jsonl": "test",
        "more.jsonl": "train",
    }
    assert "split" in files[0].to_manifest() and "split" not in files[1].to_manifest()


def test_rows_of_another_split_are_not_trained(tmp_path: Path) -> None:
    splits = ["train", "test", None, "train_sft", "Validation"]
    data = json_lines({**CHAT, "split": split} for split in splits)
    reading = read_bytes(tmp_path, "d.jsonl", data)
    assert reading.conversations["line"].to_list() == [1, 3, 4] and "split" not in reading.conversations.columns
    assert fates(reading) == [(2, "other_split"), (5, "other_split")]
    kept = read_bytes(tmp_path, "d.jsonl", data, keep_split=True).conversations
    assert kept["split"].to_list() == ["train", "test", "train", "train_sft", "validation"]


def test_rows_of_a_split_that_the_source_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "test.jsonl").write_bytes(json_lines([{**CHAT, "split": "test"}]))
    (tmp_path / "train.jsonl").write_bytes(json_lines([{**CHAT, "split": "train"}]))
    reading = read(find_files([f"{tmp_path}:test"]))
    assert reading.conversations["source"].to_list() == ["test.jsonl"] and reading.fates.is_empty()


def test_splits_are_found_as_words_of_a_path() -> None:
    assert split_of("data/train-00000-of-00001.parquet") == "train"
    assert split_of("test/train.jsonl") == "train" and split_of("test/a.jsonl") == "test"
    assert split_of("best_replies_eval.jsonl") == "test" and split_of("latest.jsonl") == ""
    assert is_of_split("x/dev.jsonl", "validation") and not is_of_split("x/devil.jsonl", "validation")
