"""Bad input is normal input: each record that cannot be read ends as a fate, and its neighbours are read."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.common.errors import InputError
from dataprep.sources import bytestream, jsonlines
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
        (b'{"text": "### Human: \xed\xa0\x80"}', "bad_utf8", "no UTF-8"),
        (b'["### Human: a"]', "wrong_schema", "JSON array"),
        (b"null", "wrong_schema", "JSON null"),
        (b'{"other": 1}', "wrong_schema", "has no 'text'"),
        (b'{"text": null}', "wrong_schema", "has no 'text'"),
        (b'{"text": {"a": 1}}', "wrong_schema", "'text' is {"),
        (b'{"text": [1]}', "wrong_schema", "no text"),
        (b'{"text": true}', "wrong_schema", "'text' is true"),
        (b'{"text": 5}', "no_role_marker", "has no '### Human:'"),
        (b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "too_deep", "deeply"),
        (b'{"text": ' + b"1" * 5000 + b"}", "bad_json", "digits"),
    ],
)
def test_a_bad_line_costs_itself(tmp_path: Path, line: bytes, rule: str, detail: str) -> None:
    reading = read_bytes(tmp_path, "g.jsonl", b"\n".join([GOOD, line, GOOD]))
    assert turns(reading) == [HI, HI] and reading.conversations["line"].to_list() == [1, 3]
    fate = reading.fates.row(0, named=True)
    assert (fate["kind"], fate["fate"], fate["stage"], fate["line"]) == ("line", "dropped", "read", 2)
    assert (fate["source"], fate["rule"], fate["row"]) == ("g.jsonl", rule, None) and detail in fate["detail"]
    assert reading.bad == 1 and reading.files[0].records == 3
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
def test_what_is_odd_and_not_bad(tmp_path: Path, data: bytes) -> None:
    reading = read_bytes(tmp_path, "g.jsonl", data)
    assert turns(reading) == [HI, HI] and reading.bad == 0 and reading.files[0].records == 2


def test_blank_lines_are_no_records_and_count_as_lines(tmp_path: Path) -> None:
    reading = read_bytes(tmp_path, "g.jsonl", b"\n" + GOOD + b"\n\n\n" + GOOD)
    assert reading.conversations["line"].to_list() == [2, 5]


def test_a_lone_surrogate_is_kept_as_broken_text(tmp_path: Path) -> None:
    reading = read_bytes(tmp_path, "g.jsonl", rb'{"text": "### Human: \ud83d and \ud83d\ude00 and \u0000"}')
    assert turns(reading) == [[("user", "\ufffd\ufffd\ufffd and \N{GRINNING FACE} and \0")]]


def test_bad_lines_among_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks and pieces of a few lines: whatever goes by columns or line by line, it is the same."""
    chance = random.Random(5)
    junk = [b'{"text": "### H', b"[]", b'{"text": "\xff"}', b"", b'{"text": "none"}', b"x"]
    lines = [chance.choice(junk) if chance.random() < 0.2 else GOOD.replace(b"hi", b"%d" % n) for n in range(2000)]
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


def test_a_cut_gzip_keeps_its_whole_lines(tmp_path: Path) -> None:
    chance = random.Random(1)
    lines = [b'{"text": "### Human: %d %x"}\n' % (n, chance.getrandbits(400)) for n in range(3000)]
    data = gzip.compress(b"".join(lines))
    reading = read_bytes(tmp_path, "g.jsonl.gz", data[: len(data) * 2 // 3])
    count = reading.conversations.height
    assert 1000 < count < 3000 and reading.conversations["line"].to_list() == list(range(1, count + 1))
    assert turns(reading) == [
        [("user", json.loads(line)["text"].removeprefix("### Human: "))] for line in lines[:count]
    ]
    assert fates(reading) == [(count + 1, "truncated")] and "ends early" in reading.fates["detail"][0]
    assert reading.bad == 1


def test_a_damaged_gzip_keeps_what_comes_before(tmp_path: Path) -> None:
    chance = random.Random(1)
    lines = b"".join(b'{"text": "### Human: %d %x"}\n' % (n, chance.getrandbits(4000)) for n in range(4000))
    data = bytearray(gzip.compress(lines, 1))
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    reading = read_bytes(tmp_path, "g.jsonl.gz", bytes(data))
    assert reading.conversations["line"][:1900].to_list() == list(range(1, 1901))
    # what unzips to nonsense is told line by line, and the checksum at the end says why
    assert fates(reading)[-1][1] == "truncated" and "damaged" in reading.fates["detail"][-1]


def test_gzip_members_one_after_another(tmp_path: Path) -> None:
    data = gzip.compress(GOOD + b"\n") + gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:]) + b"\0" * 100
    assert turns(read_bytes(tmp_path, "g.jsonl.gz", data)) == [HI, HI]


@pytest.mark.parametrize("end", [b'{"te', b"", b"nonsense]", b"]]"])
def test_a_broken_array_keeps_what_comes_before(tmp_path: Path, end: bytes) -> None:
    spread = GOOD.replace(b'": "', b'":\r\n"')
    reading = read_bytes(tmp_path, "g.json", b"[" + GOOD + b",\n " + spread + b", " + end)
    assert turns(reading) == [HI, HI]
    assert fates(reading) == [(3, "truncated")] and "are lost" in reading.fates["detail"][0]


def test_an_array_with_bad_elements(tmp_path: Path) -> None:
    data = b"[" + b", ".join([GOOD, b'{"text": "### Human: \xff"}', b"5", b'{"other": 1}', GOOD]) + b"]"
    reading = read_bytes(tmp_path, "g.json", data)
    assert reading.conversations["line"].to_list() == [1, 5]
    assert fates(reading) == [(2, "bad_utf8"), (3, "wrong_schema"), (4, "wrong_schema")]


def test_json_files_of_other_shapes(tmp_path: Path) -> None:
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
        ("e.jsonl.gz", gzip.compress(b""), "is empty"),
        ("e.jsonl.gz", GOOD, "no gzip file"),
        ("e.jsonl.gz", b"\x1f\x8bnothing of that sort", "damaged"),
        ("e.jsonl.gz", gzip.compress(GOOD)[:20], "ends early"),
        ("e.jsonl", b"nothing\nat all\n", "no record that can be read: line 1"),
        ("e.jsonl", GOOD.decode().encode("utf-16"), "UTF-16"),
        ("e.parquet", b"PAR1 and more", "cannot be read as Parquet"),
        ("e.arrow", b"ARROW1 and more", "cannot be read as an Arrow"),
        ("e.arrow", b"", "cannot be read as an Arrow"),
        ("e.jsonl", b'{"foo": 1, "bar": 2}', "'foo', 'bar'. Known are oasst-trees, oasst-messages, messages"),
        ("e.jsonl", b'{"text": "no marker"}', "'text'. Known are"),
        ("e.txt", GOOD, "of no kind that can be read"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, data: bytes, words: str) -> None:
    with pytest.raises(InputError) as refused:
        read_bytes(tmp_path, name, data)
    assert words in str(refused.value) and str(tmp_path / name) in str(refused.value)
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


def test_a_stated_format(tmp_path: Path) -> None:
    rows = json_lines([{"instruction": "i", "output": "o", "text": "### Human: a"}])
    assert read_bytes(tmp_path, "x.jsonl", rows).files[0].format == "alpaca"
    assert read_bytes(tmp_path, "x.jsonl", rows, format="guanaco").files[0].format == "guanaco"
    assert fates(read_bytes(tmp_path, "x.jsonl", rows, format="sharegpt")) == [(1, "wrong_schema")]
    with pytest.raises(InputError, match="Did you mean 'guanaco'.*auto, guanaco, messages"):
        read([], format="guanako")


def test_a_limit_counts_records_over_files(tmp_path: Path) -> None:
    first = tmp_path / "a.jsonl"
    first.write_bytes(b"\n" + GOOD + b"\n\nbad\n" + GOOD + b"\n")
    rows = [json.loads(GOOD)] * 5
    second = write(tmp_path, "parquet", rows)
    for limit, expected, bad in [(1, 1, 0), (2, 1, 1), (3, 2, 1), (4, 3, 1), (99, 7, 1)]:
        reading = read_path(first, second, limit=limit)
        assert (reading.conversations.height, reading.bad) == (expected, bad)
        assert sum(file.records for file in reading.files) == min(limit, 8)


def test_columnar_files_with_bad_rows(tmp_path: Path) -> None:
    text = pa.array([b"### Human: a", b"### Human: \xff", None, b"nothing"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": text}), tmp_path / "g.parquet")
    reading = read_path(tmp_path / "g.parquet")
    assert turns(reading) == [[("user", "a")]]
    assert fates(reading) == [(2, "bad_utf8"), (3, "wrong_schema"), (4, "no_role_marker")]


BINARY = pa.list_(pa.struct([("role", pa.string()), ("content", pa.binary())]))


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_text_in_binary_columns_is_text(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "g.parquet"
    texts = ["### Human: é", "### Human: b", "### Human: \N{GRINNING FACE}"]
    pq.write_table(pa.table({"text": pa.array([text.encode() for text in texts], kind)}), path)
    assert turns(read_path(path)) == [[("user", text.removeprefix("### Human: "))] for text in texts]
    pq.write_table(pa.table({"text": pa.array([texts[0].encode(), b"### Human: \xff", texts[1].encode()], kind)}), path)
    reading = read_path(path)
    assert turns(reading) == [[("user", "é")], [("user", "b")]] and fates(reading) == [(2, "bad_utf8")]


def test_binary_contents_of_messages_and_trees(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    rows = [[{"role": "user", "content": content}] for content in (b"hi \xc3\xa9", b"\xe9", None, b"yo")]
    pq.write_table(pa.table({"messages": pa.array(rows, BINARY)}), path)
    reading = read_path(path)
    assert turns(reading) == [[("user", "hi é")], [("user", "")], [("user", "yo")]]
    assert fates(reading) == [(2, "bad_utf8")]
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


def test_ids_of_mixed_types_are_all_kept(tmp_path: Path) -> None:
    """The first hundred, which a format is fitted to, are numbers."""
    ids = [*range(150), "abc", 12345678901234567890, 3.5]
    reading = read_bytes(tmp_path, "g.jsonl", json_lines({"id": id_, "text": "### Human: a"} for id_ in ids))
    assert reading.conversations["id"].to_list() == [str(id_) for id_ in ids] and reading.notes == []


@pytest.mark.parametrize("container", ["jsonl", "parquet"])
@pytest.mark.parametrize("odd", [{"name": "x"}, True, [5]])
def test_a_fact_of_another_type_is_counted_and_those_that_come_later_are_read(
    tmp_path: Path, container: str, odd: object
) -> None:
    rows = [{"lang": odd, "text": "### Human: a"}] * 150
    reading = read_path(write(tmp_path, container, rows))
    assert reading.conversations["lang"].null_count() == 150
    assert reading.notes == [
        f"data.{container}: 150 values of 'lang' are none that it can have, and are taken as not told."
    ]
    if container == "jsonl":
        reading = read_path(write(tmp_path, container, [*rows, {"lang": "en", "text": "### Human: a"}]))
        assert reading.conversations["lang"].to_list() == [None] * 150 + ["en"] and "150 values" in reading.notes[0]


def test_an_empty_file_beside_others_is_a_note(tmp_path: Path) -> None:
    for name, data in (("a.jsonl", b""), ("b.jsonl", GOOD), ("c.json", b"[]")):
        (tmp_path / name).write_bytes(data)
    reading = read_path(tmp_path)
    assert turns(reading) == [HI] and [file.records for file in reading.files] == [0, 1, 0]
    assert reading.notes == [f"{name} is empty: nothing is read from it." for name in ("a.jsonl", "c.json")]
    (tmp_path / "b.jsonl").unlink()
    with pytest.raises(InputError, match="a.jsonl is empty"):
        read_path(tmp_path)


def test_records_are_counted_before_anybody_looks_into_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a line which a format lost without a word is missed by the ledger."""
    parse = jsonlines.parse
    monkeypatch.setattr(jsonlines, "_by_lines", lambda block, schema: parse(block._replace(data=GOOD), schema, schema))
    reading = read_bytes(tmp_path, "g.jsonl", b"\n".join([GOOD, b" \t", b"bad", b"worse", b"", GOOD]))
    assert reading.conversations.height == 2 and reading.bad == 0 and reading.files[0].records == 4


def test_an_arrow_stream_that_breaks_off(tmp_path: Path) -> None:
    table = pa.table({"text": ["### Human: a"] * 100})
    path = tmp_path / "g.arrow"
    with pa.ipc.new_stream(path, table.schema) as writer:
        for _ in range(10):
            writer.write_table(table)
    path.write_bytes(path.read_bytes()[:-1000])
    reading = read_path(path)
    assert reading.conversations.height == 900 and fates(reading) == [(901, "truncated")]
