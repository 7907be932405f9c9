"""Records that reading rejected: an error when there are too many, a note when there are few."""

from __future__ import annotations

import polars as pl

from dataprep.common.errors import InputError


def rejection_notes(fates: pl.DataFrame, records: int, max_bad: float) -> list[str]:
    """Return sentences about the rejected records: files that end early, the number, and where the first is.

    A tree is one record, however many of its messages are rejected.

    Args:
        fates: FATES of reading.
        records: number of records in all files.
        max_bad: largest share (0 to 1) of rejected records.

    Raises:
        InputError: the share is above `max_bad`.
    """
    if fates.is_empty():
        return []
    rejected = fates.select("source", "line").n_unique()
    source, line, rule, detail = fates.select("source", "line", "rule", "detail").row(0)
    count = f"{rejected} of {records} records cannot be read"
    first = f"the first is in line {line} of {source} ({rule}: {detail})"
    if rejected > max_bad * records:
        raise InputError(f"{count}, above --max-bad {max_bad:g}; {first}.")
    # what follows the break in a file is one rejected record, however long it was: so the break has its own sentence
    truncated = fates.filter(pl.col("rule") == "truncated").select("source", "detail").rows()
    return [*(f"{name} breaks off: {reason}." for name, reason in truncated), f"{count}; {first}."]
