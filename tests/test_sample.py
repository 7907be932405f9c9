"""The bundled sample: its script reproduces it, and it has exactly the faults that its README counts."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from tests.support.paths import ROOT

FOLDER = ROOT / "data" / "sample"
FILE = FOLDER / "oasst_sample.trees.jsonl.gz"
TOKENS = re.compile(r"</?s>|\[/?INST\]|<</?SYS>>|<\|im_start\|>")

Message = dict[str, Any]
Tree = dict[str, Any]


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return gzip.decompress(FILE.read_bytes()).decode().splitlines()


@pytest.fixture(scope="module")
def trees(lines: list[str]) -> list[Tree]:
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def counts_in_readme() -> dict[str, int]:
    """The counts in the README."""
    rows = re.findall(r"^\| (\w+) \| (\d+) \|", (FOLDER / "README.md").read_text("utf-8"), flags=re.MULTILINE)
    return {name: int(count) for name, count in rows}


def messages(message: Message) -> Iterator[Message]:
    yield message
    for reply in message["replies"]:
        yield from messages(reply)


def best_path(tree: Tree) -> list[Message]:
    path = [tree["prompt"]]
    while path[-1]["replies"]:
        path.append(path[-1]["replies"][0])
    return path


def runs(tree: Tree) -> frozenset[tuple[str, ...]]:
    """Runs of five words, or of five characters in Chinese and Japanese."""
    text = "\n".join(message["text"] for message in best_path(tree)).lower()
    units = list(text) if tree["prompt"]["lang"] in ("zh", "ja") else text.split()
    return frozenset(tuple(units[place : place + 5]) for place in range(max(1, len(units) - 4)))


def similar_pairs(trees: list[Tree], threshold: float) -> list[tuple[int, int]]:
    """Pairs of trees whose best paths have a Jaccard similarity of their runs of at least `threshold`."""
    shingles = [runs(tree) for tree in trees]
    positions: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, shingle in enumerate(shingles):
        for run in shingle:
            positions[run].append(place)
    shared = Counter(pair for places in positions.values() for pair in combinations(places, 2))
    return [(a, b) for (a, b), n in shared.items() if n >= threshold * (len(shingles[a]) + len(shingles[b]) - n)]


def normalised(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def conversation(tree: Tree) -> tuple[tuple[str, str], ...]:
    """All messages of a tree, without differences in case, width and white space."""
    return tuple((message["role"], normalised(message["text"])) for message in messages(tree["prompt"]))


def faults(tree: Tree) -> Iterator[str]:
    """Names of the faults that a tree has by itself."""
    prompt, path, everything = tree["prompt"], best_path(tree), list(messages(tree["prompt"]))
    ids = {message["message_id"] for message in everything}
    children = [(parent, reply) for parent in everything for reply in parent["replies"]]
    strays = [reply["parent_id"] for parent, reply in children if reply["parent_id"] != parent["message_id"]]
    texts = [message["text"] for message in everything]
    yield from (f"{which}_reply_deleted" for which in _marked(prompt, "deleted", True))
    yield from (f"{which}_reply_rejected" for which in _marked(prompt, "review_result", False))
    checks = {
        "prompt_deleted": prompt["deleted"],
        "prompt_rejected": not prompt["review_result"],
        "dangling_question": len(path) > 1 and path[-1]["role"] == "prompter",
        "prompt_only": not prompt["replies"],
        "control_tokens": any(TOKENS.search(text) for text in texts),
        "empty_turn": any(message["text"] == "" for message in path),
        "blank_turn": any(message["text"] and not message["text"].strip() for message in path),
        "missing_fields": not any("labels" in message for message in everything),
        "not_ready": tree["tree_state"] != "ready_for_export",
        "orphan_elsewhere": any(stray in ids for stray in strays),
        "orphan_nowhere": any(stray not in ids for stray in strays),
        "replacement_run": any("\ufffd" * 4 in text for text in texts),
        "nul": any("\0" in text for text in texts),
        "prompter_after_prompter": any(parent["role"] == reply["role"] for parent, reply in children),
    }
    yield from (name for name, holds in checks.items() if holds)


def _marked(prompt: Message, field: str, value: bool) -> Iterator[str]:
    for place, reply in enumerate(prompt["replies"]):
        if reply[field] is value:
            yield "other" if place else "best"


def test_the_script_reproduces_the_committed_bytes_and_the_counts_of_the_readme(tmp_path: Path) -> None:
    out = tmp_path / "again.jsonl.gz"
    command = [sys.executable, str(FOLDER / "make_sample.py"), "--out", str(out)]
    printed = subprocess.run(command, check=True, capture_output=True, encoding="utf-8", env={"PYTHONUTF8": "1"})
    assert gzip.decompress(out.read_bytes()) == gzip.decompress(FILE.read_bytes())
    readme = (FOLDER / "README.md").read_text("utf-8")
    for line in printed.stdout.splitlines():
        assert line in readme


def test_the_gzip_header_holds_neither_a_time_nor_a_name() -> None:
    header = FILE.read_bytes()[:10]
    assert header[3] == 0 and header[4:8] == bytes(4)


def test_the_sample_is_below_two_megabytes_and_marked_as_synthetic(trees: list[Tree]) -> None:
    assert FILE.stat().st_size < 2_000_000
    assert len(trees) >= 1_400
    assert "SYNTHETIC" in (FOLDER / "README.md").read_text("utf-8").splitlines()[0]
    labelled = [message for tree in trees for message in messages(tree["prompt"]) if "labels" in message]
    assert all(message["synthetic"] and message["model_name"] == "dataprep-sample" for message in labelled)


def test_every_fault_occurs_as_often_as_the_readme_says(
    trees: list[Tree], lines: list[str], counts_in_readme: dict[str, int]
) -> None:
    counted = Counter(name for tree in trees for name in faults(tree))
    counted["repeated_tree"] = len(lines) - len(set(lines))
    once = list({tree["message_tree_id"]: tree for tree in trees}.values())
    different = {conversation(tree): tree for tree in once}
    counted["exact_duplicate"] = len(once) - len(different)
    counted["near_duplicate"] = len(similar_pairs(list(different.values()), 0.8))
    assert counted == counts_in_readme


def test_no_tree_has_more_than_one_fault(trees: list[Tree]) -> None:
    assert max(len(list(faults(tree))) for tree in trees) == 1


def test_ids_are_unique_except_in_repeated_lines(lines: list[str]) -> None:
    ids = [message["message_id"] for line in dict.fromkeys(lines) for message in messages(json.loads(line)["prompt"])]
    assert len(ids) == len(set(ids))
    assert all(
        re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", name) for name in ids
    )


def test_replies_are_sorted_by_rank(trees: list[Tree]) -> None:
    for tree in trees:
        for message in messages(tree["prompt"]):
            answers = [reply for reply in message["replies"] if reply["role"] == "assistant" and "rank" in reply]
            ranks = [answer["rank"] for answer in answers]
            assert ranks == (list(range(len(ranks))) if len(ranks) > 1 else [None] * len(ranks))


def test_the_sample_has_eight_languages_and_texts_that_break_naive_splitters(trees: list[Tree]) -> None:
    languages = Counter(tree["prompt"]["lang"] for tree in trees)
    assert set(languages) == {"en", "de", "es", "fr", "pt-BR", "ru", "zh", "ja"}
    assert languages["en"] > 1_000 and len(trees) - languages["en"] > 250
    texts = [message["text"] for tree in trees for message in messages(tree["prompt"])]
    assert any(text.endswith("C#") for text in texts)
    for text_part in ("### Step 1", "```csharp", "C#", "|---|", "🙂"):
        assert any(text_part in text for text in texts), text_part
    assert {len(best_path(tree)) // 2 for tree in trees} >= set(range(1, 7))
