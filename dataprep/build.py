"""The pipeline of a build: conversations in, a version in the store out, one stage a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from dataprep.common.arrow import delay_page_release
from dataprep.common.bundled import sample_file
from dataprep.common.progress import Progress
from dataprep.contract import read_manifest
from dataprep.curate.conversations import to_conversations
from dataprep.curate.ledger import Ledger, check_lines, summary
from dataprep.curate.rules import apply_rules
from dataprep.curate.sampling import sample
from dataprep.curate.splitting import TEST, TRAIN, split
from dataprep.dedup.benchmarks import read_benchmark
from dataprep.dedup.contamination import drop_contaminated
from dataprep.dedup.corpus import SketchCache
from dataprep.dedup.exact import drop_exact_duplicates
from dataprep.dedup.leaks import LEAK_THRESHOLD, find_leaks, similar_groups
from dataprep.dedup.near import duplicate_pairs, remove_near_duplicates
from dataprep.quality.facts import FactExtractor
from dataprep.quality.gate import Gate
from dataprep.recipe import Recipe
from dataprep.rendering import Renderer, load_template
from dataprep.rendering.checks import TemplateChecks
from dataprep.rendering.stage import check_system_text, drop_refused
from dataprep.report import REPORT_FILE, CollectedRows, build_report
from dataprep.report.card import card
from dataprep.report.croissant import CROISSANT_FILE, croissant
from dataprep.sources.files import SourceFile, find_files, hash_files, pin
from dataprep.sources.options import ReadOptions
from dataprep.sources.reader import read
from dataprep.sources.rejected import rejection_notes
from dataprep.store.commit import commit_version, keep_failed, new_version, reuse_version
from dataprep.store.fates import write_duplicates, write_fates
from dataprep.store.lookup import check_name, parent_of
from dataprep.store.manifest import write_json, write_manifest
from dataprep.store.splits import write_splits
from dataprep.store.version import provenance, version_of
from dataprep.tables import without_absent_fields


@dataclass(frozen=True)
class Outcome:
    """The result of a build."""

    name: str
    version: str
    path: Path | None  # None after a dry run
    built: bool  # False: the version existed already, or this was a dry run
    summary: Mapping[str, Any]  # `rows, splits, fates, funnel, notes` and more, as in the manifest
    seconds: dict[str, float]  # of each stage


@dataclass(frozen=True)
class _Selection:
    """The conversations of each split, and what the build's documents say of how they were selected."""

    splits: dict[str, pl.DataFrame]  # CONVERSATIONS
    fates: pl.DataFrame  # FATES
    pairs: pl.DataFrame  # near-duplicates beside their survivors
    summary: dict[str, Any]


def build(
    recipe: Recipe,
    store: Path,
    name: str,
    *,
    force: bool = False,
    dry_run: bool = False,
    max_memory: int | None = None,
    progress: Progress,
) -> Outcome:
    """Build the version that `recipe` and its sources determine, or return the existing one.

    Args:
        recipe: the options that decide what the build holds.
        store: folder of builds.
        name: the build's name.
        force: build even if the version exists.
        dry_run: stop after the split, and write nothing.
        max_memory: bytes that near-duplicate detection may use above the text itself; default: half of the machine's.
        progress: reports and times each stage.

    Raises:
        DataprepError: says in one sentence what is wrong; the store is unchanged then.
    """
    check_name(name)
    delay_page_release()
    renderer = Renderer(load_template(recipe.template, recipe.template_date))
    gate = Gate(recipe, FactExtractor(TemplateChecks(renderer), recipe.tokenizer))
    recipe = replace(recipe, source=tuple(pin(recipe.source)))  # the manifest names the revisions that are read
    files = find_files(recipe.source or (str(sample_file()),), all_splits=recipe.split == "keep")
    with progress.stage("hash", _bytes_of(files)) as advance:
        files = hash_files(files, advance)
        benchmarks = [read_benchmark(Path(file)) for file in recipe.decontaminate]
        digests = [(file.name, file.digest) for file in files]
        version = version_of(recipe, digests, renderer.template.sha256, gate.digests)
    if not (force or dry_run):
        with progress.stage("verify"):
            path = reuse_version(store, name, version)
        if path:
            return Outcome(name, version, path, False, {**read_manifest(path).data}, progress.seconds)
    if not dry_run:
        gate.start()  # loads Great Expectations in its own process during the other stages
    selection = _select(recipe, files, benchmarks, renderer, max_memory, progress)
    if dry_run:
        return Outcome(name, version, None, False, selection.summary, progress.seconds)
    path = _write(recipe, store, name, version, selection, renderer, gate, progress)
    return Outcome(name, version, path, True, selection.summary, progress.seconds)


def _select(
    recipe: Recipe,
    files: Sequence[SourceFile],
    benchmarks: Sequence[pl.DataFrame],
    renderer: Renderer,
    max_memory: int | None,
    progress: Progress,
) -> _Selection:
    """Read the sources and select the conversations of each split."""
    check_system_text(recipe, renderer.template)
    ledger = Ledger()
    with progress.stage("read", _bytes_of(files)) as advance:
        reading = read(files, ReadOptions.of(recipe), advance)
        counted = [(file.name, file.records) for file in reading.files]
        check_lines(counted, [reading.conversations, reading.messages], reading.fates)
        rejected = rejection_notes(reading.fates, sum(records for _, records in counted), recipe.max_bad)
        ledger.enter_rejected(reading.fates, [*reading.notes, *rejected])
        origin = {
            "sources": [file.to_manifest() for file in reading.files],
            "unused_fields": reading.unused_fields,
        }
    with progress.stage("threads"):
        threads = to_conversations(reading.messages, reading.conversations, recipe.paths)
        conversations, read_count = ledger.enter("threads", threads), threads.kept.height
        del reading, threads
    with progress.stage("rules"):
        conversations = ledger.enter(
            "rules", apply_rules(conversations, recipe, renderer.template.forbidden_in_content)
        )
    with progress.stage("dedup"):
        exact = drop_exact_duplicates(conversations)
        clean = drop_contaminated(exact.kept, benchmarks)
        sketches = SketchCache() if recipe.split else None  # a split compares the same texts again
        near = remove_near_duplicates(clean.kept, recipe, max_memory, sketches)
        conversations = ledger.enter("dedup", exact, clean, near)
        pairs, near_dup = duplicate_pairs(clean.kept, near.fates), near.report
        del exact, clean, near
    with progress.stage("render"):
        conversations = ledger.enter("render", drop_refused(conversations, renderer))
    with progress.stage("select"):
        conversations = without_absent_fields(ledger.enter("select", sample(conversations, recipe, read_count)))
    with progress.stage("split"):
        splits, split_proof, notes = _split(conversations, recipe, max_memory, sketches)
    fates = ledger.close(splits)
    selected = summary(splits, fates, [*ledger.notes, *notes])
    return _Selection(splits, fates, pairs, {**origin, **selected, "near_dup": near_dup, "split": split_proof})


def _write(
    recipe: Recipe,
    store: Path,
    name: str,
    version: str,
    selection: _Selection,
    renderer: Renderer,
    gate: Gate,
    progress: Progress,
) -> Path:
    """Render the splits, judge them and write the version: shards, fates, documents, and the manifest last."""
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


def _bytes_of(files: Sequence[SourceFile]) -> int:
    return sum(file.bytes for file in files)


def _split(
    conversations: pl.DataFrame, recipe: Recipe, max_memory: int | None, sketches: SketchCache | None
) -> tuple[dict[str, pl.DataFrame], dict[str, Any] | None, list[str]]:
    """The splits, the manifest entry that proves that no test row has a near-duplicate in train, and notes."""
    if recipe.split is None:
        return {TRAIN: conversations}, None, []
    groups, recall = similar_groups(conversations, LEAK_THRESHOLD, max_memory, sketches)
    parts, moved, notes = split(
        conversations, recipe, groups, lambda train, test: find_leaks(train, test, LEAK_THRESHOLD, max_memory)
    )
    proof = {
        "proved_below": LEAK_THRESHOLD,
        "tested": parts[TEST].height,
        "moved_to_train": moved,
        "error_budget": asdict(recall),
    }
    return parts, proof, notes
