"""Collects what a build's report needs of its rows while they are written, so that no shard is read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.arrow import strings
from dataprep.contract import SHARD_SCHEMA
from dataprep.report.duplicates import largest_exact_groups

SAMPLE = 200  # conversations that the report shows in full


class CollectedRows:
    """Numbers of all rows, a seeded sample of the rows, and the messages of the survivors of the largest duplicate groups."""

    def __init__(self, rows: int, seed: int, fates: pl.DataFrame) -> None:
        """`rows` is the number of all rows to come; `fates` (`tables.FATES`) name the survivors of duplicates."""
        self._drawn = np.sort(np.random.default_rng(seed).choice(rows, min(SAMPLE, rows), replace=False))
        self._survivors = strings(largest_exact_groups(fates)["survivor"])
        self.schema = SHARD_SCHEMA  # of the rows: `shard_schema` with the message fields of the build
        self._numbers: list[pl.DataFrame] = []
        self._rows: dict[str, int] = {}  # rows seen of each split
        self.sample: list[tuple[str, int, dict[str, Any]]] = []  # split, row number in it, the row
        self.survivors: dict[str, list[dict[str, Any]]] = {}  # id of a survivor: its messages

    @classmethod
    def of_splits(cls, splits: Mapping[str, pa.Table], seed: int, fates: pl.DataFrame) -> CollectedRows:
        """What the rows of whole splits give, in their order."""
        collected = cls(sum(table.num_rows for table in splits.values()), seed, fates)
        for split, table in splits.items():
            for batch in table.to_batches():
                collected.add(batch, row_numbers(batch), split)
        return collected

    def add(self, batch: pa.RecordBatch, numbers: pl.DataFrame, split: str) -> None:
        """Take what is needed from the next rows (`contract.SHARD_SCHEMA`) of `split`, and their `row_numbers`."""
        self.schema = batch.schema
        before, row = sum(self._rows.values()), self._rows.get(split, 0)
        drawn = self._drawn[(self._drawn >= before) & (self._drawn < before + batch.num_rows)] - before
        for at in drawn.tolist():
            self.sample.append((split, row + at, batch.slice(at, 1).to_pylist()[0]))
        self._rows[split] = row + batch.num_rows
        self._numbers.append(numbers)
        if len(self._survivors):
            # pyarrow's, because Polars' threads render meanwhile
            survivor_rows = batch.select(["id", "messages"]).filter(pc.is_in(batch.column("id"), self._survivors))
            self.survivors |= {record["id"]: record["messages"] for record in survivor_rows.to_pylist()}

    @property
    def numbers(self) -> pl.DataFrame:
        """For each row: `answers` (spans), `chars` (code points of the text) and `trained` (code points inside spans)."""
        return pl.concat(self._numbers)


def row_numbers(batch: pa.RecordBatch) -> pl.DataFrame:
    """The columns of `CollectedRows.numbers` for each row of a batch."""
    span = pl.element().struct
    spans = pl.col("spans").list
    trained = spans.eval(span.field("end") - span.field("start")).list.sum()
    columns = {"answers": spans.len(), "chars": pl.col("text").str.len_chars(), "trained": trained}
    return pl.DataFrame(batch.select(["text", "spans"])).select(**columns)
