"""Selecting the files of a Hub repository: cards are untrusted, so their size, nesting, types and patterns are bounded."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dataprep.sources.hub_files import card_configs, select_files

NAMES = ["a.jsonl", "b.jsonl", "d/c.jsonl", "x.txt"]


def card(configs: str) -> bytes:
    return f"---\nlicense: mit\nconfigs:\n{configs}\n---\n# Title\n".encode()


ALIASES = "\n".join(
    ["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"---\n" + b"x: 1\n" * 300_000 + b"---\n", "more than 1,000,000"),
        (f"---\n{ALIASES}\n---\n".encode(), "too deeply or has too many values"),
        (b"---\na: " + b"[" * 3000 + b"]" * 3000 + b"\n---\n", "too deeply"),
        (b"---\na: &a [*a, *a]\n---\n", "too many values"),
        (b"---\nconfigs: [1, 2]\n---\n", "not a list of mappings"),
        (b"---\nconfigs: yes\n---\n", "not a list of mappings"),
    ],
    ids=["size", "aliases", "nesting", "self-reference", "numbers", "boolean"],
)
def test_a_hostile_card_is_refused_at_once(data: bytes, words: str) -> None:
    began = time.process_time()
    with pytest.raises(ValueError, match=words):
        card_configs(data)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "data", [b"", b"# Title", b"---\nx: 1\n---\n", b"---\nx: [1\n---\n", b"---\n- 1\n---\n", b"\xff\xfe", b"---\nx"]
)
def test_a_card_without_configurations_or_with_invalid_yaml_selects_by_name(data: bytes) -> None:
    assert card_configs(data) == []


def test_a_few_aliases_are_expanded() -> None:
    configs = card_configs(card("- &c\n  config_name: default\n  data_files: a.jsonl\n- *c"))
    assert configs == [{"config_name": "default", "data_files": "a.jsonl"}] * 2


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"data_files": "x.txt"}, "its card names x.txt; files that can be read end in"),
        ({"data_files": "a.jsonl", "drop_labels": True}, "sets drop_labels"),
        ({"data_files": [{"split": "train"}]}, "in a known way"),
        ({"data_files": [{"split": ["a"], "path": "a.jsonl"}]}, "in a known way"),
        ({"data_files": [{"split": "train", "path": [1]}]}, "in a known way"),
        ({"data_files": 5}, "in a known way"),
        ({"data_files": []}, "in a known way"),
        ({"data_files": "a" * 2000}, "in a known way"),
        ({"data_files": ["*.jsonl"] * 2000}, "more than 1,000 patterns"),
        ({"data_files": "none/*"}, "no file in it matches"),
        ({"data_dir": "d"}, "sets data_dir"),
        ({"data_files": "a.jsonl", 5: 6}, "sets 5"),
    ],
)
def test_a_configuration_that_cannot_be_followed_is_refused(config: dict[Any, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        select_files(NAMES, None, [{"config_name": "default", **config}])


@pytest.mark.parametrize(
    ("names", "split", "words"),
    [
        (["b.jsonl"], "test", "no split 'test'"),
        (["README.md", "x.py"], None, "its files end in .md, .py"),
        ([], None, "it has no files"),
    ],
)
def test_a_repository_without_a_suitable_file_is_refused(names: list[str], split: str | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        select_files(names, split)


@pytest.mark.parametrize("pattern", ["**/" * 300 + "x", "*a" * 400, "**" * 400 + "?", "*?" * 450])
def test_patterns_take_linear_time(pattern: str) -> None:
    names = ["a" * 200 + f"/{'a/' * 50}{n}.jsonl" for n in range(300)]
    began = time.process_time()
    try:
        select_files([*names, "x.jsonl"], None, [{"data_files": pattern}])
    except ValueError as fault:
        assert any(reason in str(fault) for reason in ("matches", "too large"))
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("**", ["a.jsonl", "b.jsonl", "d/c.jsonl", "d/e/f.jsonl"]),
        ("**/*.jsonl", ["a.jsonl", "b.jsonl", "d/c.jsonl", "d/e/f.jsonl"]),
        ("*.jsonl", ["a.jsonl", "b.jsonl"]),
        ("d/*", ["d/c.jsonl"]),
        ("?.jsonl", ["a.jsonl", "b.jsonl"]),
        ("d/**", ["d/c.jsonl", "d/e/f.jsonl"]),
        ("a.jsonl", ["a.jsonl"]),
    ],
)
def test_patterns_match_as_globs(pattern: str, expected: list[str]) -> None:
    names = ["a.jsonl", "b.jsonl", "d/c.jsonl", "d/e/f.jsonl"]
    assert select_files(names, None, [{"data_files": pattern}]) == expected
