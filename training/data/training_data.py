"""A build divided into training rows and held-out rows, both encoded and labelled."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from dataprep.common.lookup import locate
from dataprep.common.text import nearest, plural
from dataprep.contract import Build, open_build
from training.config import RunConfig
from training.data.encode import encode
from training.data.holdout import divide
from training.data.labels import LabelledRows, truncate_and_label
from training.errors import DataError
from training.model.tokenizer import ChatTokenizer


@dataclass(frozen=True)
class Split:
    """The rows of one split: `table` as the build holds them (SHARD_SCHEMA), and `labelled` ready to be packed."""

    table: pa.Table
    labelled: LabelledRows


@dataclass(frozen=True)
class TrainingData:
    """The rows that a run trains on, and the held-out rows (`test`, None if there are none)."""

    build: Build
    train: Split
    test: Split | None
    notes: list[str]
    not_used: int  # rows of the build that are neither trained nor held out

    def __post_init__(self) -> None:
        total = sum(table.num_rows for table in self.build.splits.values())
        if sum(self.rows.values()) != total:
            raise AssertionError(f"The build has {total} rows and the run accounts for {self.rows}.")

    @property
    def rows(self) -> dict[str, int]:
        """Number of the build's rows by use; each row is counted once."""
        held_out = self.test.table.num_rows if self.test else 0
        return {"train": self.train.table.num_rows, "held_out": held_out, "not_used": self.not_used}


def open_training_build(config: RunConfig) -> Build:
    """Open and verify the build named by `--data`.

    Raises:
        StoreError, BuildError, DamagedBuild: there is no such build, or a damaged one.
        DataError: the build's quality gate failed and `--allow-failed-gate` is not set, or it has no train split.
    """
    build = open_build(locate(config.store, str(config.data)))
    if build.manifest.gate == "failed" and not config.allow_failed_gate:
        raise DataError(
            f"The quality gate of {build.path} failed: repair the data and rebuild, or pass --allow-failed-gate."
        )
    if "train" not in build.splits:
        raise DataError(f"{build.path} has no split 'train'. {nearest('train', build.splits)}")
    return build


def load_training_data(config: RunConfig, build: Build, tokenizer: ChatTokenizer) -> TrainingData:
    """Divide the build into training and held-out rows, encode them, truncate them and set their labels."""
    division = divide(build, held_out=config.held_out, seed=config.seed)
    notes, not_used = list(division.notes), division.not_used
    train = _labelled(division.train, config, tokenizer, strict=True)
    test = _labelled(division.test, config, tokenizer, strict=False) if division.test is not None else None
    if test is not None and not test.labelled.ledger.rows:
        notes.append("No held-out conversation fits into the window, so there is no held-out loss.")
        not_used += test.table.num_rows
        test = None
    if not_used:
        notes.append(
            f"{plural(not_used, 'row')} of the build neither trained nor held out (--held-out {config.held_out})."
        )
    return TrainingData(build, train, test, notes, not_used)


def _labelled(table: pa.Table, config: RunConfig, tokenizer: ChatTokenizer, *, strict: bool) -> Split:
    encoded = encode(table, tokenizer)
    labelled = truncate_and_label(encoded, config.max_tokens, config.cut, config.train_on, strict=strict)
    return Split(table, labelled)
