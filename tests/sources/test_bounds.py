"""Bounds on memory and on what a damaged or hostile file can do: long records, blank runs, pipes, damaged compression."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from dataprep.common.errors import InputError, RecipeError
from dataprep.recipe import Recipe
from dataprep.sources import containers
from dataprep.sources.bytestream import BLOCK
from dataprep.sources.rows import MAX_KEYS
from tests.support.paths import ROOT
from tests.support.reading import fates, json_lines, read_bytes, read_path, turns, write

GOOD = b'{"text": "### Human: hi### Assistant: yo"}'
HI = [("user", "hi"), ("assistant", "yo")]
LONG = b'{"text": "### Human: ' + b"x" * (5 << 20) + b'"}'


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstd,
}


@pytest.mark.parametrize("extension", COMPRESSORS)
def test_compressed_files_are_read(tmp_path: Path, extension: str) -> None:
    lines = b"".join(b'{"text": "### Human: %d### Assistant: yo"}\n' % n for n in range(100_000))
    reading = read_bytes(tmp_path, f"g.jsonl.{extension}", COMPRESSORS[extension](lines))
    assert reading.conversations.height == 100_000 and reading.fates.height == 0


@pytest.mark.parametrize("extension", COMPRESSORS)
def test_a_truncated_compressed_file_keeps_its_complete_lines(tmp_path: Path, extension: str) -> None:
    lines = b"".join(b'{"text": "### Human: %d %s"}\n' % (n, os.urandom(20).hex().encode()) for n in range(20_000))
    data = COMPRESSORS[extension](lines)
    reading = read_bytes(tmp_path, f"g.jsonl.{extension}", data[: len(data) * 4 // 5])
    count = reading.conversations.height
    assert 4_000 < count < 20_000
    assert fates(reading) == [(count + 1, "truncated")]


@pytest.mark.parametrize("rows", [3, 20_000])
def test_a_wrong_gzip_checksum_loses_no_row(tmp_path: Path, rows: int) -> None:
    data = bytearray(gzip.compress((GOOD + b"\n") * rows + GOOD))
    data[-6] ^= 1
    reading = read_bytes(tmp_path, "g.jsonl.gz", bytes(data))
    assert turns(reading) == [HI] * (rows + 1)
    assert fates(reading) == [(rows + 2, "truncated")] and "may be wrong" in reading.fates["detail"][0]


def test_all_bytes_before_a_damaged_deflate_block_are_read(tmp_path: Path) -> None:
    whole = gzip.compress((GOOD + b"\n") * 5, 0)  # stored: the bytes of the file are those of the lines
    damaged = gzip.compress((GOOD + b"\n") * 5, 0)[:-8] + b"\xff" * 8
    assert turns(read_bytes(tmp_path, "whole.jsonl.gz", whole)) == [HI] * 5
    assert turns(read_bytes(tmp_path, "g.jsonl.gz", damaged)) == [HI] * 5


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_line_above_the_limit_is_rejected_and_its_neighbours_are_read(tmp_path: Path, at: int) -> None:
    lines = [GOOD, GOOD]
    lines.insert(at, LONG)
    (tmp_path / "g.jsonl").write_bytes(b"\n".join(lines))
    reading = read_path(tmp_path / "g.jsonl", max_record_bytes=BLOCK)
    assert turns(reading) == [HI, HI]
    assert fates(reading) == [(at + 1, "too_long")] and "--max-record-bytes 4194304" in reading.fates["detail"][0]
    assert reading.files[0].records == 3
    assert read_path(tmp_path / "g.jsonl").conversations.height == 3


def test_a_long_line_that_ends_with_a_block_hides_no_later_line(tmp_path: Path) -> None:
    long = b"x" * (2 * BLOCK - 1) + b"\n"
    (tmp_path / "g.jsonl").write_bytes(long + GOOD + b"\n" + GOOD)
    reading = read_path(tmp_path / "g.jsonl", max_record_bytes=BLOCK)
    assert turns(reading) == [HI, HI] and fates(reading) == [(1, "too_long")]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_array_element_above_the_limit_is_rejected_and_its_neighbours_are_read(tmp_path: Path, at: int) -> None:
    elements = [GOOD, GOOD]
    elements.insert(at, LONG)
    (tmp_path / "g.json").write_bytes(b"[" + b",\n".join(elements) + b"]")
    reading = read_path(tmp_path / "g.json", max_record_bytes=BLOCK)
    assert turns(reading) == [HI, HI] and fates(reading) == [(at + 1, "too_long")]


@pytest.mark.parametrize("end", [b"]", b"]\n", b"", b"] x", b', {"te'])
def test_an_array_is_read_alike_at_once_and_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    elements = [b'{"text":\n "### Human: \xc3\xa9%d### Assistant: %s"}' % (n, b"\xe6\xbc\xa2" * n) for n in range(300)]
    data = b" [" + b" ,\n".join(elements) + end
    whole = read_bytes(tmp_path, "g.json", data)
    monkeypatch.setattr(containers, "_WHOLE_ARRAY", 1)
    monkeypatch.setattr(containers, "BLOCK", 64)
    pieces = read_bytes(tmp_path, "g.json", data)
    assert whole.conversations.height == 300
    assert pieces.conversations.equals(whole.conversations)
    assert fates(pieces) == fates(whole) == ([] if end.strip() == b"]" else [(301, "truncated")])


def test_a_record_in_an_array_that_is_read_piece_by_piece_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containers, "_WHOLE_ARRAY", 1)
    (tmp_path / "g.json").write_bytes(b"[" + GOOD + b", " + LONG * 3 + b"]")
    reading = read_path(tmp_path / "g.json", max_record_bytes=1 << 20)
    assert turns(reading) == [HI] and fates(reading)[-1] == (2, "truncated")


def test_a_limit_below_the_size_of_a_block_is_refused() -> None:
    with pytest.raises(RecipeError, match="minimum is 4MiB"):
        Recipe(max_record_bytes="1MB")


BOMBS = {
    "line breaks": lambda path: write_bomb(path, b"\n" * (1 << 20), 200, GOOD),
    "zeros": lambda path: write_bomb(path, bytes(1 << 20), 200, b"\n" + GOOD),
    "one long line": lambda path: write_bomb(path, b"x" * (1 << 20), 200, b"\n" + GOOD),
    "one object of many lines": lambda path: write_bomb(path, b'"a":1,\n' * (1 << 17), 120, b'"b": 2}', start=b"{\n"),
    "many lines that are no JSON": lambda path: write_bomb(path, b'{"text": 1\n' * (1 << 16), 200, GOOD),
    "spaces in an array": lambda path: write_bomb(path, b" " * (1 << 20), 300, GOOD + b"]", start=b"["),
}


def write_bomb(path: Path, part: bytes, times: int, end: bytes, start: bytes = b"") -> None:
    """Write a gzip file of `start`, `times` times `part`, and `end`; the compressed part is repeated, which saves time."""
    deflate = zlib.compressobj(1, wbits=-zlib.MAX_WBITS)
    first = deflate.compress(start) + deflate.flush(zlib.Z_FULL_FLUSH)
    repeated = deflate.compress(part) + deflate.flush(zlib.Z_FULL_FLUSH)
    last = deflate.compress(end) + deflate.flush()
    checksum = zlib.crc32(start)
    for _ in range(times):
        checksum = zlib.crc32(part, checksum)
    size = len(start) + times * len(part) + len(end)
    trailer = struct.pack("<II", zlib.crc32(end, checksum), size)
    path.write_bytes(b"\x1f\x8b\x08" + bytes(6) + b"\xff" + first + repeated * times + last + trailer)


@pytest.mark.parametrize("kind", BOMBS)
def test_highly_compressed_files_are_read_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "g.json.gz"
    BOMBS[kind](file)
    code = (
        "import json, re, sys\n"
        "from tests.support.reading import read_path\n"
        "from dataprep.common.errors import InputError\n"
        "peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])\n"
        "before = peak()\n"
        "try: rows = read_path(sys.argv[1]).conversations.height\n"
        "except InputError as fault: rows = str(fault)\n"
        "print(json.dumps([rows, peak() - before >> 10]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, cwd=ROOT, check=True, timeout=300
    )
    rows, megabytes = json.loads(done.stdout)
    assert megabytes < 500
    if rows != 1:
        assert "can be read" in str(rows)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "g.jsonl")
    with pytest.raises(InputError, match="is a pipe, a device or a folder"):
        read_path(tmp_path / "g.jsonl")


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("g.jsonl", gzip.compress(GOOD, mtime=0), "compressed with gzip: rename it to g.jsonl.gz"),
        ("g.jsonl", b"PK\x03\x04" + bytes(40), "is a zip archive"),
        ("g.jsonl.gz", b"PK\x03\x04" + bytes(40), "not gzip data"),
        ("g.json", bz2.compress(GOOD), "compressed with bzip2"),
    ],
)
def test_compression_that_the_name_does_not_tell_is_named(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_bytes(tmp_path, name, data)


def _chat(number: int, **more: object) -> dict[str, object]:
    turns = [{"role": "user", "content": f"q {number}"}, {"role": "assistant", "content": f"a {number}"}]
    return {"messages": turns, **more}


@pytest.mark.parametrize(
    "records",
    [
        [_chat(n, **{f"key{n}": 1}) for n in range(15_000)],
        [*map(_chat, range(500)), _chat(500, **{f"key{n}": 1 for n in range(100_000)})],
        [*map(_chat, range(500)), _chat(500, metadata={f"key{n}": 1 for n in range(20_000)})],
        [*map(_chat, range(500)), {"messages": [{"role": "user", "content": "q", **{f"key{n}": 1 for n in range(20_000)}}]}],
    ],
    ids=["in all lines", "in one record", "inside of metadata", "in a message"],
)  # fmt: skip
def test_keys_that_occur_once_take_time_in_proportion_to_their_number(
    tmp_path: Path, records: list[dict[str, object]]
) -> None:
    began = time.process_time()
    reading = read_bytes(tmp_path, "a.jsonl", json_lines(records))
    assert len(reading.conversations) == len(records)
    assert time.process_time() - began < 10  # by columns, each case takes 15 seconds or more


def test_only_the_first_thousand_unused_keys_are_counted_by_name_wherever_they_occur(tmp_path: Path) -> None:
    names = [f"key{n:04}" for n in range(1_500)]
    records = [_chat(n, **dict.fromkeys(names[n::75], 1)) for n in range(1_500)]
    expected = {name: sum(name in record for record in records) for name in names[:MAX_KEYS]}
    for order in (records, records[::-1]):
        reading = read_bytes(tmp_path, "a.jsonl", json_lines(order))
        assert reading.unused_fields == expected
        others = sum(name in record for name in names[MAX_KEYS:] for record in records)
        assert f"{others:,} values of further keys are not used: there are more than 1,000 keys." in reading.notes


@pytest.mark.parametrize("extension", ["parquet", "arrow"])
def test_a_row_of_a_columnar_file_that_is_too_long_is_dropped_and_the_others_keep_their_numbers(
    tmp_path: Path, extension: str
) -> None:
    texts = [f"### Human: {n}### Assistant: yo" for n in range(9)]
    texts[4] = "### Human: " + "x" * (5 << 20)
    path = write(tmp_path, extension, [{"text": text} for text in texts])
    reading = read_path(path, max_record_bytes=BLOCK)
    assert fates(reading) == [(5, "too_long")]
    assert reading.conversations["line"].to_list() == [1, 2, 3, 4, 6, 7, 8, 9]


def test_a_parquet_file_of_records_that_are_too_long_is_not_read(tmp_path: Path) -> None:
    path = write(tmp_path, "parquet", [{"text": "x" * (5 << 20)}])
    with pytest.raises(
        InputError, match=r"records of its row group 0 have 5,\d+,\d+ bytes on average, more than --max"
    ):
        read_path(path, max_record_bytes=BLOCK)
