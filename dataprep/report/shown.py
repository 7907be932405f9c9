"""What a build's report shows of its rows, taken as they pass by: nothing that was written is read again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.report.duplicates import repeated

SAMPLE = 200  # conversations to browse


class Shown:
    """Numbers of all rows, a seeded sample of them, and the messages of those that stand for the most others."""

    def __init__(self, rows: int, seed: int, fates: pl.DataFrame) -> None:
        """`rows` in all will be seen; `fates` (`conversations.FATES`) say which of them stand for others."""
        self._drawn = np.sort(np.random.default_rng(seed).choice(rows, min(SAMPLE, rows), replace=False))
        self._wanted = pa.array(repeated(fates)["survivor"].to_list(), pa.string())
        self._numbers: list[pl.DataFrame] = []
        self._passed: dict[str, int] = {}  # rows of each split
        self.sample: list[tuple[str, int, dict[str, Any]]] = []  # split, row in it, the row
        self.standing: dict[str, list[dict[str, str]]] = {}  # messages of those that stand for others, by id

    @classmethod
    def of(cls, tables: Mapping[str, pa.Table], seed: int, fates: pl.DataFrame) -> Shown:
        """Of whole splits."""
        shown = cls(sum(table.num_rows for table in tables.values()), seed, fates)
        for split, table in tables.items():
            for batch in table.to_batches():
                shown.see(batch, split)
        return shown

    def see(self, batch: pa.RecordBatch, split: str) -> None:
        """Take what is needed from the next rows (`contract.SHARD_SCHEMA`) of `split`."""
        before, row = sum(self._passed.values()), self._passed.get(split, 0)
        inside = self._drawn[(self._drawn >= before) & (self._drawn < before + batch.num_rows)] - before
        for at in inside.tolist():  # a few of them
            self.sample.append((split, row + at, batch.slice(at, 1).to_pylist()[0]))
        self._passed[split] = row + batch.num_rows
        self._numbers.append(_measured(batch))
        if len(self._wanted):
            found = batch.select(["id", "messages"]).filter(pc.is_in(batch.column("id"), self._wanted))
            self.standing |= {one["id"]: one["messages"] for one in found.to_pylist()}

    @property
    def numbers(self) -> pl.DataFrame:
        """answers, chars, trained: of each row the answers, and code points of its text in all and trained."""
        return pl.concat(self._numbers)


def _measured(batch: pa.RecordBatch) -> pl.DataFrame:
    place = pl.element().struct
    spans = pl.col("spans").list
    covered = spans.eval(place.field("end") - place.field("start")).list.sum()
    wanted = {"answers": spans.len(), "chars": pl.col("text").str.len_chars(), "trained": covered}
    return pl.DataFrame(batch.select(["text", "spans"])).select(**wanted)
