"""The recipe of a build: conversations in, a version in the store out, one line a stage."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa

from dataprep import report
from dataprep.common.bundled import sample_file
from dataprep.common.errors import InputError, RecipeError
from dataprep.common.progress import Progress
from dataprep.contract import SHARD_SCHEMA, read_manifest
from dataprep.curate import rules
from dataprep.curate.ledger import Ledger, check_lines, check_messages, summary
from dataprep.curate.sampling import sample
from dataprep.curate.splitting import TEST, TRAIN, split
from dataprep.curate.threads import choose_threads
from dataprep.dedup.contamination import drop_contaminated, read_benchmark
from dataprep.dedup.exact import drop_exact_duplicates
from dataprep.dedup.leaks import LEAK_THRESHOLD, find_leaks, similar_groups
from dataprep.dedup.near import duplicate_pairs, remove_near_duplicates
from dataprep.quality import Gate, See
from dataprep.quality.facts import FactsOf
from dataprep.recipe import Recipe
from dataprep.rendering import Renderer, Template, load_template
from dataprep.report import card
from dataprep.report.croissant import CROISSANT_FILE, croissant
from dataprep.sources.files import find_files, hash_files, pin
from dataprep.sources.reader import Reading, read
from dataprep.store import builds as store
from dataprep.store import shards
from dataprep.store.version import provenance, version_of
from dataprep.tables import StageResult, dropped, no_fates


@dataclass(frozen=True)
class Outcome:
    """What came of a build; `path` is None after a dry run."""

    name: str
    version: str
    path: Path | None
    built: bool  # false: it was there already, or this was a dry run
    facts: dict[str, Any]  # `rows, splits, fates, funnel, notes` as the manifest has them
    seconds: dict[str, float]


def build(
    recipe: Recipe,
    store_dir: Path,
    name: str,
    *,
    force: bool = False,
    dry_run: bool = False,
    max_memory: int | None = None,
    progress: Progress,
) -> Outcome:
    """Build the version that `recipe` names, or find it there already.

    Args:
        recipe: what goes in and what is done to it.
        store_dir: folder of builds.
        name: the build's name.
        force: build although the version is there.
        dry_run: go as far as the split, and write nothing.
        max_memory: bytes that the search for near-duplicates may take above the text; by default half of the machine's.
        progress: is told of each stage.

    Raises:
        DataprepError: one sentence; nothing appears in the store then.
    """
    store.check_name(name)
    _keep_memory()
    template = load_template(recipe.template)
    renderer = Renderer(template)
    gate = Gate(recipe, FactsOf(renderer, recipe.tokenizer))
    recipe = replace(recipe, source=tuple(pin(recipe.source)))  # what is read, and what the manifest names
    files = find_files(recipe.source or (str(sample_file()),))
    with progress.stage("hash", sum(file.bytes for file in files)) as advance:
        files = hash_files(files, advance)
        benchmarks = [read_benchmark(Path(file)) for file in recipe.decontaminate]
        version = version_of(recipe, [(file.name, file.digest) for file in files], template.sha256, gate.digests)
    if not (force or dry_run):
        with progress.stage("verify"):
            there = store.existing(store_dir, name, version)
        if there:
            return Outcome(name, version, there, False, dict(read_manifest(there).facts), progress.seconds)

    if not dry_run:
        gate.start()
    _refuse_system(recipe, template)
    ledger = Ledger()
    with progress.stage("read", sum(file.bytes for file in files)) as advance:
        reading = read(files, recipe.format, recipe.limit, advance)
        check_lines(
            [(file.name, file.records) for file in reading.files],
            [reading.conversations, reading.messages],
            reading.fates,
        )
        ledger.enter_rejected(reading.fates, reading.notes + _cut_off(reading) + _refuse_bad(reading, recipe))
        sources = [file.to_manifest() for file in reading.files]
    with progress.stage("threads"):
        conversations = ledger.enter("threads", _conversations(reading, recipe))
        read_count = conversations.height
        del reading
    with progress.stage("rules"):
        conversations = ledger.enter("rules", _rules(conversations, recipe, template))
    with progress.stage("dedup"):
        exact = StageResult(*drop_exact_duplicates(conversations))
        clean = StageResult(*drop_contaminated(exact.kept, benchmarks)) if benchmarks else StageResult(exact.kept)
        near = _near(clean.kept, recipe, max_memory)
        conversations = ledger.enter("dedup", exact, clean, near)
        pairs = duplicate_pairs(clean.kept, near.fates)
        del exact, clean
    with progress.stage("plan"):
        conversations = ledger.enter("render", _renderable(conversations, renderer))
    with progress.stage("select"):
        conversations = ledger.enter("select", _sample(conversations, recipe, read_count))
    with progress.stage("split"):
        splits, proof = _split(conversations, recipe, max_memory, ledger.notes)
        del conversations

    fates = ledger.close(splits)
    facts = summary(splits, fates, ledger.notes) | {"near_dup": near.report, "split": proof}
    if dry_run:
        return Outcome(name, version, None, False, facts, progress.seconds)
    with store.new_version(store_dir, name) as folder:
        with progress.stage("render", sum(frame.height for frame in splits.values())) as advance:
            collected = report.CollectedRows(facts["rows"], recipe.seed, fates)
            facts["splits"] = write_splits(
                folder, splits, renderer, recipe, version, advance, [gate.see, collected.add]
            )
            del splits
        with progress.stage("gate"):
            verdict = gate.judge()
        with progress.stage("write"), ThreadPoolExecutor(1) as parquet:  # which leaves Python's lock to the report
            writing = parquet.submit(shards.write_fates, folder, fates)
            shards.write_duplicates(folder, pairs)
            (folder / "template.jinja").write_text(template.source, encoding="utf-8")
            manifest = {
                **provenance(recipe, name, version),
                "parent": store.parent_of(store_dir, name, version),
                "sources": sources,
                "template": template.facts(),
                "gate": verdict.outcome,
                **facts,
            }
            verdict.write(folder)
            told = report.build_report(manifest, collected, fates, pairs, verdict.facts())
            (folder / report.REPORT_FILE).write_text(told, encoding="utf-8")
            shards.write_json(folder / CROISSANT_FILE, croissant(manifest))
            (folder / "README.md").write_text(card.card(manifest), encoding="utf-8")
            writing.result()
            if verdict.critical and recipe.gate == "on":
                raise verdict.error(store.keep_failed(folder, store_dir, name, verdict.kept))
            shards.write_manifest(folder, manifest)
            path = store.publish(folder, store_dir, name, version)
    return Outcome(name, version, path, True, facts, progress.seconds)


def _keep_memory() -> None:
    """Use jemalloc for Arrow's buffers where it is there, and give pages back late: that saves a build a second of faults."""
    with suppress(NotImplementedError):
        pa.set_memory_pool(pa.jemalloc_memory_pool())
        pa.jemalloc_set_decay_ms(10_000)


def _refuse_system(recipe: Recipe, template: Template) -> None:
    """A system text that holds a token of the template would have every conversation dropped for it."""
    held = [token for token in template.forbidden_in_content if token in (recipe.system or "")]
    if held and recipe.control_tokens == "drop":
        raise RecipeError(f"--system holds {held[0]}, which the template {template.name} writes itself: leave it out.")


def _refuse_bad(reading: Reading, recipe: Recipe) -> list[str]:
    """Too many records that cannot be read are an error, not a fate; of fewer, a sentence tells where the first is.

    A tree is one record, however many of its messages are bad.
    """
    if reading.fates.is_empty():
        return []
    records = sum(file.records for file in reading.files)
    bad = reading.fates.select("source", "line").n_unique()
    source, line, rule, detail = reading.fates.select("source", "line", "rule", "detail").row(0)
    told = f"{bad} of {records} records cannot be read"
    first = f"the first is in line {line} of {source} ({rule}: {detail})"
    if bad > recipe.max_bad * records:
        raise InputError(f"{told}, above --max-bad {recipe.max_bad:g}; {first}.")
    return [f"{told}; {first}."]


def _conversations(reading: Reading, recipe: Recipe) -> StageResult[None]:
    """All conversations in the order read, numbered by `row`, and the fates of what is on no path."""
    if reading.messages.is_empty():
        conversations, aside = reading.conversations, no_fates()
    else:
        threads, aside = choose_threads(reading.messages, recipe.paths)
        check_messages(reading.messages, threads, aside)
        conversations = pl.concat([threads, reading.conversations]).sort("file", "line", maintain_order=True)
    return StageResult(conversations.with_columns(row=pl.int_range(pl.len(), dtype=pl.Int64)), aside)


def _rules(conversations: pl.DataFrame, recipe: Recipe, template: Template) -> StageResult[None]:
    kept, fates, *_ = rules.apply_rules(conversations, recipe, template.forbidden_in_content)
    return StageResult(kept, fates, _notes(kept, recipe))


def _near(conversations: pl.DataFrame, recipe: Recipe, max_memory: int | None) -> StageResult[dict[str, Any] | None]:
    kept, fates, *_, report = remove_near_duplicates(conversations, recipe, max_memory)
    return StageResult(kept, fates, report=report)


def _sample(conversations: pl.DataFrame, recipe: Recipe, read_count: int) -> StageResult[None]:
    kept, fates, *_ = sample(conversations, recipe, read_count)
    notes = []
    if recipe.sample is not None and kept.height < recipe.sample:
        notes.append(f"--sample {recipe.sample} asked for more than there is: all {kept.height} sound rows are kept.")
    return StageResult(kept, fates, notes)


def _split(
    sampled: pl.DataFrame, recipe: Recipe, max_memory: int | None, notes: list[str]
) -> tuple[dict[str, pl.DataFrame], dict[str, Any] | None]:
    """The splits, and the manifest entry that proves that no test row has a near-duplicate in train."""
    if recipe.split is None:
        return {TRAIN: sampled}, None
    groups, recall = similar_groups(sampled, LEAK_THRESHOLD, max_memory)
    parts, moved, split_notes = split(
        sampled, recipe, groups, lambda train, test: find_leaks(train, test, LEAK_THRESHOLD, max_memory)
    )
    notes += split_notes
    return parts, {
        "proved_below": LEAK_THRESHOLD,
        "tested": parts[TEST].height,
        "moved_to_train": moved,
        "error_budget": asdict(recall),
    }


def _renderable(conversations: pl.DataFrame, renderer: Renderer) -> StageResult[None]:
    """Split off the conversations that the template refuses."""
    refusals = renderer.refusals(conversations)
    notes = [f"The template {renderer.template.name}: {warning}." for warning in renderer.warnings()]
    if refusals.is_empty():
        return StageResult(conversations, notes=notes)
    refused = conversations.join(refusals, on="row", how="inner", maintain_order="left")
    kept = conversations.join(refusals, on="row", how="anti", maintain_order="left")
    return StageResult(kept, dropped(refused, "conversation", "render", "template_refused"), notes)


def _cut_off(reading: Reading) -> list[str]:
    """A file that breaks off counts as one bad record, whatever was behind the break: so it is said aloud."""
    cut = reading.fates.filter(pl.col("rule") == "truncated")
    return [f"{source} breaks off: {detail}." for source, detail in cut.select("source", "detail").rows()]


def _notes(sound: pl.DataFrame, recipe: Recipe) -> list[str]:
    """Sentences a person should read beside the numbers."""
    silent = rules.abstentions(sound, recipe)
    return [
        f"{count} of {sound.height} rows have no label for {flag} and were not judged by it."
        for flag, count in silent.items()
        if count
    ]


def write_splits(
    folder: Path,
    splits: dict[str, pl.DataFrame],
    renderer: Renderer,
    recipe: Recipe,
    version: str,
    advance: Any,
    witnesses: Sequence[See],
) -> dict[str, Any]:
    """Render and write all splits, and let the witnesses see each batch; gives the splits' entries for the manifest."""
    entries, done = {}, 0
    for name, frame in splits.items():
        writer = shards.ShardWriter(folder, name, recipe.shard_bytes)
        # closed by hand: an interrupted build would leave it, and its thread, to the interpreter's end
        with closing(_ahead(shard_batches(frame, renderer))) as batches:
            for batch in batches:
                writer.write(batch)
                for see in witnesses:
                    see(batch, name)
                done += batch.num_rows
                advance(done)
        entries[name] = writer.finish(f"{version}-{name}")
        if frame.height:
            renderer.check_sample(frame, recipe.seed)
    shards.write_dataset_dict(folder, splits)
    return entries


def _ahead(batches: Iterator[pa.RecordBatch]) -> Generator[pa.RecordBatch]:
    """The same, with the next batch made on a thread while the last one is written; both leave Python's lock."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def shard_batches(frame: pl.DataFrame, renderer: Renderer) -> Iterator[pa.RecordBatch]:
    """Rendered batches of `SHARD_SCHEMA`, in the order of `frame`."""
    for part in renderer.batches(frame):
        rows = frame.slice(part.start, len(part.text))
        made = {"text": part.text, "spans": part.spans, "controls": part.controls}
        arrays = [
            made[field.name].cast(field.type)
            if field.name in made
            else shards.plain_array(rows[field.name], field.type)
            for field in SHARD_SCHEMA
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=SHARD_SCHEMA)
