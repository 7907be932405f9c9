"""The last stages of a build: render the selected conversations, check them, and write the version."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dataprep.common.progress import Progress
from dataprep.quality.gate import Gate
from dataprep.recipe import Recipe
from dataprep.rendering import Renderer
from dataprep.report import REPORT_FILE, CollectedRows, build_report
from dataprep.report.card import card
from dataprep.report.croissant import CROISSANT_FILE, croissant
from dataprep.store.commit import commit_version, keep_failed, new_version
from dataprep.store.fates import write_duplicates, write_fates
from dataprep.store.manifest import parent_of, write_json, write_manifest
from dataprep.store.splits import write_splits
from dataprep.store.version import provenance


@dataclass(frozen=True)
class Selection:
    """The conversations of each split, and what the build's documents say of how they were selected."""

    splits: dict[str, pl.DataFrame]  # CONVERSATIONS
    fates: pl.DataFrame  # FATES
    pairs: pl.DataFrame  # near-duplicates beside their survivors
    summary: dict[str, Any]


def write_version(
    recipe: Recipe,
    store: Path,
    name: str,
    version: str,
    selection: Selection,
    renderer: Renderer,
    gate: Gate,
    progress: Progress,
) -> Path:
    """Render the splits, check them and write the version: shards, fates, documents, and the manifest last."""
    rows, fates, pairs = selection.summary["rows"], selection.fates, selection.pairs
    with new_version(store, name) as folder:
        with progress.stage("render", rows) as advance:
            collected = CollectedRows(rows, recipe.seed, fates)
            selection.summary["splits"] = write_splits(
                folder,
                selection.splits,
                renderer.batches,
                recipe.shard_bytes,
                version,
                advance,
                [gate.add, collected.add],
            )
            for frame in selection.splits.values():
                renderer.check_sample(frame, recipe.seed)
            selection.splits.clear()  # frees the texts before Great Expectations and the report need memory
        with progress.stage("gate"):
            verdict = gate.judge()
        with progress.stage("write"), ThreadPoolExecutor(1) as pool:
            fates_written = pool.submit(write_fates, folder, fates)  # releases the GIL, so the report renders meanwhile
            write_duplicates(folder, pairs)
            manifest = {
                **provenance(recipe, name, version),
                "parent": parent_of(store, name, version),
                "template": renderer.template.to_manifest(),
                "gate": verdict.outcome,
                **selection.summary,
            }
            verdict.write(folder)
            documents = {
                "template.jinja": renderer.template.source,
                REPORT_FILE: build_report(manifest, collected, fates, pairs, verdict.as_record()),
                "README.md": card(manifest),
            }
            for file, text in documents.items():
                (folder / file).write_text(text, encoding="utf-8")
            write_json(folder / CROISSANT_FILE, croissant(manifest, collected.schema))
            fates_written.result()
            if verdict.critical and recipe.gate == "on":
                raise verdict.error(keep_failed(folder, store, name, verdict.kept_files))
            write_manifest(folder, manifest)
            return commit_version(folder, store, name, version)
