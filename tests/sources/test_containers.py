"""CSV and TSV, compressed files, and files that are not what their name says."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from dataprep.common.errors import InputError
from dataprep.sources import bytestream, csvlines
from tests.support.reading import fates, json_lines, read_bytes, turns

ROWS = json_lines({"text": f"### Human: {n}### Assistant: yo"} for n in range(2000))


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files_are_read_and_named_if_their_name_does_not_say_so(tmp_path: Path, suffix: str) -> None:
    data = COMPRESSORS[suffix](ROWS)
    reading = read_bytes(tmp_path, f"d.jsonl{suffix}", data)
    assert reading.conversations.height == 2000 and reading.fates.is_empty()
    with pytest.raises(InputError, match=rf"is compressed with .*: rename it to d.jsonl\{suffix}"):
        read_bytes(tmp_path, "d.jsonl", data)


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_concatenated_compressed_streams_are_read_as_one(tmp_path: Path, suffix: str) -> None:
    compress = COMPRESSORS[suffix]
    assert read_bytes(tmp_path, f"d.jsonl{suffix}", compress(ROWS) + compress(ROWS)).conversations.height == 4000


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_truncated_compressed_file_keeps_its_complete_lines(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bytestream, "BLOCK", 1 << 10)
    half = len(ROWS) // 2
    data = COMPRESSORS[suffix](ROWS[:half]) + COMPRESSORS[suffix](ROWS[half:])[:-100]
    reading = read_bytes(tmp_path, f"d.jsonl{suffix}", data)
    count = reading.conversations.height
    assert 900 < count < 2000 and fates(reading) == [(count + 1, "truncated")]
    assert reading.fates["detail"][0].endswith("and everything after it are lost")


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_a_file_that_is_not_compressed_although_its_name_says_so_is_refused(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(InputError, match="but is not .* data: compress it again"):
        read_bytes(tmp_path, f"d.jsonl{suffix}", ROWS)


@pytest.mark.parametrize(
    ("start", "words"),
    [
        (b"PK\x03\x04", "is a zip archive"),
        (b"7z\xbc\xaf\x27\x1c", "is a 7z archive"),
        (b"Rar!", "is a RAR archive"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, start: bytes, words: str) -> None:
    for name in ("d.jsonl", "d.csv"):
        with pytest.raises(InputError, match=words):
            read_bytes(tmp_path, name, start + b"more")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_wide_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(InputError, match=f"is encoded as {encoding[:6].upper()}: save it as UTF-8"):
        read_bytes(tmp_path, "d.jsonl", '{"text": "### Human: a"}'.encode(encoding))


CSV = b'instruction,input,output\r\n"two\nlines, and ""quotes""",,o\r\n\r\nb,c,"d"\r\n'


@pytest.mark.parametrize(
    ("name", "data"), [("d.csv", CSV), ("d.csv.gz", gzip.compress(CSV)), ("d.csv", b"\xef\xbb\xbf" + CSV)]
)
def test_csv_rows_are_records_of_text(tmp_path: Path, name: str, data: bytes) -> None:
    reading = read_bytes(tmp_path, name, data)
    assert turns(reading) == [
        [("user", 'two\nlines, and "quotes"'), ("assistant", "o")],
        [("user", "b\n\nc"), ("assistant", "d")],
    ]
    assert reading.conversations["line"].to_list() == [1, 2] and reading.files[0].records == 2


def test_a_run_of_empty_lines_in_a_csv_file_is_skipped_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    skipped = []
    monkeypatch.setattr(
        csvlines._Lines, "skip_empty", lambda lines, skip=csvlines._Lines.skip_empty: skipped.append(skip(lines))
    )
    run = b"\n" * 9 + b"\r\n" * 3
    reading = read_bytes(tmp_path, "d.csv", run + b"prompt,completion\n" + run + b'a,"b' + b"\n" * 9 + b'c"\n' + run)
    assert turns(reading) == [[("user", "a"), ("assistant", "b" + "\n" * 9 + "c")]]
    assert len(skipped) == 3


def test_tsv_rows_are_separated_by_tabs(tmp_path: Path) -> None:
    assert turns(read_bytes(tmp_path, "d.tsv", b"prompt\tcompletion\na, b\tc\n")) == [
        [("user", "a, b"), ("assistant", "c")]
    ]


def test_bad_csv_rows_are_rejected_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csvlines, "BLOCK", 40)
    lines = [b"instruction,output", b"a,b", b"a,b,c,d", b"a", b"a,\xff", b"e,f", b"g,h", b"i,j"]
    reading = read_bytes(tmp_path, "d.csv", b"\n".join(lines))
    assert fates(reading) == [(2, "bad_csv"), (3, "wrong_schema"), (4, "bad_csv")]
    assert reading.conversations["line"].to_list() == [1, 5, 6, 7] and reading.files[0].records == 7


@pytest.mark.parametrize("header", [b"a,a\n1,2\n", b"a,\n1,2\n"])
def test_a_csv_file_without_names_of_columns_is_refused(tmp_path: Path, header: bytes) -> None:
    with pytest.raises(InputError, match="each needs a name of its own"):
        read_bytes(tmp_path, "d.csv", header)


def test_an_empty_csv_file_is_refused(tmp_path: Path) -> None:
    for data in (b"", b"instruction,output\n", b"\n"):
        with pytest.raises(InputError, match="is empty"):
            read_bytes(tmp_path, "d.csv", data)
