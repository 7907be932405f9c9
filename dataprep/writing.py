"""The last stages of a build: render the selected conversations, check them, and write the version."""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from dataprep.common.executor import Executor
from dataprep.execution import Execution
from dataprep.quality.gate import Gate
from dataprep.recipe import Recipe
from dataprep.rendering import Renderer
from dataprep.report import REPORT_FILE, CollectedRows, build_report
from dataprep.report.card import card
from dataprep.report.croissant import CROISSANT_FILE, croissant
from dataprep.store.commit import commit_version, keep_failed
from dataprep.store.fates import write_duplicates, write_fates
from dataprep.store.manifest import parent_of, write_json, write_manifest
from dataprep.store.splits import write_splits
from dataprep.store.version import provenance
from dataprep.tasks import render_rows, render_tasks


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
    execution: Execution,
) -> Path:
    """Render the splits, check them and write the version: shards, fates, documents, and the manifest last."""
    folder, progress = execution.folder(), execution.progress
    rows, fates, pairs = selection.summary["rows"], selection.fates, selection.pairs
    with progress.stage("render", rows) as advance, ThreadPoolExecutor(1) as pool:
        fates_written = pool.submit(write_fates, folder, fates)  # mostly without the GIL
        collected = CollectedRows(rows, recipe.seed, fates)
        render = partial(_rendered, renderer=renderer, gate=gate, collected=collected, executor=execution.executor)
        selection.summary["splits"] = write_splits(
            folder, selection.splits, render, recipe.shard_bytes, version, advance
        )
        for frame in selection.splits.values():
            renderer.check_sample(frame, recipe.seed)
        selection.splits.clear()  # frees the texts before Great Expectations and the report need memory
        fates_written.result()
    gate.close()
    with progress.stage("gate"):
        write_duplicates(folder, pairs)  # while Great Expectations judges in its own process
        verdict = gate.verdict()
    with progress.stage("write"):
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
        if verdict.critical and recipe.gate == "on":
            raise verdict.error(keep_failed(folder, store, name, verdict.kept_files))
        write_manifest(folder, manifest)
        return commit_version(folder, store, name, version)


def _rendered(
    frame: pl.DataFrame, split: str, *, renderer: Renderer, gate: Gate, collected: CollectedRows, executor: Executor
) -> Generator[pa.RecordBatch]:
    """Yield the rendered batches of a split, and hand them and their facts to the report and to the gate."""
    tasks = render_tasks(frame, split, renderer, gate.extractor)
    with closing(executor.map(render_rows, tasks)) as results:
        for batches in results:
            for rows, numbers, facts in batches:
                if facts is not None:
                    gate.add(facts)
                collected.add(rows, numbers, split)
                yield rows
