"""Reading from a Hub on loopback, with the real client in a process of its own (it reads its settings on import)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dataprep.sources import hub as reader
from tests.support.hub import Hub
from tests.support.hub_writing import Fault
from tests.support.reading import json_lines

ROOT = Path(__file__).parents[2]
ROW = {"text": "### Human: hi### Assistant: yo"}
PROGRAM = """
import json, sys
from dataprep.sources import reader as sources
from dataprep.common.errors import InputError
try:
    reading = sources.read(sources.hash_files(sources.find_files(sys.argv[1:])))
    rows = len(reading.conversations) + len(reading.messages)
    print(json.dumps({"files": [file.facts() for file in reading.files], "rows": rows}))
except InputError as fault:
    print(json.dumps({"fault": str(fault)}))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        yield server


def ask(hub: Hub, home: Path, source: str, **environment: str) -> dict[str, Any]:
    env = {**os.environ, **hub.environment(home), "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", PROGRAM, source], env=env, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert hub.token not in done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def test_files_are_read_as_they_are_and_pinned(hub: Hub, tmp_path: Path) -> None:
    names = [f"openassistant_best_replies_{split}.jsonl" for split in ("train", "eval")]
    old = hub.commit("o/guanaco", {names[0]: json_lines([ROW]), names[1]: json_lines([ROW] * 2), "README.md": b"x"})
    new = hub.commit("o/guanaco", {names[0]: json_lines([ROW] * 3)})
    for source, name, commit, rows in [
        ("o/guanaco", names[0], new, 3),
        ("o/guanaco:test", names[1], new, 2),
        ("o/guanaco@main", names[0], new, 3),
        (f"o/guanaco@{old}:train", names[0], old, 1),
    ]:
        answer = ask(hub, tmp_path, source)
        [file] = answer["files"]
        assert (file["name"], file["commit"], answer["rows"]) == (f"o/guanaco:{name}", commit, rows)
        assert len(file["digest"]) == 64 and file["format"] == "guanaco"
    assert all("README" not in file for file in answer["files"])  # the card is read for its configurations alone


def test_a_bad_moment_is_waited_for(hub: Hub, tmp_path: Path) -> None:
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
        (tmp_path / str(number)).mkdir()  # a cache of its own
        assert ask(hub, tmp_path / str(number), "o/r")["rows"] == 3
        assert fault.times == 0
    hub.faults[:] = [Fault("GET /api/datasets/o/r", 503)]
    assert "status 503 5 times" in ask(hub, tmp_path, "o/r")["fault"]


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


def test_the_default_configuration_of_the_card_is_followed(hub: Hub, tmp_path: Path) -> None:
    other = json_lines([{"text": "### Human: other### Assistant: no"}])
    names = ["a.jsonl", "more/b.jsonl", "more/c/d.jsonl", "held/train-of-all.jsonl"]
    there = {name: json_lines([ROW] * (n + 1)) for n, name in enumerate(names)} | {
        "other/train.jsonl": other,
        "b/train.jsonl": other,
    }
    hub.commit("o/conf", {"README.md": CARD.encode(), **there})
    for source, expected in (("o/conf", names[:3]), ("o/conf:test", names[3:])):
        assert [file["name"] for file in ask(hub, tmp_path, source)["files"]] == [f"o/conf:{name}" for name in expected]
    assert "there are: test, train" in ask(hub, tmp_path, "o/conf:dev")["fault"]
    hub.commit("o/two", {"README.md": CARD.replace("default", "second").encode(), **there})
    assert "Config name is missing" in ask(hub, tmp_path, "o/two")["fault"]  # as `datasets` says it


def test_trees_come_before_rows(hub: Hub, tmp_path: Path) -> None:
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
    answer = ask(hub, tmp_path, "o/trees")
    assert answer["rows"] == 1 and answer["files"][0]["format"] == "oasst-trees"


def test_other_repositories_go_through_datasets(hub: Hub, tmp_path: Path) -> None:
    train, test = b"instruction,input,output\na,b,c\n", b"instruction,input,output\na,b,c\nd,,e\n"
    commit = hub.commit("o/csv", {"train.csv": train, "test.csv": test})
    answer = ask(hub, tmp_path, "o/csv:test")
    assert answer["rows"] == 2
    assert (answer["files"][0]["name"], answer["files"][0]["digest"]) == ("o/csv:test", f"{commit}:test/0")
    assert "there are: test, train" in ask(hub, tmp_path, "o/csv:other")["fault"]
    hub.commit("o/script", {"script.py": b"raise SystemExit(9)"})  # never run
    assert "o/script" in ask(hub, tmp_path, "o/script")["fault"]


def test_what_cannot_be_had_is_one_sentence(hub: Hub, tmp_path: Path) -> None:
    for name in ("open", "gated", "private"):
        hub.commit(f"o/{name}", {"train.jsonl": json_lines([ROW])})
    hub.repositories["o/gated"].gated = True
    hub.repositories["o/private"].private = True
    for source, words, environment in [
        ("o/missing", "is not on the Hub", {}),
        ("o/open@nowhere", "no revision 'nowhere'", {}),
        ("o/open:other", "no split 'other'", {}),
        ("o/gated", "accept its terms", {}),
        ("o/private", "or is private", {"HF_TOKEN": "hf_of_somebody_else"}),
        ("o/open", "HF_HUB_OFFLINE", {"HF_HUB_OFFLINE": "1"}),
        ("o/open", "holds characters that no token has", {"HF_TOKEN": "s\u00e9cret"}),
        ("o/open", "cannot be reached", {"HF_ENDPOINT": "http://127.0.0.1:9"}),
    ]:
        fault = ask(hub, tmp_path, source, **environment)["fault"]
        assert words in fault and "\n" not in fault and "cret" not in fault
        assert "there is no local file or folder" in fault or "token has" in words
    assert ask(hub, tmp_path, "o/private")["rows"] == 1


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["data/train-0.parquet", "data/test-0.parquet", "train.jsonl"], None, ["data/train-0.parquet"]),
        (["data/train-0.parquet", "data/validation-0.parquet"], "dev", ["data/validation-0.parquet"]),
        (["b.jsonl", "a.json.gz", "dataset_infos.json", "x.csv"], None, ["a.json.gz", "b.jsonl"]),
        (["b.jsonl"], "test", []),
        (["constraints.csv"], None, []),
    ],
)  # fmt: skip
def test_which_files_are_read(names: list[str], split: str | None, expected: list[str]) -> None:
    assert reader.chosen(names, split) == expected


@pytest.mark.parametrize(
    ("config", "split", "expected"),
    [
        ({"data_files": "*.jsonl"}, None, ["a.jsonl", "b.jsonl"]),
        ({"data_files": ["b.jsonl", "d/*"]}, None, ["b.jsonl", "d/c.jsonl"]),
        ({"data_files": [{"split": "validation", "path": "a.jsonl"}]}, None, ["a.jsonl"]),
        ({"data_files": [{"split": "validation", "path": "a.jsonl"}]}, "dev", ["a.jsonl"]),
        ({"data_files": "x.csv"}, None, []),  # of no kind that we read
        ({"data_files": "a.jsonl", "drop_labels": True}, None, []),
        ({"data_files": [{"split": "train"}]}, None, []),
        ({"data_files": 5}, None, []),
        ({"data_dir": "d"}, None, []),
    ],
)
def test_which_files_a_card_names(config: dict[str, Any], split: str | None, expected: list[str]) -> None:
    names = ["a.jsonl", "b.jsonl", "d/c.jsonl", "x.csv"]
    assert reader.chosen(names, split, [{"config_name": "default", **config}]) == expected
    more = {"config_name": "more", "data_files": "d/*"}
    assert reader.chosen(names, split, [more, {"config_name": "one", "default": True, **config}]) == expected
    assert reader.chosen(names, split, [more, {"config_name": "one", **config}]) == []


def test_the_last_ready_trees_are_read() -> None:
    names = ["2023-01-01_oasst_ready.trees.jsonl.gz", "2023-04-12_oasst_ready.trees.jsonl.gz", "x.jsonl"]
    assert reader.trees(names) == names[1:2] and reader.trees(names[2:]) == []


def test_ids() -> None:
    for source in ("org/name", "org/na.me@v1.0", "org/name@refs/pr/1:test", "org/name:train"):
        assert reader.is_id(source)
    for source in ("name", "a/b/c", "./a/b", "/a/b", "../b", "org/name:", "org/na me"):
        assert not reader.is_id(source)
