"""Records that reading rejected: an error when there are too many, a note when there are few.

Records that are sound, but have a key that cannot be used or belong to another split, are counted separately.
"""

from __future__ import annotations

import polars as pl

from dataprep.common.errors import InputError
from dataprep.common.text import plural
from dataprep.sources.coercion import UNSUPPORTED_FIELD
from dataprep.sources.fields import UNKNOWN_FIELD
from dataprep.sources.splits import OTHER_SPLIT

# Rules under which a sound record is dropped, and why.
_DELIBERATE = {
    UNSUPPORTED_FIELD: "they have a field that changes what is learnt and cannot be used",
    UNKNOWN_FIELD: "they have a field that is not used, and --unknown-fields is drop",
    OTHER_SPLIT: "they belong to another split than train",
}


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
    notes = []
    for rule, reason in _DELIBERATE.items():
        dropped = fates.filter(pl.col("rule") == rule).select("source", "line").n_unique()
        if dropped:
            notes.append(f"{dropped:,} of {plural(records, 'record')} dropped, because {reason} ({rule}).")
    fates = fates.filter(~pl.col("rule").is_in(list(_DELIBERATE)))
    if fates.is_empty():
        return notes
    rejected = fates.select("source", "line").n_unique()
    source, line, rule, detail = fates.select("source", "line", "rule", "detail").row(0)
    count = f"{rejected:,} of {plural(records, 'record')} cannot be read"
    first = f"the first is in line {line} of {source} ({rule}: {detail})"
    if rejected > max_bad * records:
        raise InputError(f"{count}, above --max-bad {max_bad:g}; {first}.")
    # what follows the break in a file is one rejected record, however long it was: so the break has its own sentence
    truncated = fates.filter(pl.col("rule") == "truncated").select("source", "detail").rows()
    return [*notes, *(f"{name} breaks off: {reason}." for name, reason in truncated), f"{count}; {first}."]
