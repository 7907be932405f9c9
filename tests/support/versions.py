"""Minimal versions written straight into a store, without a build."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from dataprep.contract import MANIFEST, SHARD_SCHEMA
from dataprep.store.commit import commit_version, new_version
from dataprep.store.fates import write_fates
from dataprep.store.manifest import write_manifest
from dataprep.store.shards import ShardWriter, write_dataset_dict
from dataprep.tables import FATES, conform


def batch_of(texts: tuple[str, ...]) -> pa.RecordBatch:
    """A batch of SHARD_SCHEMA with one row for each text; the whole text is trained."""
    rows = [
        {
            "id": str(number),
            "text": text,
            "messages": [{"role": "user", "content": text}],
            "spans": [{"start": 0, "end": len(text)}],
            "controls": [],
            "message_ids": [],
        }
        for number, text in enumerate(texts)
    ]
    return pa.RecordBatch.from_pylist(rows, schema=SHARD_SCHEMA)


def write_version(
    store: Path, version: str = "v1", texts: tuple[str, ...] = ("a", "b"), max_bytes: int = 10**6, name: str = "n"
) -> Path:
    """Commit a version of the given texts to `store`, and return its folder."""
    with new_version(store, name) as folder:
        writer = ShardWriter(folder, "train", max_bytes)
        writer.write(batch_of(texts))
        split = writer.finish("fingerprint")
        write_dataset_dict(folder, ["train"])
        write_fates(folder, conform(pl.DataFrame({"row": [0]}), FATES))
        manifest: dict[str, Any] = {
            "contract": 1,
            "name": name,
            "version": version,
            "recipe": {},
            "template": {},
            "gate": "off",
            "splits": {"train": split},
        }
        write_manifest(folder, manifest)
        return commit_version(folder, store, name, version)


def edit_manifest(build: Path, **changes: object) -> None:
    """Replace parts of a build's manifest."""
    path = build / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def make_old(build: Path) -> None:
    """Give all files of a build times of long ago: results for files that were just written are not recorded."""
    then = time.time_ns() - 10**11
    for file in build.rglob("*"):
        os.utime(file, ns=(then, then))
