"""Arrow and Parquet files with one invalid value: what is sound in them is read, or they are refused in one sentence."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.common.errors import InputError
from tests.support.reading import fates, read_bytes, turns

TEXTS = [f"### Human: q{n}### Assistant: a{n}" for n in range(60)]
TABLE = pa.table({"text": TEXTS})


def stream(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    return sink.getvalue()


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=20)
    return sink.getvalue()


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
        read_bytes(tmp_path, "a.arrow", with_offset(TABLE, 20, value))


def test_an_invalid_batch_ends_the_file_and_the_batches_before_it_are_kept(tmp_path: Path) -> None:
    sound = TABLE.slice(0, 20).combine_chunks()
    bad = pa.ipc.open_stream(with_offset(TABLE.slice(0, 20), 10, 10**9)).read_next_batch()
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
