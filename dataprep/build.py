"""The pipeline of a build: conversations in, a version in the store out, one stage a line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from dataprep.cached_tasks import cached_near_duplicates, fingerprint_table
from dataprep.common.arrow import delay_page_release
from dataprep.common.bundled import sample_file
from dataprep.common.lookup import check_name
from dataprep.common.progress import Progress
from dataprep.contract import read_manifest
from dataprep.curate.conversations import to_conversations
from dataprep.curate.ledger import Ledger, check_lines, summary
from dataprep.curate.rules import apply_rules
from dataprep.curate.sampling import sample
from dataprep.curate.splitting import TEST, TRAIN, split
from dataprep.dedup.benchmarks import read_benchmark
from dataprep.dedup.contamination import drop_contaminated
from dataprep.dedup.exact import drop_exact_duplicates
from dataprep.dedup.fingerprints import FingerprintTable
from dataprep.dedup.leaks import LEAK_THRESHOLD, find_leaks, similar_groups
from dataprep.dedup.near import duplicate_pairs
from dataprep.execution import Execution, open_execution
from dataprep.quality.gate import Gate
from dataprep.recipe import Recipe
from dataprep.rendering import Renderer, load_template
from dataprep.rendering.checks import TemplateChecks
from dataprep.rendering.stage import check_system_text, drop_refused
from dataprep.resources import Resources
from dataprep.sources.files import SourceFile, find_files, hash_files, pin, require_unchanged
from dataprep.sources.options import ReadOptions
from dataprep.sources.reader import read
from dataprep.sources.rejected import rejection_notes
from dataprep.store.commit import reuse_version
from dataprep.store.version import version_of
from dataprep.tables import without_absent_fields
from dataprep.writing import Selection, write_version


@dataclass(frozen=True)
class Outcome:
    """The result of a build."""

    name: str
    version: str
    path: Path | None  # None after a dry run
    built: bool  # False: the version existed already, or this was a dry run
    summary: Mapping[str, Any]  # `rows, splits, fates, funnel, notes` and more, as in the manifest
    seconds: dict[str, float]  # of each stage


def build(
    recipe: Recipe,
    store: Path,
    name: str,
    *,
    force: bool = False,
    dry_run: bool = False,
    resources: Resources | None = None,
    progress: Progress,
) -> Outcome:
    """Build the version that `recipe` and its sources determine, or return the existing one.

    Args:
        recipe: the options that decide what the build holds.
        store: folder of builds.
        name: the build's name.
        force: build even if the version exists.
        dry_run: stop after the split, and write nothing.
        resources: workers, memory and so on.
        progress: reports and times each stage.

    Raises:
        DataprepError: says in one sentence what is wrong; the store is unchanged then.
    """
    check_name(name)
    resources = resources or Resources()
    delay_page_release()
    renderer = Renderer(load_template(recipe.template, recipe.template_date))
    gate = Gate(recipe, TemplateChecks(renderer))
    recipe = replace(recipe, source=tuple(pin(recipe.source)))  # the manifest names the revisions that are read
    files = find_files(recipe.source or (str(sample_file()),), all_splits=recipe.split == "keep")
    with progress.stage("hash", _bytes_of(files)) as advance:
        files = hash_files(files, advance, resources.partition_size)
        benchmarks = [read_benchmark(Path(file)) for file in recipe.decontaminate]
        digests = [(file.name, file.digest) for file in files]
        version = version_of(recipe, digests, renderer.template.sha256, gate.digests)
    if not (force or dry_run):
        with progress.stage("verify"):
            path = reuse_version(store, name, version)
        if path:
            return Outcome(name, version, path, False, {**read_manifest(path).complete()}, progress.seconds)
    if not dry_run:
        gate.start()  # loads Great Expectations in its own process during the other stages
    with open_execution(resources, store, name, _bytes_held(files), dry_run, progress) as execution:
        selection = _select(recipe, files, benchmarks, renderer, execution)
        if dry_run:
            return Outcome(name, version, None, False, selection.summary, progress.seconds)
        path = write_version(recipe, store, name, version, selection, renderer, gate, execution)
    return Outcome(name, version, path, True, selection.summary, progress.seconds)


def _select(
    recipe: Recipe,
    files: Sequence[SourceFile],
    benchmarks: Sequence[pl.DataFrame],
    renderer: Renderer,
    execution: Execution,
) -> Selection:
    """Read the sources and select the conversations of each split."""
    check_system_text(recipe, renderer.template)
    ledger, progress = Ledger(), execution.progress
    with progress.stage("read", _bytes_of(files)) as advance:
        reading = read(files, ReadOptions.of(recipe), advance, execution.executor, execution.partitioning)
        require_unchanged(files)
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
        partitions, max_memory = reading.partitions, execution.memory_beside(read_count)
        keyed = partitions if reading.all_have_keys else []
        del reading, threads
    with progress.stage("rules"):
        tokens = renderer.template.forbidden_in_content
        conversations = ledger.enter("rules", apply_rules(conversations, recipe, tokens))
    with progress.stage("dedup", 2 * conversations.height) as advance:  # fingerprints take about half of the time
        table = fingerprint_table(
            conversations, partitions, recipe, tokens, execution.executor, execution.cache, execution.scratch, advance
        )
        # each step replaces the frame before it, so that at most two are held
        conversations = ledger.enter("dedup", drop_exact_duplicates(conversations, table))
        conversations = ledger.enter("dedup", drop_contaminated(conversations, benchmarks))
        near = cached_near_duplicates(
            conversations, recipe, tokens, max_memory, table, keyed, execution.cache, execution.scratch
        )
        pairs, near_dup = duplicate_pairs(conversations, near.fates), near.report
        conversations = ledger.enter("dedup", near)
        del near
    with progress.stage("render"):
        conversations = ledger.enter("render", drop_refused(conversations, renderer))
    with progress.stage("select"):
        conversations = without_absent_fields(ledger.enter("select", sample(conversations, recipe, read_count)))
    with progress.stage("split"):
        splits, split_proof, notes = _split(conversations, recipe, max_memory, table)
    fates = ledger.close(splits)
    selected = summary(splits, fates, [*ledger.notes, *notes])
    return Selection(splits, fates, pairs, {**origin, **selected, "near_dup": near_dup, "split": split_proof})


def _bytes_of(files: Sequence[SourceFile]) -> int:
    return sum(file.bytes for file in files)


def _bytes_held(files: Sequence[SourceFile]) -> float:
    """Return the bytes that the sources take in memory: without bound if a file may hold more than its own bytes."""
    return math.inf if any(file.may_expand for file in files) else _bytes_of(files)


def _split(
    conversations: pl.DataFrame, recipe: Recipe, max_memory: int | None, table: FingerprintTable
) -> tuple[dict[str, pl.DataFrame], dict[str, Any] | None, list[str]]:
    """The splits, the manifest entry that proves that no test row has a near-duplicate in train, and notes."""
    if recipe.split is None:
        return {TRAIN: conversations}, None, []
    groups, recall = similar_groups(conversations, LEAK_THRESHOLD, max_memory, table)
    parts, moved, notes = split(
        conversations,
        recipe,
        groups,
        lambda frame, is_test: find_leaks(frame, is_test, LEAK_THRESHOLD, max_memory, table),
    )
    proof = {
        "proved_below": LEAK_THRESHOLD,
        "tested": parts[TEST].height,
        "moved_to_train": moved,
        "error_budget": asdict(recall),
    }
    return parts, proof, notes
