"""Mutated source files: JSON lines, JSON, gzip, Parquet, Arrow files and Arrow streams; and files that expand without bound."""

from __future__ import annotations

import gzip
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.hostile.builds import build_command
from tests.hostile.cases import Case, Sandbox
from tests.hostile.mutation import hostile_json, json_bytes, mutated, mutated_json

ROWS = 40
_TOOL = {
    "type": "function",
    "function": {"name": "now", "parameters": {"type": "object", "properties": {"zone": {"type": "string"}}}},
}


def _turns(n: int, names: tuple[str, str, str, str]) -> list[dict[str, Any]]:
    role, content, user, assistant = names
    return [{role: user, content: f"é question {n}"}, {role: assistant, content: f"answer {n} 漢字"}]


def _tree(n: int) -> dict[str, Any]:
    reply = {
        "message_id": f"r{n}",
        "parent_id": f"p{n}",
        "text": f"reply {n}",
        "role": "assistant",
        "lang": "en",
        "rank": 0,
    }
    prompt = {
        "message_id": f"p{n}",
        "parent_id": None,
        "text": f"prompt {n}",
        "role": "prompter",
        "lang": "en",
        "deleted": False,
    }
    labels = {"quality": {"value": 0.5, "count": 3}}
    return {
        "message_tree_id": f"p{n}",
        "tree_state": "ready_for_export",
        "prompt": prompt | {"replies": [reply | {"labels": labels}]},
    }


# Records of each format that `dataprep` reads.
RECORDS: dict[str, Callable[[int], dict[str, Any]]] = {
    "guanaco": lambda n: {"text": f"### Human: question {n}### Assistant: answer {n}"},
    "messages": lambda n: {"id": f"i{n}", "messages": _turns(n, ("role", "content", "user", "assistant"))},
    "sharegpt": lambda n: {"conversations": _turns(n, ("from", "value", "human", "gpt")), "system": "Be brief."},
    "alpaca": lambda n: {"instruction": f"Do {n}", "input": "", "output": f"done {n}", "history": [["a", "b"]]},
    "completion": lambda n: {"prompt": f"question {n}", "completion": f"answer {n}"},
    "trees": _tree,
    "tools": lambda n: {
        "tools": [_TOOL],
        "messages": [
            {"role": "user", "content": f"Time {n}?"},
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": "now", "arguments": {}}}]},
            {"role": "tool", "content": "noon"},
            {"role": "assistant", "content": f"Noon {n}.", "reasoning_content": "easy"},
        ],
    },
}  # fmt: skip


def records(rng: random.Random) -> list[dict[str, Any]]:
    """Sound records of one format."""
    record = RECORDS[rng.choice(sorted(RECORDS))]
    return [record(n) for n in range(ROWS)]


def json_lines(rng: random.Random) -> bytes:
    """Lines of which some records or bytes are changed."""
    rows = records(rng)
    if rng.random() < 0.3:
        return mutated(b"".join(json_bytes(row, rng) + b"\n" for row in rows), rng)
    share = rng.choice((0.03, 0.1, 1.0))
    lines = [hostile_json(row, rng) if rng.random() < share else json.dumps(row).encode() for row in rows]
    return rng.choice((b"\n", b"\n", b"\r\n", b"\n\n \n", b"\r")).join(lines)


def json_array(rng: random.Random) -> bytes:
    """An array, or objects of several lines, of which some records or bytes are changed."""
    rows = records(rng)
    if rng.random() < 0.3:
        return b"\n".join(json.dumps(row, indent=1).encode() for row in [*rows, mutated_json(rows[0], rng)])
    if rng.random() < 0.5:
        return hostile_json(rows, rng)
    lines = [hostile_json(row, rng) if rng.random() < 0.1 else json.dumps(row).encode() for row in rows]
    return b"[" + b",\n".join(lines) + rng.choice((b"]", b"", b",]", b"] x"))


def gzipped(rng: random.Random) -> bytes:
    """A gzip file of damaged lines, or a damaged gzip file; of several members sometimes."""
    data = json_lines(rng)
    half = rng.randrange(len(data) + 1)
    parts = [data] if rng.random() < 0.7 else [data[:half], data[half:]]
    packed = b"".join(gzip.compress(part, rng.choice((0, 1, 9)), mtime=0) for part in parts)
    return (
        mutated(packed, rng) if rng.random() < 0.7 else packed + rng.choice((b"", b"\0" * 512, b"x" * 99, packed[:20]))
    )


def _table(rng: random.Random) -> pa.Table:
    """Records as columns; some types differ from those that are read elsewhere."""
    rows = records(rng)
    if rng.random() < 0.3:
        rows = [mutated_json(row, rng) if rng.random() < 0.1 else row for row in rows]
    try:
        table = pa.Table.from_pylist(rows)
    except (pa.ArrowException, AttributeError, OverflowError, TypeError, ValueError):  # no table has such values
        table = pa.Table.from_pylist(records(rng))
    changed = rng.choice(("", "", "dictionary", "view", "large", "extra"))
    if changed == "extra":
        return table.append_column("at", pa.array([2**62, -(2**62), 0, *[None] * (len(table) - 3)], pa.timestamp("us")))
    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and changed:
            kinds = {"view": pa.string_view(), "large": pa.large_string()}
            column = (
                table.column(index).dictionary_encode()
                if changed == "dictionary"
                else table.column(index).cast(kinds[changed])
            )
            table = table.set_column(index, field.name, column)
    return table


def arrow_stream(rng: random.Random) -> bytes:
    table, sink = _table(rng), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=15)
    return mutated(sink.getvalue(), rng)


def arrow_file(rng: random.Random) -> bytes:
    table, sink = _table(rng), io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=rng.choice((None, "zstd", "lz4")))
    with pa.ipc.new_file(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=15)
    return mutated(sink.getvalue(), rng)


def parquet(rng: random.Random) -> bytes:
    table, sink = _table(rng), io.BytesIO()
    try:
        pq.write_table(table, sink, row_group_size=15, compression=rng.choice(("none", "snappy", "zstd")))
    except pa.ArrowException:  # a type that Parquet does not have
        return arrow_file(rng)
    return mutated(sink.getvalue(), rng)


FORMATS: dict[str, tuple[str, Callable[[random.Random], bytes]]] = {
    "jsonl": ("rows.jsonl", json_lines),
    "json": ("rows.json", json_array),
    "gz": ("rows.jsonl.gz", gzipped),
    "Parquet": ("rows.parquet", parquet),
    "Arrow file": ("rows.arrow", arrow_file),
    "Arrow stream": ("rows.arrow", arrow_stream),
}


def cases(kind: str, sandbox: Sandbox, rng: random.Random, count: int) -> Iterator[Case]:
    """Builds and audits of `count` mutated files of the format `kind`."""
    name, make = FORMATS[kind]
    for number in range(count):
        sandbox.prepare()
        file = sandbox.input / name
        file.write_bytes(make(rng))
        if rng.random() < 0.15:
            repaired = ("--repaired", str(sandbox.out / "repaired.jsonl")) if rng.random() < 0.5 else ()
            yield Case.of(f"{kind} {number}", "audit", file, *repaired)
        else:
            options = ["--dry-run"] if rng.random() < 0.5 else ["--near-dup", "off"] if rng.random() < 0.5 else []
            max_bad = ["--max-bad", "1"] if rng.random() < 0.7 else []
            yield Case.of(f"{kind} {number}", *build_command(file, sandbox), *options, *max_bad)


_GOOD = b'{"text": "### Human: hi### Assistant: yo"}'
# Name, start, part, times, end: what a compressed file of a few megabytes expands to.
BOMBS: dict[str, tuple[str, bytes, bytes, int, bytes]] = {
    "300 million line breaks": ("rows.jsonl.gz", b"", b"\n" * 10**6, 300, _GOOD),
    "300 million line breaks in CSV": ("rows.csv.gz", b"prompt,completion\n", b"\n" * 10**6, 300, b"a,b"),
    "300 million line breaks in a cell": ("rows.csv.gz", b'prompt,completion\na,"', b"\n" * 10**6, 300, b'"'),
    "1 GB of zeros": ("rows.jsonl.gz", b"", bytes(10**6), 1000, b"\n" + _GOOD),
    "a line of 1 GB": ("rows.jsonl.gz", b'{"text": "', b"x" * 10**6, 1000, b'"}\n' + _GOOD),
    "one object of many lines": ("rows.json.gz", b"{\n", b'"a":1,\n' * 10**5, 300, b'"b": 2}'),
    "many lines that are no JSON": ("rows.json.gz", b"", b'{"text": 1\n' * 10**5, 100, _GOOD),
    "spaces in an array": ("rows.json.gz", b"[", b" " * 10**6, 500, _GOOD + b"]"),
    "many empty objects": ("rows.jsonl.gz", b"", b"{}\n" * 10**5, 30, _GOOD),
    "open brackets": ("rows.json.gz", b"", b"[" * 10**6, 100, b""),
    "300 million commas": ("rows.json.gz", b"[", b"," * 10**6, 300, _GOOD + b"]"),
}  # fmt: skip


def write_bomb(path: Path, start: bytes, part: bytes, times: int, end: bytes) -> None:
    """Write a gzip file that expands to `start`, `times` times `part`, and `end`."""
    packed = gzip.compress(part, 9, mtime=0)
    path.write_bytes(b"".join([gzip.compress(start, mtime=0), *[packed] * times, gzip.compress(end, mtime=0)]))


def bombs(sandbox: Sandbox, rng: random.Random, count: int, scale: float = 1.0) -> Iterator[Case]:
    """Builds of files that expand without bound: `count` of them, in order, at `scale` of their size."""
    for name, (file, start, part, times, end) in list(BOMBS.items())[:count]:
        sandbox.prepare()
        write_bomb(sandbox.input / file, start, part, round(times * scale), end)
        yield Case.of(name, *build_command(sandbox.input / file, sandbox))


_CHAT = '{"messages": [{"role": "user", "content": "q"%s}, {"role": "assistant", "content": "a"}]%s}\n'
_LONG_TEXT = "### Human: " + "q" * 3_000 + "### Assistant: a"


def _keys(count: int) -> str:
    return "".join(f', "key{number}": 1' for number in range(count))


def _repeated_values(count: int) -> pa.Table:
    """A long text in `count` rows, stored once."""
    return pa.table({"text": pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([_LONG_TEXT]))})


def _parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def _arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


_SOME_CHATS = "".join(_CHAT % ("", f', "id": "{number}"') for number in range(500))
# Name: file, and what makes its content from a number. Small files that take time or memory out of proportion if each key
# costs a value in every row, or if a value is copied for each row.
WIDE: dict[str, tuple[str, Callable[[int], bytes]]] = {
    "a key for each record": (
        "rows.jsonl",
        lambda n: "".join(_CHAT % ("", f', "key{number}": 1') for number in range(n)).encode(),
    ),
    "a record of many keys": ("rows.jsonl", lambda n: (_SOME_CHATS + _CHAT % ("", _keys(10 * n))).encode()),
    "a message of many keys": ("rows.jsonl", lambda n: (_SOME_CHATS + _CHAT % (_keys(10 * n), "")).encode()),
    "metadata of many keys": (
        "rows.jsonl",
        lambda n: (_SOME_CHATS + _CHAT % ("", ', "meta": {"a": 1' + _keys(10 * n) + "}")).encode(),
    ),
    "a column for each key": ("rows.csv", lambda n: f"prompt,completion{_keys(n)}\n".encode() + b"a,b" + b",1" * n),
    "a Parquet column for each key": (
        "rows.parquet",
        lambda n: _parquet(pa.table({"text": ["x"] * 30, **{f"key{k}": [k] * 30 for k in range(n // 10)}})),
    ),
    "one id in all records": ("rows.jsonl", lambda n: (_CHAT % ("", ', "id": "same"') * 10 * n).encode()),
    "a text in all rows of Parquet": ("rows.parquet", lambda n: _parquet(_repeated_values(2 * n))),
    "a text in all rows of Arrow": ("rows.arrow", lambda n: _arrow(_repeated_values(2 * n))),
    "a row of 20,000 times the others": (
        "rows.parquet",
        lambda n: _parquet(pa.table({"text": [_LONG_TEXT] * 99 + ["x" * 5_000 * n]})),
    ),
    "a text in all records, compressed": (
        "rows.jsonl.gz",
        lambda n: gzip.compress(json.dumps({"text": _LONG_TEXT}).encode() + b"\n", mtime=0) * (2 * n),
    ),
}
_WIDTH = 30_000


def wide(sandbox: Sandbox, rng: random.Random, count: int, scale: float = 1.0) -> Iterator[Case]:
    """Builds of `count` files of `WIDE`, in order, at `scale` of their size."""
    for name, (file, make) in list(WIDE.items())[:count]:
        sandbox.prepare()
        (sandbox.input / file).write_bytes(make(round(_WIDTH * scale)))
        yield Case.of(name, *build_command(sandbox.input / file, sandbox), "--near-dup", rng.choice(("off", "0.9")))
