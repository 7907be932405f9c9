"""Benchmark files: JSONL, gzipped JSONL and Parquet of any shape, and sentences for unusable ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from random import Random

import polars as pl
import pytest

from dataprep.common.errors import InputError
from dataprep.dedup.benchmarks import read_benchmark
from tests.support.texts import sentence

QUESTION = "Compose an engaging travel blog post about a recent trip to Hawaii, highlighting cultural experiences."
SHORT = "What is the capital of the Marshall Islands?"


def test_texts_of_any_depth_are_read_with_their_item_number(tmp_path: Path) -> None:
    item = {"id": 1, "turns": [QUESTION, {"deep": [SHORT, None, 3]}], "blank": " "}
    lines = f"{json.dumps(item)}\n\n{json.dumps(SHORT)}\n".encode()
    (tmp_path / "b.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines))
    rows = [(1, QUESTION), (1, SHORT), (3, SHORT)]
    for name in ("b.jsonl", "b.jsonl.gz"):
        assert read_benchmark(tmp_path / name).rows() == [(name, *row) for row in rows]
    (tmp_path / "half.jsonl").write_bytes(b'{"a": "half of \\ud83d a pair"}\n')
    assert read_benchmark(tmp_path / "half.jsonl")["text"].to_list() == ["half of ? a pair"]
    pl.DataFrame({"q": [[QUESTION], [SHORT]], "n": [1, 2]}).write_parquet(tmp_path / "b.parquet")
    assert read_benchmark(tmp_path / "b.parquet")["text"].to_list() == [QUESTION, SHORT]


GZIPPED = gzip.compress(sentence(Random(0), 2_000).encode(), mtime=0)
BAD_FILES: list[tuple[str, bytes | None, str]] = [
    ("none.jsonl", None, "no benchmark file"),
    ("empty.jsonl", b"", "is empty"),
    ("empty.jsonl.gz", gzip.compress(b"", mtime=0), "is empty"),
    ("numbers.jsonl", b'{"a": 1}\n[2]\n', "None of the 2 items"),
    ("text.jsonl", b"hello\n", "cannot be read"),
    ("cut.jsonl.gz", gzip.compress(b'{"a": "b"}' * 99, mtime=0)[:-9], "cannot be read"),
    ("not.gz", b"hello", "cannot be read"),
    ("not.parquet", b"hello", "cannot be read"),
    ("corrupt.jsonl.gz", b"".join([GZIPPED[:200], b"\xff" * 60, GZIPPED[260:]]), "cannot be read"),
    ("deep.jsonl", b"[" * 100_000, "cannot be read"),
    ("latin.jsonl", '{"a": "é"}'.encode("latin-1"), "cannot be read"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD_FILES)
def test_an_unusable_benchmark_file_is_one_sentence_that_names_it(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        read_benchmark(tmp_path / name)
    assert name in str(error.value) and "\n" not in str(error.value)
