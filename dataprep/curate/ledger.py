"""Conservation of records: each is kept or has a fate, and `in = kept + dropped + not sampled` holds for every stage.

A sum that does not hold is a bug of dataprep: it raises AssertionError and nothing is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from dataprep.common.errors import InputError
from dataprep.common.funnel import fate_counts, funnel_of, language_counts
from dataprep.tables import FATES, KEPT, StageResult, conform, fated


@dataclass
class Ledger:
    """The fates and notes of all stages so far, and the number of conversations that go on."""

    fates: list[pl.DataFrame] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    remaining: int | None = None  # None until the threads stage has made conversations of what was read

    def enter(self, stage: str, *steps: StageResult[Any]) -> pl.DataFrame:
        """Record the consecutive steps of a stage and return the conversations that go on.

        Raises:
            AssertionError: a step lost or invented a record, or assigned fates in the name of another stage.
        """
        for kept, fates, notes, _ in steps:
            if self.remaining is not None and self.remaining != kept.height + fates.height:
                raise AssertionError(
                    f"{stage}: of {self.remaining} records, {kept.height} go on and {fates.height} have a fate"
                )
            self._add(stage, fates)
            self.notes += notes
            self.remaining = kept.height
        return steps[-1].kept

    def enter_rejected(self, fates: pl.DataFrame, notes: Sequence[str]) -> None:
        """Record what reading rejected.

        Reading has no `kept`: the messages of a tree become conversations in the threads stage only.
        """
        self._add("read", fates)
        self.notes += notes

    def _add(self, stage: str, fates: pl.DataFrame) -> None:
        if not (fates["stage"] == stage).all():
            raise AssertionError(f"{stage}: fates of other stages: {fates['stage'].unique().sort().to_list()}")
        self.fates.append(conform(fates, FATES))

    def close(self, splits: dict[str, pl.DataFrame]) -> pl.DataFrame:
        """One frame of all fates; `row` is filled in for records that never became a conversation.

        Raises:
            AssertionError: the splits do not hold the conversations that the last stage kept.
            InputError: `train` is empty.
        """
        kept = [fated(frame, "conversation", KEPT, KEPT, name) for name, frame in splits.items()]
        rows = sum(frame.height for frame in kept)
        if rows != self.remaining:
            raise AssertionError(f"the last stage kept {self.remaining} records, and the splits have {rows}")
        fates = pl.concat([*self.fates, *kept])
        self._require_training_rows(splits)
        numbered = pl.col("row").max().fill_null(-1) + pl.col("row").is_null().cum_sum().cast(pl.Int64)
        return fates.with_columns(row=pl.coalesce("row", numbered), repairs=pl.col("repairs").fill_null([]))

    def _require_training_rows(self, splits: dict[str, pl.DataFrame]) -> None:
        if splits["train"].height:
            return
        if self.remaining:
            raise InputError("Nothing would be left to train on: --split takes every row into test; ask for fewer.")
        rules = [
            f"{count} {rule}" for stage in funnel_of(pl.concat(self.fates)) for rule, count in stage["rules"].items()
        ]
        raise InputError(f"Nothing would be left: every record was dropped ({', '.join(rules) or 'there was none'}).")


def check_lines(files: Sequence[tuple[str, int]], read: Sequence[pl.DataFrame], fates: pl.DataFrame) -> None:
    """Check that every record of the sources was read or has a fate.

    Args:
        files: name of each file, and its number of records, counted before they were parsed.
        read: frames of conversations and messages, with `file` and `line`.
        fates: FATES of reading.

    Raises:
        AssertionError: names the file and both numbers.
    """
    numbers = pl.DataFrame({"source": [name for name, _ in files]}).with_row_index("file")
    located = [*read, fates.join(numbers, on="source")]
    lines = pl.concat(frame.select(pl.col("file").cast(pl.Int32), "line") for frame in located).unique()
    accounted = dict(lines.group_by("file").len().rows())
    for number, (name, records) in enumerate(files):
        if accounted.get(number, 0) != records:
            raise AssertionError(
                f"{name} has {records} records, and {accounted.get(number, 0)} of them were accounted for"
            )


def check_messages(messages: pl.DataFrame, conversations: pl.DataFrame, fates: pl.DataFrame) -> None:
    """Check that every message is on a path or has a fate (its own or its tree's), and that every line has one.

    Args:
        messages: MESSAGES from which the threads were chosen.
        conversations: the threads; `message_ids` are those of their paths.
        fates: FATES of the messages and trees that are on no path.

    Raises:
        AssertionError: says how many messages or lines are unaccounted for.
    """
    ids_on_paths = conversations["message_ids"].explode(empty_as_null=False)
    on_path = messages.unique("message_id", keep="first").filter(pl.col("message_id").is_in(ids_on_paths.implode()))
    off_path = fates.filter((pl.col("kind") == "message") & (pl.col("rule") != "on_path"))
    location = ["source", "line"]
    dropped_trees = fates.filter(kind="tree").select(location)
    expected, accounted = (
        frame.select(location).join(dropped_trees, on=location, how="anti").height
        for frame in (messages, pl.concat([on_path.select(location), off_path.select(location)]))
    )
    if expected != accounted:
        raise AssertionError(f"threads: of {expected} messages, {accounted} are on a path or have a fate")
    lines = pl.concat([conversations.select(location), fates.select(location)])
    unaccounted = messages.select(location).unique().join(lines, on=location, how="anti")
    if unaccounted.height:
        raise AssertionError(f"threads: {unaccounted.height} lines have no fate, such as {unaccounted.row(0)}")


def summary(splits: dict[str, pl.DataFrame], fates: pl.DataFrame, notes: Sequence[str]) -> dict[str, Any]:
    """`rows, splits, fates, kinds, repairs, languages, funnel, notes` of a manifest.

    Args:
        splits: the conversations of each split.
        fates: what `Ledger.close` returned.
        notes: sentences for the readers of the report.
    """
    return {
        "rows": sum(frame.height for frame in splits.values()),
        "splits": {name: {"rows": frame.height} for name, frame in splits.items()},
        **fate_counts(fates),
        "languages": language_counts(frame["lang"] for frame in splits.values()),
        "funnel": funnel_of(fates),
        "notes": list(notes),
    }
