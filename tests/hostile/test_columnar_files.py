"""Mutated Arrow and Parquet files: each is read or refused with one sentence, and none ends the process."""

from __future__ import annotations

import io
import json
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.common.errors import InputError
from tests.support.paths import ROOT
from tests.support.reading import fates, read_bytes, turns

FILES = 60  # of each kind
CHATS = [
    {"id": f"i{n}", "messages": [{"role": "user", "content": f"é {n}"}, {"role": "assistant", "content": f"a{n}"}]}
    for n in range(50)
]
TEXTS = [f"### Human: q{n}### Assistant: a{n}" for n in range(60)]
TABLES = {
    "text": pa.table({"text": TEXTS}),
    "messages": pa.Table.from_pylist(CHATS),
    "dictionary": pa.table({"text": pa.array([text[:14] + text[-16:] for text in TEXTS]).dictionary_encode()}),
    "view": pa.table({"text": pa.array(TEXTS, pa.string_view())}),
}
READ_ALL = """
import json, pathlib, sys
from dataprep.common.errors import UserError
from tests.support.reading import read_path
outcomes = {"read": 0, "refused": 0}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    print(path.name, file=sys.stderr, flush=True)  # the last name is that of the file that ended the process
    try:
        read_path(path).conversations.to_dicts()
        outcomes["read"] += 1
    except UserError:
        outcomes["refused"] += 1
print(json.dumps(outcomes))
"""


def stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    return sink.getvalue()


def file(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table, max_chunksize=20)
    return sink.getvalue()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=20)
    return sink.getvalue()


def mutated(data: bytes, rng: random.Random) -> bytes:
    """`data` with a few bits, bytes or integers changed, or bytes missing."""
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        at = rng.randrange(len(changed) - 8)
        kind = rng.randrange(5)
        if kind == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            changed[at] = rng.choice([0, 1, 127, 128, 255])
        elif kind == 2:
            struct.pack_into("<i", changed, at & ~3, rng.choice([2**31 - 1, 10**9, -5, -(2**31), 1, 0]))
        elif kind == 3:
            struct.pack_into("<q", changed, at & ~7, rng.choice([2**63 - 1, -1, 2**40, 0, -(2**63)]))
        else:
            del changed[at : at + rng.randrange(1, 8)]
    return bytes(changed)


@pytest.mark.parametrize("write", [stream, file, parquet])
def test_mutated_files_are_read_or_refused(tmp_path: Path, write: Callable[[pa.Table], bytes]) -> None:
    rng = random.Random(13)
    extension = "parquet" if write is parquet else "arrow"
    for name, table in TABLES.items():
        if write is parquet and name == "view":
            continue
        sound = write(table)
        for number in range(FILES):
            (tmp_path / f"{name}-{number:03}.{extension}").write_bytes(mutated(sound, rng))
    command = [sys.executable, "-c", READ_ALL, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    outcomes = json.loads(done.stdout)
    assert outcomes["read"] > 0 and outcomes["refused"] > 0


def with_offset(table: pa.Table, number: int, value: int) -> bytes:
    """A stream of one text column whose offset `number` is `value`."""
    [column] = table.combine_chunks().column("text").chunks
    offsets = bytearray(column.buffers()[1].to_pybytes())
    struct.pack_into("<i", offsets, 4 * number, value)
    text = pa.Array.from_buffers(pa.string(), len(column), [None, pa.py_buffer(bytes(offsets)), column.buffers()[2]])
    return stream(pa.table({"text": text}))


@pytest.mark.parametrize("value", [2**31 - 1, 10**9, -5])
def test_offsets_outside_of_the_data_are_refused(tmp_path: Path, value: int) -> None:
    with pytest.raises(InputError, match="cannot be read as an Arrow"):
        read_bytes(tmp_path, "a.arrow", with_offset(TABLES["text"], 20, value))


def test_an_invalid_batch_ends_the_file_and_the_batches_before_it_are_kept(tmp_path: Path) -> None:
    sound = TABLES["text"].slice(0, 20).combine_chunks()
    bad = pa.ipc.open_stream(with_offset(TABLES["text"].slice(0, 20), 10, 10**9)).read_next_batch()
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, sound.schema) as writer:
        writer.write_table(sound)
        writer.write_batch(bad)
    reading = read_bytes(tmp_path, "a.arrow", sink.getvalue())
    assert len(turns(reading)) == 20 and fates(reading) == [(21, "truncated")]


def test_dates_that_python_does_not_have_lose_no_row(tmp_path: Path) -> None:
    far = pa.array([2**62, 0, -(2**62)], pa.timestamp("us"))
    table = pa.table({"text": TEXTS[:3], "at": far, "day": pa.array([2**31 - 1, 0, -(2**31)], pa.date32())})
    assert len(turns(read_bytes(tmp_path, "a.parquet", parquet(table)))) == 3


def test_a_column_name_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    column = pa.array(TEXTS)
    with pytest.raises(InputError, match="several columns have the name 'text'"):
        read_bytes(tmp_path, "a.parquet", parquet(pa.table([column, column], names=["text", "text"])))
