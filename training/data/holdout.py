"""A build as windows to train on: the bond between a run and its data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dataprep.common.text import nearest
from dataprep.contract import Build, open_build
from training.config import RunConfig
from training.data.encode import IGNORED, encode
from training.data.labels import Prepared, prepare
from training.data.windows import Packed, pack
from training.errors import DataError
from training.model.attention import boundaries
from training.model.tokenizer import ChatTokenizer

if TYPE_CHECKING:
    import torch
    from datasets import Dataset

TREE_SHARE = 0.05  # of the trees that are kept from training where a build has no test split
MOST_TREES = 64


@dataclass(frozen=True)
class Split:
    """Rows of one side of the data, ready for windows: `table` of SHARD_SCHEMA, and what became of it."""

    table: pa.Table
    prepared: Prepared


@dataclass(frozen=True)
class Data:
    """What a run trains on, and what it is tested on (None: nothing is held out)."""

    build: Build
    train: Split
    test: Split | None
    notes: list[str]

    not_used: int  # rows of the build that are neither trained nor held out

    def __post_init__(self) -> None:
        every = sum(table.num_rows for table in self.build.splits.values())
        if sum(self.rows.values()) != every:
            raise AssertionError(f"The build has {every} rows and the run accounts for {self.rows}.")

    @property
    def rows(self) -> dict[str, int]:
        """The build's rows by what becomes of them: all of them, each once."""
        held_out = self.test.table.num_rows if self.test else 0
        return {"train": self.train.table.num_rows, "held_out": held_out, "not_used": self.not_used}


def open_data(config: RunConfig) -> Build:
    """The build that a run is bound to, verified.

    Raises:
        BuildError, DamagedBuild: no build there, or not what its manifest says.
        DataError: its gate failed and that was not allowed; it has no train split.
    """
    build = open_build(config.data)
    if build.manifest.gate == "failed" and not config.allow_failed_gate:
        raise DataError(f"The quality gate of {build.path} failed: repair the data, or say --allow-failed-gate.")
    if "train" not in build.splits:
        raise DataError(f"{build.path} has no split 'train'. {nearest('train', build.splits)}")
    return build


def load(config: RunConfig, build: Build, vocabulary: ChatTokenizer) -> Data:
    """Both sides of the build, encoded, cut and counted."""
    train, test, not_used, notes = _sides(config, build)
    trained = _prepared(train, config, vocabulary, strict=True)
    held_out = _prepared(test, config, vocabulary, strict=False) if test is not None else None
    if held_out is not None and not held_out.prepared.ledger.rows:
        notes.append("None of the held-out conversations fits into the window: there will be no held-out loss.")
        not_used += held_out.table.num_rows
        held_out = None
    if not_used:
        notes.append(f"{not_used} rows of the build are neither trained nor held out (--held-out {config.held_out}).")
    return Data(build, trained, held_out, notes, not_used)


def _sides(config: RunConfig, build: Build) -> tuple[pa.Table, pa.Table | None, int, list[str]]:
    """What is trained, what is held out, the number of rows that are neither, and notes."""
    train = build.splits["train"]
    beside = sum(table.num_rows for name, table in build.splits.items() if name != "train")
    if config.held_out == 0:
        return train, None, beside, []
    test = build.splits.get("test")
    if test is not None and test.num_rows:
        rows = np.random.default_rng(config.seed).permutation(test.num_rows)[: config.held_out]
        return train, test.take(np.sort(rows)), beside - len(rows), []
    chosen, trees = _trees(train["tree_id"], config)
    if not chosen:
        few = f"The build has no test split and none of its {trees} trees could be held out: there will be no held-out loss."
        return train, None, beside, [few]
    mask = pc.is_in(train["tree_id"], value_set=pa.array(chosen))
    note = (
        f"The build has no test split: {len(chosen)} of its {trees} trees (seed {config.seed}) are kept from training."
    )
    return train.filter(pc.invert(mask)), train.filter(mask), beside, [note]


def _trees(column: pa.ChunkedArray, config: RunConfig) -> tuple[list[str], int]:
    """A seeded handful of whole trees whose rows are at most --held-out together, and the number of all trees.

    Of those drawn, one that is too large for what room is left goes back to training.
    """
    counts = pc.value_counts(column).sort("ascending", by="values")  # of any order of the rows the same trees
    names, sizes = counts.field("values").to_pylist(), counts.field("counts").to_pylist()
    drawn = np.random.default_rng(config.seed).permutation(len(names))
    chosen: list[str] = []
    room = config.held_out
    for place in drawn[: min(MOST_TREES, max(1, round(TREE_SHARE * len(names))), len(names) - 1)].tolist():
        if sizes[place] <= room:
            chosen.append(names[place])
            room -= sizes[place]
    return sorted(chosen), len(names)


def _prepared(table: pa.Table, config: RunConfig, vocabulary: ChatTokenizer, *, strict: bool) -> Split:
    encoded = encode(table, vocabulary)
    return Split(table, prepare(encoded, config.max_tokens, config.cut, config.train_on, strict=strict))


def windows(split: Split, size: int, *, seed: int) -> tuple[Dataset, Packed]:
    """The rows of `split` in windows: columns `input_ids`, `labels` (both tokens long) and `seq_lengths` (rows long).

    `lay` lays them end to end, with the boundaries of each conversation.
    """
    from datasets import Dataset

    packed = pack(split.prepared.rows.lengths, size, seed=seed)
    order = np.array([row for window in packed.windows for row in window], np.int64)
    rows = split.prepared.rows.take(order)
    labels = replace(split.prepared.rows, ids=split.prepared.labels).take(order).ids
    per_window = np.concatenate([[0], np.cumsum([len(window) for window in packed.windows])]).astype(np.int64)
    bounds = rows.bounds[per_window]
    table = pa.table(
        {
            "input_ids": pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(rows.ids)),
            "labels": pa.LargeListArray.from_arrays(pa.array(bounds), pa.array(labels)),
            "seq_lengths": pa.LargeListArray.from_arrays(pa.array(per_window), pa.array(rows.lengths)),
        }
    )
    return Dataset(table), packed


def with_empty_windows(windows: Dataset, multiple_of: int) -> Dataset:
    """`windows` and as many windows of one untrained token at the end as make their number a multiple of `multiple_of`.

    Without them accelerate would repeat real windows in the last round, where several processes share the windows unevenly.
    """
    from datasets import Dataset

    missing = -len(windows) % multiple_of
    if not missing:
        return windows
    table = windows.data.table
    token = windows[0]["input_ids"][:1]
    empty = {"input_ids": [token] * missing, "labels": [[IGNORED]] * missing, "seq_lengths": [[1]] * missing}
    return Dataset(pa.concat_tables([table, pa.table(empty, schema=table.schema)]))


def lay(rows: Sequence[dict[str, Any]], device: str | torch.device = "cpu") -> dict[str, Any]:
    """Windows end to end, as one row of the model's input: trl's padding-free collator, a few times faster.

    Its time is the GPU's too, which waits for the next batch at every step.

    Returns:
        `input_ids`, `labels` (1 x tokens; a conversation's first token predicts nothing), and `attention.boundaries`.
    """
    import torch

    parts = [length for row in rows for length in row["seq_lengths"]]
    ids, labels = (np.concatenate([np.array(row[name], np.int64) for row in rows]) for name in ("input_ids", "labels"))
    labels[np.cumsum([0, *parts[:-1]])] = IGNORED
    laid = {name: torch.from_numpy(part)[None].to(device) for name, part in (("input_ids", ids), ("labels", labels))}
    return laid | boundaries(parts, device)


def bond(build: Build, vocabulary: ChatTokenizer) -> dict[str, Any]:
    """What binds a run to its data: the same on resume, or the run is refused."""
    recipe = json.dumps(dict(build.manifest.recipe), sort_keys=True, default=str)
    return {
        "build": build.manifest.name,
        "version": build.manifest.version,
        "recipe_sha256": hashlib.sha256(recipe.encode()).hexdigest(),
        "template": build.manifest.template.get("name"),
        "gate": build.manifest.gate,
        "tokenizer_sha256": vocabulary.sha256,
    }
