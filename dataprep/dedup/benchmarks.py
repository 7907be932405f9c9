"""Read the texts of benchmark files, which conversations are decontaminated against."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from dataprep.common.errors import InputError

BENCHMARK = {"benchmark": pl.String(), "item": pl.Int64(), "text": pl.String()}


def read_benchmark(path: Path) -> pl.DataFrame:
    """Read every text of a benchmark file, nested ones included.

    Args:
        path: JSONL (also `.gz`) or Parquet.

    Returns:
        `benchmark` (the file's name), `item` (its line or row, from 1) and `text`.

    Raises:
        InputError: the file is missing, empty, unreadable, or has no text.
    """
    if not path.is_file():
        raise InputError(f"There is no benchmark file {path}; give a JSONL, JSONL.gz or Parquet file.")
    items = list(_items(path))
    texts = [(path.name, number, text) for number, item in items for text in _texts(item)]
    if not items:
        raise InputError(f"The benchmark file {path} is empty; give one with an item on each line.")
    if not texts:
        raise InputError(f"None of the {len(items)} items of {path} has a text; give a file with text fields.")
    return pl.DataFrame(texts, schema=BENCHMARK, orient="row")


def _items(path: Path) -> Iterator[tuple[int, object]]:
    try:
        if path.suffix == ".parquet":
            yield from enumerate(pl.read_parquet(path).iter_rows(named=True), 1)
            return
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, json.loads(line)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"The benchmark file {path} cannot be read ({error}); give JSONL, JSONL.gz or Parquet."
        ) from error


def _texts(item: object) -> Iterator[str]:
    """Yield all strings in a JSON value, item by item: benchmarks are small and have any shape.

    A lone surrogate, which JSON may hold but UTF-8 may not, becomes a question mark.
    """
    if isinstance(item, str) and item.strip():
        yield item.encode("utf-8", "replace").decode()
    elif isinstance(item, dict | list):
        for part in item.values() if isinstance(item, dict) else item:
            yield from _texts(part)
