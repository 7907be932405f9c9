"""Malformed input: each record that cannot be read becomes a fate, and its neighbours are read."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.common.errors import InputError
from dataprep.sources import bytestream, jsonlines
from dataprep.sources.options import ReadOptions
from dataprep.sources.reader import read
from dataprep.tables import CONVERSATIONS, FATES
from tests.support.reading import fates, json_lines, read_bytes, read_path, turns, write

GOOD = b'{"text": "### Human: hi### Assistant: yo"}'
HI = [("user", "hi"), ("assistant", "yo")]


@pytest.mark.parametrize(
    ("line", "rule", "detail"),
    [
        (b'{"text": "### Hum', "bad_json", "Unterminated string"),
        (GOOD + b",", "bad_json", "Extra data"),
        (GOOD + GOOD, "bad_json", "Extra data"),
        (b"\x00", "bad_json", "character 1 of 1"),
        (b'{"text": "### Human: \x00"}', "bad_json", "Invalid control character"),
        (b"{'text': 1}", "bad_json", "double quotes"),
        (b'{"text": "### Human: \xff"}', "bad_utf8", "0xff at byte 22"),
        (b'{"text": "### Human: \xed\xa0\x80"}', "bad_utf8", "is not UTF-8"),
        (b'["### Human: a"]', "wrong_schema", "JSON array"),
        (b"null", "wrong_schema", "JSON null"),
        (b'{"other": 1}', "wrong_schema", "has no 'text'"),
        (b'{"text": null}', "wrong_schema", "has no 'text'"),
        (b'{"text": {"a": 1}}', "wrong_schema", "'text' is {"),
        (b'{"text": [1]}', "wrong_schema", "not text"),
        (b'{"text": true}', "wrong_schema", "'text' is true"),
        (b'{"text": 5}', "no_role_marker", "has no '### Human:'"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep", "deeply"),
        (b'{"text": ' + b"1" * 5000 + b"}", "bad_json", "digits"),
    ],
)
def test_a_bad_line_is_rejected_with_its_reason_and_its_neighbours_are_read(
    tmp_path: Path, line: bytes, rule: str, detail: str
) -> None:
    reading = read_bytes(tmp_path, "g.jsonl", b"\n".join([GOOD, line, GOOD]))
    assert turns(reading) == [HI, HI] and reading.conversations["line"].to_list() == [1, 3]
    fate = reading.fates.row(0, named=True)
    assert (fate["kind"], fate["fate"], fate["stage"], fate["line"]) == ("line", "dropped", "read", 2)
    assert (fate["source"], fate["rule"], fate["row"]) == ("g.jsonl", rule, None) and detail in fate["detail"]
    assert reading.fates.height == 1 and reading.files[0].records == 3
    assert reading.fates.schema == FATES and reading.conversations.schema == CONVERSATIONS


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD,
        GOOD + b"\r\n" + GOOD + b"\r\n",
        b"\n\n" + GOOD + b"\n\r\n  \t\n" + GOOD + b"\n\n",
        b"  " + GOOD + b" \n\t" + GOOD + b"\t\n",
        GOOD + b"\n" + GOOD.replace(b"{", b'{"text": 1, '),
        GOOD + b"\n" + GOOD.replace(b"{", b'{"big": 1e999, "nan": NaN, '),
    ],
    ids=["bom", "crlf", "blank lines", "white space", "repeated key", "odd numbers"],
)
def test_unusual_but_valid_lines_are_read(tmp_path: Path, data: bytes) -> None:
    reading = read_bytes(tmp_path, "g.jsonl", data)
    assert turns(reading) == [HI, HI] and reading.fates.height == 0 and reading.files[0].records == 2


def test_blank_lines_count_as_lines_and_not_as_records(tmp_path: Path) -> None:
    reading = read_bytes(tmp_path, "g.jsonl", b"\n" + GOOD + b"\n\n\n" + GOOD)
    assert reading.conversations["line"].to_list() == [2, 5]


def test_a_lone_surrogate_becomes_replacement_characters(tmp_path: Path) -> None:
    reading = read_bytes(tmp_path, "g.jsonl", rb'{"text": "### Human: \ud83d and \ud83d\ude00 and \u0000"}')
    assert turns(reading) == [[("user", "\ufffd\ufffd\ufffd and \N{GRINNING FACE} and \0")]]


def test_the_size_of_blocks_and_pieces_does_not_change_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks and pieces of a few lines change what is parsed by columns and what line by line, but not the result."""
    rng = random.Random(5)
    junk = [b'{"text": "### H', b"[]", b'{"text": "\xff"}', b"", b'{"text": "none"}', b"x"]
    lines = [rng.choice(junk) if rng.random() < 0.2 else GOOD.replace(b"hi", b"%d" % n) for n in range(2000)]
    data = b"\n".join(lines)
    whole = read_bytes(tmp_path, "g.jsonl", data)
    bad = [number for number, line in enumerate(lines, 1) if line in junk and line]
    assert whole.fates["line"].to_list() == bad
    good = [number for number, line in enumerate(lines, 1) if line not in junk]
    assert whole.conversations["line"].to_list() == good
    monkeypatch.setattr(bytestream, "BLOCK", 700)
    monkeypatch.setattr(jsonlines, "PIECE", 100)
    pieces = read_bytes(tmp_path, "g.jsonl", data)
    assert pieces.conversations.equals(whole.conversations) and pieces.fates.equals(whole.fates)
    assert pieces.files == whole.files


def test_a_truncated_gzip_file_keeps_its_complete_lines(tmp_path: Path) -> None:
    rng = random.Random(1)
    lines = [b'{"text": "### Human: %d %x"}\n' % (n, rng.getrandbits(400)) for n in range(3000)]
    data = gzip.compress(b"".join(lines))
    reading = read_bytes(tmp_path, "g.jsonl.gz", data[: len(data) * 2 // 3])
    count = reading.conversations.height
    assert 1000 < count < 3000 and reading.conversations["line"].to_list() == list(range(1, count + 1))
    assert turns(reading) == [
        [("user", json.loads(line)["text"].removeprefix("### Human: "))] for line in lines[:count]
    ]
    assert fates(reading) == [(count + 1, "truncated")] and "ends early" in reading.fates["detail"][0]
    assert reading.fates.height == 1


def test_a_damaged_gzip_file_keeps_the_lines_before_the_damage(tmp_path: Path) -> None:
    rng = random.Random(1)
    lines = b"".join(b'{"text": "### Human: %d %x"}\n' % (n, rng.getrandbits(4000)) for n in range(4000))
    data = bytearray(gzip.compress(lines, 1))
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    reading = read_bytes(tmp_path, "g.jsonl.gz", bytes(data))
    assert reading.conversations["line"][:1900].to_list() == list(range(1, 1901))
    # lines after the damage are rejected one by one, and the checksum at the end gives the cause
    assert fates(reading)[-1][1] == "truncated" and "damaged" in reading.fates["detail"][-1]


def test_concatenated_gzip_members_are_read_as_one_stream(tmp_path: Path) -> None:
    data = gzip.compress(GOOD + b"\n") + gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:]) + b"\0" * 100
    assert turns(read_bytes(tmp_path, "g.jsonl.gz", data)) == [HI, HI]


@pytest.mark.parametrize("end", [b'{"te', b"", b"nonsense]", b"]]"])
def test_a_broken_json_array_keeps_the_elements_before_the_fault(tmp_path: Path, end: bytes) -> None:
    spread = GOOD.replace(b'": "', b'":\r\n"')
    reading = read_bytes(tmp_path, "g.json", b"[" + GOOD + b",\n " + spread + b", " + end)
    assert turns(reading) == [HI, HI]
    assert fates(reading) == [(3, "truncated")] and "are lost" in reading.fates["detail"][0]


def test_bad_elements_of_a_json_array_are_rejected_one_by_one(tmp_path: Path) -> None:
    data = b"[" + b", ".join([GOOD, b'{"text": "### Human: \xff"}', b"5", b'{"other": 1}', GOOD]) + b"]"
    reading = read_bytes(tmp_path, "g.json", data)
    assert reading.conversations["line"].to_list() == [1, 5]
    assert fates(reading) == [(2, "bad_utf8"), (3, "wrong_schema"), (4, "wrong_schema")]


def test_json_files_may_hold_lines_documents_or_an_array(tmp_path: Path) -> None:
    row = json.loads(GOOD)
    spread = json.dumps(row, indent=1).encode()
    for data in (GOOD + b"\n" + GOOD, spread + b"\n" + spread, json.dumps([row, row], indent=1).encode()):
        assert turns(read_bytes(tmp_path, "g.json", data)) == [HI, HI]
    reading = read_bytes(tmp_path, "g.json", spread + b"\n" + spread[:9])
    assert turns(reading) == [HI] and fates(reading) == [(2, "truncated")]
    reading = read_bytes(tmp_path, "g.json", b'{"te\n' + GOOD)
    assert turns(reading) == [HI] and fates(reading) == [(1, "bad_json")]
    assert turns(read_bytes(tmp_path, "g.jsonl", b"[%s, %s]" % (GOOD, GOOD))) == [HI, HI]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("e.jsonl", b"", "is empty"),
        ("e.jsonl", b"\n \n", "is empty"),
        ("e.json", b"[]", "is empty"),
        ("e.jsonl.gz", b"", "is empty"),
        ("e.jsonl.gz", gzip.compress(b"", mtime=0), "is empty"),
        ("e.jsonl.gz", GOOD, "not gzip data"),
        ("e.jsonl.gz", b"\x1f\x8bnot compressed data", "damaged"),
        ("e.jsonl.gz", gzip.compress(GOOD, mtime=0)[:20], "ends early"),
        ("e.jsonl", b"nothing\nat all\n", "no record that can be read: line 1"),
        ("e.jsonl", GOOD.decode().encode("utf-16"), "UTF-16"),
        ("e.parquet", b"PAR1 and more", "cannot be read as Parquet"),
        ("e.arrow", b"ARROW1 and more", "cannot be read as an Arrow"),
        ("e.arrow", b"", "cannot be read as an Arrow"),
        (
            "e.jsonl",
            b'{"foo": 1, "bar": 2}',
            "'foo', 'bar'. The known formats are oasst-trees, oasst-messages, messages",
        ),
        ("e.jsonl", b'{"text": "no marker"}', "'text'. The known formats are"),
        ("e.txt", GOOD, "its extension is not known"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_one_sentence(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    with pytest.raises(InputError) as refusal:
        read_bytes(tmp_path, name, data)
    assert words in str(refusal.value) and str(tmp_path / name) in str(refusal.value)
    assert str(refusal.value).endswith(".") and "\n" not in str(refusal.value)


def test_a_stated_format_replaces_recognition(tmp_path: Path) -> None:
    rows = json_lines([{"instruction": "i", "output": "o", "text": "### Human: a"}])
    assert read_bytes(tmp_path, "x.jsonl", rows).files[0].format == "alpaca"
    assert read_bytes(tmp_path, "x.jsonl", rows, format="guanaco").files[0].format == "guanaco"
    assert fates(read_bytes(tmp_path, "x.jsonl", rows, format="sharegpt")) == [(1, "wrong_schema")]
    with pytest.raises(InputError, match="Did you mean 'guanaco'.*auto, completion, guanaco"):
        read([], ReadOptions(format="guanako"))


def test_the_limit_counts_records_of_all_files(tmp_path: Path) -> None:
    first = tmp_path / "a.jsonl"
    first.write_bytes(b"\n" + GOOD + b"\n\nbad\n" + GOOD + b"\n")
    rows = [json.loads(GOOD)] * 5
    second = write(tmp_path, "parquet", rows)
    for limit, expected, rejected in [(1, 1, 0), (2, 1, 1), (3, 2, 1), (4, 3, 1), (99, 7, 1)]:
        reading = read_path(first, second, limit=limit)
        assert (reading.conversations.height, reading.fates.height) == (expected, rejected)
        assert sum(file.records for file in reading.files) == min(limit, 8)


def test_bad_rows_of_a_columnar_file_are_rejected_one_by_one(tmp_path: Path) -> None:
    text = pa.array([b"### Human: a", b"### Human: \xff", None, b"nothing"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": text}), tmp_path / "g.parquet")
    reading = read_path(tmp_path / "g.parquet")
    assert turns(reading) == [[("user", "a")]]
    assert fates(reading) == [(2, "bad_utf8"), (3, "wrong_schema"), (4, "no_role_marker")]


BINARY_CONTENTS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.binary())]))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_binary_columns_are_read_as_text(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "g.parquet"
    texts = ["### Human: é", "### Human: b", "### Human: \N{GRINNING FACE}"]
    pq.write_table(pa.table({"text": pa.array([text.encode() for text in texts], kind)}), path)
    assert turns(read_path(path)) == [[("user", text.removeprefix("### Human: "))] for text in texts]
    pq.write_table(pa.table({"text": pa.array([texts[0].encode(), b"### Human: \xff", texts[1].encode()], kind)}), path)
    reading = read_path(path)
    assert turns(reading) == [[("user", "é")], [("user", "b")]] and fates(reading) == [(2, "bad_utf8")]


def test_binary_contents_of_messages_and_flat_trees_are_read_as_text(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    rows = [[{"role": "user", "content": content}] for content in (b"hi \xc3\xa9", b"\xe9", None, b"yo")]
    pq.write_table(pa.table({"messages": pa.array(rows, BINARY_CONTENTS)}), path)
    reading = read_path(path)
    assert turns(reading) == [[("user", "hi é")], [("user", "yo")]]
    assert fates(reading) == [(2, "bad_utf8"), (3, "wrong_schema")]
    texts = pa.array([b"asked", b"\xe9", b"answered"], pa.binary())
    table = {
        "message_id": ["a", "b", "c"],
        "parent_id": [None, "a", "a"],
        "text": texts,
        "role": ["prompter", "x", "y"],
    }
    pq.write_table(pa.table(table), path)
    reading = read_path(path)
    assert reading.messages["content"].to_list() == ["asked", "answered"] and fates(reading) == [(2, "bad_utf8")]


def test_ids_of_mixed_types_are_read_as_text(tmp_path: Path) -> None:
    """The first hundred, from which the column's type is chosen, are numbers."""
    ids = [*range(150), "abc", 12345678901234567890, 3.5]
    reading = read_bytes(tmp_path, "g.jsonl", json_lines({"id": id_, "text": "### Human: a"} for id_ in ids))
    assert reading.conversations["id"].to_list() == [str(id_) for id_ in ids] and reading.notes == []


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
@pytest.mark.parametrize("odd", [{"name": "x"}, True, [5]])
def test_descriptive_values_of_the_wrong_type_are_counted_and_later_ones_are_read(
    tmp_path: Path, container: str, odd: object
) -> None:
    rows = [{"lang": odd, "text": "### Human: a"}] * 150
    reading = read_path(write(tmp_path, container, rows))
    assert reading.conversations["lang"].null_count() == 150
    assert reading.notes == [f"data.{container}: 150 values of 'lang' of the wrong type, read as null."]
    if container == "jsonl":
        reading = read_path(write(tmp_path, container, [*rows, {"lang": "en", "text": "### Human: a"}]))
        assert reading.conversations["lang"].to_list() == [None] * 150 + ["en"] and "150 values" in reading.notes[0]


def test_an_empty_file_among_others_is_noted(tmp_path: Path) -> None:
    for name, data in (("a.jsonl", b""), ("b.jsonl", GOOD), ("c.json", b"[]")):
        (tmp_path / name).write_bytes(data)
    reading = read_path(tmp_path)
    assert turns(reading) == [HI] and [file.records for file in reading.files] == [0, 1, 0]
    assert reading.notes == [f"{name} is empty: it holds no records." for name in ("a.jsonl", "c.json")]
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(InputError, match="a.jsonl is empty"):
        read_path(tmp_path)


def test_records_are_counted_before_they_are_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the ledger notices a line that a format loses without a reject."""
    parse = jsonlines.parse
    monkeypatch.setattr(
        jsonlines, "_parse_by_lines", lambda block, parsing: parse(replace(block, data=GOOD), parsing)[0]
    )
    reading = read_bytes(tmp_path, "g.jsonl", b"\n".join([GOOD, b" \t", b"bad", b"worse", b"", GOOD]))
    assert reading.conversations.height == 2 and reading.fates.height == 0 and reading.files[0].records == 4


def test_an_arrow_stream_that_breaks_off_keeps_its_whole_batches(tmp_path: Path) -> None:
    table = pa.table({"text": ["### Human: a"] * 100})
    path = tmp_path / "g.arrow"
    with pa.ipc.new_stream(path, table.schema) as writer:
        for _ in range(10):
            writer.write_table(table)
    path.write_bytes(path.read_bytes()[:-1000])
    reading = read_path(path)
    assert reading.conversations.height == 900 and fates(reading) == [(901, "truncated")]
