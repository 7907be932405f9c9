"""What the tests of sources share: write records, read them back, and say what came out in plain Python."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.sources.reader import Reading, find_files, read

Turn = tuple[str, str]


def read_path(*paths: Path | str, **options: Any) -> Reading:
    return read(find_files([str(path) for path in paths]), **options)


def read_bytes(folder: Path, name: str, data: bytes, **options: Any) -> Reading:
    path = folder / name
    path.write_bytes(data)
    return read_path(path, **options)


def json_lines(records: Iterable[Any], *, ascii: bool = True) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=ascii).encode() + b"\n" for record in records)


def write(folder: Path, container: str, records: Sequence[dict[str, Any]]) -> Path:
    """`records` in a file of the kind that `container` (an extension, or a word for a variant) says."""
    path = folder / f"data.{container.partition(' ')[0]}"
    if container == "jsonl":
        path.write_bytes(json_lines(records))
    elif container == "jsonl utf8":
        path.write_bytes(json_lines(records, ascii=False))
    elif container == "jsonl.gz":
        path.write_bytes(gzip.compress(json_lines(records), 1))
    elif container == "json":
        path.write_text(json.dumps(list(records)))
    elif container == "json indented":
        path.write_text(json.dumps(list(records), indent=2, ensure_ascii=False))
    elif container == "parquet":
        pq.write_table(pa.Table.from_pylist(list(records)), path)
    else:
        table = pa.Table.from_pylist(list(records))
        new = pa.ipc.new_stream if container == "arrow" else pa.ipc.new_file
        with new(path, table.schema) as writer:
            writer.write_table(table)
    return path


CONTAINERS = ("jsonl", "jsonl utf8", "jsonl.gz", "json", "json indented", "parquet", "arrow", "arrow file")


def turns(reading: Reading) -> list[list[Turn]]:
    """The conversations as lists of (role, content)."""
    return [[(turn["role"], turn["content"]) for turn in row] for row in reading.conversations["messages"].to_list()]


def fates(reading: Reading) -> list[tuple[int, str]]:
    """(line, rule) of each record that was lost."""
    return reading.fates.select("line", "rule").rows()
