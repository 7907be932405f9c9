"""Helpers for tests of sources: write records to files, read them, and return the result as plain Python."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.sources.files import find_files
from dataprep.sources.options import ReadOptions
from dataprep.sources.reader import Reading, read

Turn = tuple[str, str]


def read_path(*paths: Path | str, **options: Any) -> Reading:
    return read(find_files([str(path) for path in paths]), ReadOptions(**options))


def read_bytes(folder: Path, name: str, data: bytes, **options: Any) -> Reading:
    path = folder / name
    path.write_bytes(data)
    return read_path(path, **options)


def json_lines(records: Iterable[Any], *, ascii: bool = True) -> bytes:
    return b"".join(json.dumps(record, ensure_ascii=ascii).encode() + b"\n" for record in records)


def write(folder: Path, container: str, records: Sequence[dict[str, Any]]) -> Path:
    """Write `records` to a file of the kind `container`: an extension, and for variants a second word."""
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
    """Return the conversations as lists of (role, content)."""
    return [[(turn["role"], turn["content"]) for turn in row] for row in reading.conversations["messages"].to_list()]


def fates(reading: Reading) -> list[tuple[int, str]]:
    """Return (line, rule) of each rejected record."""
    return reading.fates.select("line", "rule").rows()
