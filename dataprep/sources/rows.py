"""Rows of a source in the schema of their format, the records rejected on the way, and counts for notes.

Every container (JSON lines, JSON array, Parquet, Arrow, CSV) hands `ParsedRows` to a format: a record batch, the
record number of each row, and the rejects so far.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from dataprep.common.arrow import numbers, to_numpy
from dataprep.sources.schema import RecordSchema

Lines = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Fault = tuple[int, str, str]  # line, rule and detail of a record that cannot be read
Problems = dict[int, tuple[str, str]]  # rule and detail of the first problem of a row, by the row's position

# A record that never became a message or a conversation: its number in the file, its id if it has one, and the reason.
REJECTS: dict[str, pl.DataType] = {
    "line": pl.Int64(),
    "id": pl.String(),
    "kind": pl.String(),  # line, or message for one message of a nested tree
    "rule": pl.String(),
    "detail": pl.String(),
}
MAX_KEYS = 1_000  # keys that are not used and counted one by one; a record of millions of keys must not fill the memory


@dataclass
class FieldCounts:
    """Keys that did not go into the result as they are: how often they have a value.

    A key inside of messages is called `messages.key`. `turns` is the number of all turns seen.
    """

    uncoercible: Counter[str] = field(default_factory=Counter)  # values of the wrong type that were read as null
    unused: Counter[str] = field(default_factory=Counter)  # keys that no format uses
    unknown_roles: Counter[str] = field(default_factory=Counter)  # roles that are not known, in turns
    turns: int = 0
    unused_others: int = 0  # values of further keys that are not used, where there are more than `MAX_KEYS`

    def limit_keys(self) -> None:
        """Keep the counts of the `MAX_KEYS` keys that come first by name.

        A key that is among them in the end always was, so its count is that of all records, in any order of the parts.
        """
        for name in sorted(self.unused)[MAX_KEYS:]:
            self.unused_others += self.unused.pop(name)

    def add(self, other: FieldCounts) -> None:
        """Add the counts of other rows."""
        self.uncoercible += other.uncoercible
        self.unused += other.unused
        self.unknown_roles += other.unknown_roles
        self.turns += other.turns
        self.unused_others += other.unused_others
        if len(self.unused) > MAX_KEYS:
            self.limit_keys()


class ParsedRows(NamedTuple):
    """`batch` has the columns of a schema (optional ones only if they occur), `line` the record number of each row.

    `rejects` has the schema `REJECTS`. `rewritten` tells that the schema is that of the `messages` format.
    """

    batch: pa.RecordBatch
    line: Lines
    rejects: pl.DataFrame
    counts: FieldCounts
    rewritten: bool = False


def rejects(faults: Iterable[Fault] = ()) -> pl.DataFrame:
    """Make the rejects of whole lines from tuples of (line, rule, detail)."""
    rows = [(line, None, "line", rule, detail) for line, rule, detail in faults]
    return pl.DataFrame(rows, schema=REJECTS, orient="row")


def reject(rows: ParsedRows, problems: Mapping[int, tuple[str, str]]) -> ParsedRows:
    """Move the rows with a problem to the rejects."""
    if not problems:
        return rows
    positions = sorted(problems)
    is_bad = np.zeros(len(rows.line), np.bool_)
    is_bad[positions] = True
    new = rejects((int(rows.line[row]), *problems[row]) for row in positions)
    new = new.with_columns(id=_own_ids(rows.batch, is_bad))
    kept = rows.batch.filter(numbers(~is_bad))
    return rows._replace(batch=kept, line=rows.line[~is_bad], rejects=pl.concat([rows.rejects, new]))


def add_problem(problems: Problems, rows: Iterable[int], rule: str, detail: str) -> None:
    """Note a problem of `rows`, except of those that have one already."""
    for row in rows:
        problems.setdefault(row, (rule, detail))


def positions(mask: pa.BooleanArray) -> list[int]:
    """Return the positions at which an Arrow mask is true."""
    selected: list[int] = np.flatnonzero(to_numpy(mask)).tolist()
    return selected


def _own_ids(batch: pa.RecordBatch, selected: Bools) -> pl.Series:
    """Return the ids that the selected rows have in the source; null for those without one."""
    name = next((name for name in ("message_id", "id") if name in batch.schema.names), None)
    values = batch.column(name).filter(numbers(selected)).to_pylist() if name else [None] * int(selected.sum())
    return pl.Series("id", [None if value is None else str(value) for value in values], pl.String)


def reject_incomplete(rows: ParsedRows, schema: RecordSchema) -> ParsedRows:
    """Reject the rows that are null in a required column."""
    problems: Problems = {}
    for column in schema.columns:
        if column.required:
            array = rows.batch.column(column.name)
            if array.null_count:
                add_problem(problems, positions(array.is_null()), "wrong_schema", f"has no '{column.name}'")
    return reject(rows, problems)
