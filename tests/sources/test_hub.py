"""Reading from a Hub on loopback with the real client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataprep.common.errors import InputError
from dataprep.sources.files import find_files, hash_files
from dataprep.sources.hub import is_id
from dataprep.sources.hub_files import latest_trees, select_files
from dataprep.sources.reader import read
from tests.support.hub import Hub
from tests.support.hub_writing import Fault
from tests.support.publishing import client_of
from tests.support.reading import json_lines

ROW = {"text": "### Human: hi### Assistant: yo"}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


def reading(hub: Hub, home: Path, source: str, **environment: str) -> dict[str, Any]:
    """The files and the number of rows of a source, or the sentence that refuses it."""
    with client_of(hub, home, **environment):
        try:
            read_source = read(hash_files(find_files([source])))
        except InputError as fault:
            return {"fault": str(fault)}
    rows = len(read_source.conversations) + len(read_source.messages)
    return {"files": [file.to_manifest() for file in read_source.files], "rows": rows}


def test_files_are_downloaded_unchanged_and_pinned_to_a_commit(hub: Hub, tmp_path: Path) -> None:
    names = [f"openassistant_best_replies_{split}.jsonl" for split in ("train", "eval")]
    old = hub.commit("o/guanaco", {names[0]: json_lines([ROW]), names[1]: json_lines([ROW] * 2), "README.md": b"x"})
    new = hub.commit("o/guanaco", {names[0]: json_lines([ROW] * 3)})
    for source, name, commit, rows in [
        ("o/guanaco", names[0], new, 3),
        ("o/guanaco:test", names[1], new, 2),
        ("o/guanaco@main", names[0], new, 3),
        (f"o/guanaco@{old}:train", names[0], old, 1),
    ]:
        answer = reading(hub, tmp_path, source)
        [file] = answer["files"]
        assert (file["name"], file["commit"], answer["rows"]) == (f"o/guanaco:{name}", commit, rows)
        assert len(file["digest"]) == 64 and file["format"] == "guanaco"
    assert all("README" not in file for file in answer["files"])  # of the card only the configurations are read


def test_requests_are_repeated_after_a_temporary_fault(hub: Hub, tmp_path: Path) -> None:
    hub.commit("o/r", {"train.jsonl": json_lines([ROW] * 3)})
    for number, fault in enumerate(
        [
            Fault("GET /api/datasets/o/r", 503, times=1),
            Fault("GET /api/datasets/o/r", 429, times=1, headers={"Retry-After": "1"}),
            Fault("GET /api/datasets/o/r", 0, times=1),
            Fault("HEAD .*/resolve/", 503, times=1),
            Fault("GET .*/resolve/", 0, times=1),
        ]
    ):
        hub.faults[:] = [fault]
        (tmp_path / str(number)).mkdir()  # an empty cache
        assert reading(hub, tmp_path / str(number), "o/r")["rows"] == 3
        assert fault.times == 0
    hub.faults[:] = [Fault("GET /api/datasets/o/r", 503)]
    assert "status 503 5 times" in reading(hub, tmp_path, "o/r")["fault"]


CARD = """---
configs:
- config_name: other
  data_files: other/*.jsonl
- config_name: default
  data_files:
  - split: train
    path: [a.jsonl, "more/**/*.jsonl"]
  - split: test
    path: held/*
---
"""


def test_the_default_configuration_of_the_card_selects_the_files(hub: Hub, tmp_path: Path) -> None:
    other = json_lines([{"text": "### Human: other### Assistant: no"}])
    names = ["a.jsonl", "more/b.jsonl", "more/c/d.jsonl", "held/train-of-all.jsonl"]
    there = {name: json_lines([ROW] * (n + 1)) for n, name in enumerate(names)} | {
        "other/train.jsonl": other,
        "b/train.jsonl": other,
    }
    hub.commit("o/conf", {"README.md": CARD.encode(), **there})
    for source, expected in (("o/conf", names[:3]), ("o/conf:test", names[3:])):
        assert [file["name"] for file in reading(hub, tmp_path, source)["files"]] == [
            f"o/conf:{name}" for name in expected
        ]
    assert "its splits are: test, train" in reading(hub, tmp_path, "o/conf:dev")["fault"]
    hub.commit("o/two", {"README.md": CARD.replace("default", "second").encode(), **there})
    assert "no default one (other, second)" in reading(hub, tmp_path, "o/two")["fault"]


def test_a_response_that_describes_no_data_set_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    hub.commit("o/r", {"train.jsonl": json_lines([ROW])})
    hub.faults[:] = [Fault("GET /api/datasets/o/r", 200)]
    assert "the Hub's response describes no data set" in reading(hub, tmp_path, "o/r")["fault"]


def test_files_of_other_splits_whose_names_tell_no_split_are_noted(hub: Hub, tmp_path: Path) -> None:
    card = CARD.replace("split: test", "split: extra").replace("held/*", "more.jsonl")
    hub.commit("o/extra", {"README.md": card.encode(), "a.jsonl": json_lines([ROW]), "more.jsonl": json_lines([ROW])})
    [file] = reading(hub, tmp_path, "o/extra")["files"]
    assert file["name"] == "o/extra:a.jsonl"


def test_ready_trees_are_preferred_to_rows(hub: Hub, tmp_path: Path) -> None:
    import gzip

    message = {"message_id": "a", "text": "t", "role": "prompter", "replies": []}
    hub.commit(
        "o/trees",
        {
            "2023-04-12_oasst_all.trees.jsonl.gz": b"not asked for",
            "2023-04-12_oasst_ready.trees.jsonl.gz": gzip.compress(json_lines([{"prompt": message}])),
            "data/train-00000-of-00001.parquet": b"not asked for",
        },
    )
    answer = reading(hub, tmp_path, "o/trees")
    assert answer["rows"] == 1 and answer["files"][0]["format"] == "oasst-trees"


def test_a_repository_without_readable_files_is_refused_and_its_code_is_not_run(hub: Hub, tmp_path: Path) -> None:
    hub.commit("o/script", {"script.py": b"raise SystemExit(9)", "data.bin": b"x"})
    fault = reading(hub, tmp_path, "o/script")["fault"]
    assert "no file in it can be read: its files end in .bin, .py" in fault


def test_the_pinned_commit_is_read_even_if_the_cache_has_another(hub: Hub, tmp_path: Path) -> None:
    old = hub.commit("o/moved", {"train.jsonl": json_lines([ROW] * 3)})
    assert reading(hub, tmp_path, "o/moved")["rows"] == 3
    new = hub.put(hub.repositories["o/moved"], {"notes.txt": b"x"}, "main")
    assert "no file in it can be read" in reading(hub, tmp_path, "o/moved")["fault"]
    assert "no file in it can be read" in reading(hub, tmp_path, f"o/moved@{new}")["fault"]
    answer = reading(hub, tmp_path, f"o/moved@{old}")
    assert answer["rows"] == 3 and answer["files"][0]["commit"] == old


def test_an_inaccessible_repository_is_refused_with_one_sentence(hub: Hub, tmp_path: Path) -> None:
    for name in ("open", "gated", "private"):
        hub.commit(f"o/{name}", {"train.jsonl": json_lines([ROW])})
    hub.repositories["o/gated"].gated = True
    hub.repositories["o/private"].private = True
    for source, words, environment in [
        ("o/missing", "is not on the Hub", {}),
        ("o/open@nowhere", "no revision 'nowhere'", {}),
        ("o/open:other", "no split 'other'", {}),
        ("o/gated", "accept its terms", {}),
        ("o/private", "or is private", {"HF_TOKEN": "hf_of_another_user"}),
        ("o/open", "HF_HUB_OFFLINE", {"HF_HUB_OFFLINE": "1"}),
        ("o/open", "has characters that no token has", {"HF_TOKEN": "s\u00e9cret"}),
        ("o/open", "cannot be reached", {"HF_ENDPOINT": "http://127.0.0.1:9"}),
    ]:
        fault = reading(hub, tmp_path, source, **environment)["fault"]
        assert hub.token not in fault
        assert words in fault and "\n" not in fault and "cret" not in fault
        if "token has" not in words:
            assert "there is no local file or folder" in fault
    assert reading(hub, tmp_path, "o/private")["rows"] == 1


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["data/train-0.parquet", "data/test-0.parquet", "train.jsonl"], None, ["data/train-0.parquet"]),
        (["data/train-0.parquet", "data/validation-0.parquet"], "dev", ["data/validation-0.parquet"]),
        (["b.jsonl", "a.json.gz", "dataset_infos.json", "x.csv"], None, ["a.json.gz", "b.jsonl"]),
    ],
)  # fmt: skip
def test_the_files_of_a_split_are_selected_by_name(names: list[str], split: str | None, expected: list[str]) -> None:
    assert select_files(names, split) == expected


@pytest.mark.parametrize(
    ("config", "split", "expected"),
    [
        ({"data_files": "*.jsonl"}, None, ["a.jsonl", "b.jsonl"]),
        ({"data_files": ["b.jsonl", "d/*"]}, None, ["b.jsonl", "d/c.jsonl"]),
        ({"data_files": [{"split": "validation", "path": "a.jsonl"}]}, None, ["a.jsonl"]),
        ({"data_files": [{"split": "validation", "path": "a.jsonl"}]}, "dev", ["a.jsonl"]),
    ],
)
def test_the_files_of_a_split_are_selected_by_the_card(
    config: dict[str, Any], split: str | None, expected: list[str]
) -> None:
    names = ["a.jsonl", "b.jsonl", "d/c.jsonl", "x.txt"]
    assert select_files(names, split, [{"config_name": "default", **config}]) == expected
    more = {"config_name": "more", "data_files": "d/*"}
    assert select_files(names, split, [more, {"config_name": "one", "default": True, **config}]) == expected
    with pytest.raises(ValueError, match="no default one"):
        select_files(names, split, [more, {"config_name": "one", **config}])


def test_the_latest_ready_trees_are_selected() -> None:
    names = ["2023-01-01_oasst_ready.trees.jsonl.gz", "2023-04-12_oasst_ready.trees.jsonl.gz", "x.jsonl"]
    assert latest_trees(names) == names[1:2] and latest_trees(names[2:]) == []


def test_only_sources_of_the_form_org_name_are_hub_ids() -> None:
    for source in ("org/name", "org/na.me@v1.0", "org/name@refs/pr/1:test", "org/name:train"):
        assert is_id(source)
    for source in ("name", "a/b/c", "./a/b", "/a/b", "../b", "org/name:", "org/na me"):
        assert not is_id(source)
