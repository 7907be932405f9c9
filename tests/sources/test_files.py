"""Resolving sources to files: folders, globs, data sets that save_to_disk wrote, digests and progress."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from dataprep.common.errors import InputError
from dataprep.sources.files import find_files, hash_files
from dataprep.sources.reader import read
from tests.support.commands import dataprep
from tests.support.reading import json_lines, read_path, turns, write

ROW = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yo"}]}


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(json_lines([ROW]))
    return folder


def test_a_folder_gives_its_data_files_sorted(tmp_path: Path) -> None:
    fill(
        tmp_path,
        "b.jsonl",
        "a/z.jsonl",
        "a/y.json",
        ".cache/x.jsonl",
        ".hidden.jsonl",
        "notes.txt",
        "dataset_info.json",
    )
    assert [file.name for file in find_files([str(tmp_path)])] == ["a/y.json", "a/z.jsonl", "b.jsonl"]


def test_several_sources_keep_their_order_and_each_file_is_read_once(tmp_path: Path) -> None:
    fill(tmp_path, "b.jsonl", "a.jsonl", "sub/c.jsonl")
    sources = [str(tmp_path / "sub" / "c.jsonl"), str(tmp_path / "*.jsonl"), str(tmp_path / "a.jsonl")]
    files = find_files(sources)
    assert [file.name for file in files] == ["c.jsonl", "a.jsonl", "b.jsonl"]
    reading = read(files)
    assert reading.conversations.select("file", "source", "line").rows() == [
        (0, "c.jsonl", 1),
        (1, "a.jsonl", 1),
        (2, "b.jsonl", 1),
    ]
    assert [file.name for file in find_files([str(tmp_path / "**" / "*.jsonl")])] == ["a.jsonl", "b.jsonl", "c.jsonl"]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("missing.jsonl", "no file or folder"),
        ("org/name.jsonl", "no file or folder"),
        ("a/b/c", "not a Hub id"),
        ("*.jsonl", "No data file matches"),
        (".", "holds no data file"),
    ],
)
def test_a_missing_source_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=words):
        find_files([source])


def test_the_training_shards_of_a_saved_dataset_dict_are_read(tmp_path: Path) -> None:
    import datasets

    data = datasets.Dataset.from_list([ROW, ROW])
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "saved")
    fill(tmp_path / "saved", "manifest.json")
    (tmp_path / "saved" / "train" / "cache-1.arrow").write_bytes(b"not part of the data")
    reading = read_path(tmp_path / "saved")
    assert [file.name for file in reading.files] == ["train/data-00000-of-00001.arrow"]
    assert turns(reading) == [[("user", "hi"), ("assistant", "yo")]] * 2
    assert turns(read_path(tmp_path / "saved" / "train")) == turns(reading)
    held_out = read_path(f"{tmp_path / 'saved'}:test")
    assert [file.name for file in held_out.files] == ["test/data-00000-of-00001.arrow"]


def test_files_beside_a_saved_data_set_are_read_too(tmp_path: Path) -> None:
    import datasets

    datasets.Dataset.from_list([ROW]).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "cache-1.arrow").write_bytes(b"not part of the data")
    fill(tmp_path, "more.jsonl", "else/rows.jsonl", "else/state.json")  # not written by datasets
    names = ["else/rows.jsonl", "more.jsonl", "saved/data-00000-of-00001.arrow"]
    assert [file.name for file in find_files([str(tmp_path)])] == names
    (tmp_path / "saved" / "state.json").write_text("{}")
    with pytest.raises(InputError, match="saved/state.json does not name its data files"):
        find_files([str(tmp_path)])


def test_a_missing_saved_split_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, "more.jsonl")
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    with pytest.raises(InputError, match="train/state.json does not name its data files"):
        find_files([str(tmp_path)])


def test_files_are_hashed_and_read_with_progress_in_bytes(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", "b.jsonl")
    progress: list[int] = []
    files = hash_files(find_files([str(tmp_path)]), progress.append)
    size = (tmp_path / "a.jsonl").stat().st_size
    assert [file.digest for file in files] == [hashlib.sha256(json_lines([ROW])).hexdigest()] * 2
    assert progress == [size, 2 * size]
    progress.clear()
    reading = read(files, advance=progress.append)
    assert progress[-1] == 2 * size and progress == sorted(progress)
    assert reading.files[0].to_manifest() == {
        "name": "a.jsonl",
        "bytes": size,
        "digest": files[0].digest,
        "commit": "",
        "format": "messages",
        "records": 1,
    }


def test_files_with_the_same_name_get_their_folders_in_front(tmp_path: Path) -> None:
    paths = [tmp_path / place / "rows.jsonl" for place in ("a/x", "b/x", "c/y")] + [tmp_path / "other.jsonl"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}\n")
    names = [file.name for file in find_files([*map(str, paths), str(paths[0])])]
    assert names == ["a/x/rows.jsonl", "b/x/rows.jsonl", "y/rows.jsonl", "other.jsonl"]


def test_links_are_named_after_themselves_and_not_their_targets(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / f"blob-{place}").write_text("{}\n")
        (tmp_path / place / "rows.jsonl").symlink_to(tmp_path / f"blob-{place}")
    paths = [str(tmp_path / place / "rows.jsonl") for place in ("a", "b")]
    assert [file.name for file in find_files(paths)] == ["a/rows.jsonl", "b/rows.jsonl"]


@pytest.mark.parametrize(
    "source",
    ["https://user:hf_TOKEN@host.org/d.jsonl", "https://host.org/d.jsonl?token=hf_TOKEN", "s3://hf_TOKEN@bucket/x?a#b"],
)
def test_a_url_is_refused_without_repeating_its_token(source: str) -> None:
    with pytest.raises(InputError, match="is a URL") as refusal:
        find_files([source])
    assert "TOKEN" not in str(refusal.value)


@pytest.mark.parametrize("option", ["--source", "--decontaminate", "--template", "--tokenizer"])
def test_no_command_repeats_the_token_of_a_url(tmp_path: Path, option: str) -> None:
    source = write(tmp_path, "jsonl", [{"text": "### Human: hi### Assistant: yo"}])
    url = "https://user:hf_TOKEN@host.org/a?key=TOKEN"
    arguments = ["build", "--source", str(source), "--store", str(tmp_path), option, url]
    done = dataprep(*arguments, "--json")
    assert done.returncode in (1, 2) and "TOKEN" not in done.stdout + done.stderr


@pytest.mark.parametrize("name", ["../outside.arrow", "/etc/passwd", "a/../../outside.arrow", ".."])
def test_a_saved_data_set_cannot_name_files_outside_of_its_folder(tmp_path: Path, name: str) -> None:
    import datasets

    datasets.Dataset.from_list([ROW]).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved" / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    with pytest.raises(InputError, match="which is not in its folder"):
        find_files([str(tmp_path / "saved")])
