"""Read source files into messages (tree formats), conversations (flat formats) and the fates of unreadable records.

A file is a stream of units (blocks of JSON lines, record batches). Each unit is parsed into the schema of the file's
format and converted to a frame, two units at a time, and the frames are concatenated in the order of the files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import polars as pl

from dataprep.common.errors import EmptyFile, InputError
from dataprep.common.progress import Advance
from dataprep.sources import oasst
from dataprep.sources.containers import Unit, count_records, iter_units
from dataprep.sources.files import SourceFile
from dataprep.sources.formats import Format, convert_rows, format_named, is_preference, parse_unit, recognise
from dataprep.sources.notes import refuse_unused, uncoercible_notes, unknown_role_sentence, unused_notes
from dataprep.sources.options import ReadOptions
from dataprep.sources.records import rename_keys
from dataprep.sources.rows import FieldCounts, rejects
from dataprep.sources.samples import UnknownFormat, limited, unknown_format, with_samples
from dataprep.sources.schema import Parsing
from dataprep.sources.splits import held_out_rows
from dataprep.sources.turns import make_ids_unique
from dataprep.tables import CONVERSATIONS, MESSAGES, ROLES, TOOL, conform, dropped, message_fields, turns_type

WORKERS = 2  # units parsed at a time; bounds the memory and does not change the result


@dataclass(frozen=True)
class Reading:
    """Everything that was read, in the order of the files and of their records.

    `messages` has the schema MESSAGES (tree formats), `conversations` the schema CONVERSATIONS (flat formats; `row` is
    null). `fates` has the schema FATES (`row` is null): the records that became neither. `notes` are sentences.
    `unused_fields` counts the values of keys that are not used; a key inside of messages is called `messages.key`.
    """

    messages: pl.DataFrame
    conversations: pl.DataFrame
    fates: pl.DataFrame
    files: list[SourceFile]
    notes: list[str]
    unused_fields: dict[str, int]


@dataclass(frozen=True)
class _FileResult:
    """What one file contains: a frame of messages (`has_trees`) or of conversations, rejects, notes and counts."""

    file: SourceFile
    has_trees: bool
    frame: pl.DataFrame
    rejects: pl.DataFrame
    notes: list[str]
    counts: FieldCounts


@dataclass(frozen=True)
class _UnitResult:
    """What one unit contains. `records` is counted before the unit is parsed."""

    frame: pl.DataFrame
    rejects: pl.DataFrame
    counts: FieldCounts
    records: int


def read(
    files: Sequence[SourceFile], options: ReadOptions | None = None, advance: Advance = lambda done: None
) -> Reading:
    """Read `files` in order.

    Args:
        files: as `find_files` returns them.
        options: the format, the most records to read, and so on.
        advance: called with the number of bytes read so far.

    Raises:
        InputError: a file is missing, is not what its name says, or has no known format; or no file has a record.
    """
    options = options or ReadOptions()
    stated_format = format_named(options.format)
    bytes_before, remaining = 0, options.limit
    results: list[_FileResult] = []
    empty_files: list[EmptyFile] = []
    skipped: list[UnknownFormat] = []
    for file in files:
        if remaining is not None and remaining <= 0:
            break
        try:
            within = partial(_advance_within, advance, bytes_before)
            result = _read_file(file, len(results), stated_format, remaining, options, within)
        except EmptyFile as fault:
            empty_files.append(fault)
            result = _empty_result(file)
        except UnknownFormat as fault:
            if not options.skip_unknown:
                raise
            skipped.append(fault)
            bytes_before += file.bytes
            continue
        results.append(result)
        bytes_before += file.bytes
        remaining = None if remaining is None else remaining - result.file.records
    if not results and not skipped:
        raise InputError("There is nothing to read: no source is named, or the limit is 0 records.")
    if len(empty_files) == len(results):
        raise (empty_files or skipped)[0]
    names = {result.file.name for result in results}
    return _combine(results, _skipped_notes([file for file in files if file.name not in names], skipped), options)


def _advance_within(advance: Advance, bytes_before: int, done: int) -> None:
    advance(bytes_before + done)


def _skipped_notes(files: Sequence[SourceFile], skipped: Sequence[UnknownFormat]) -> list[str]:
    if not skipped:
        return []
    listed = ", ".join(file.name for file in files[:5]) + (", …" if len(files) > 5 else "")
    count, are = ("1 file has", "is") if len(skipped) == 1 else (f"{len(skipped)} files have", "are")
    return [f"{count} no known format and {are} skipped (--skip-unknown): {listed}."]


def _empty_result(file: SourceFile) -> _FileResult:
    no_rejects = rejects().with_columns(source=pl.lit(file.name))
    notes = [f"{file.name} is empty: it holds no records."]
    return _FileResult(file, True, pl.DataFrame(schema=MESSAGES), no_rejects, notes, FieldCounts())


def _combine(results: list[_FileResult], notes: list[str], options: ReadOptions) -> Reading:
    """Concatenate the results of all files."""
    messages = [result.frame for result in results if result.has_trees]
    conversations = [result.frame for result in results if not result.has_trees]
    lost = pl.concat([result.rejects for result in results])
    counts = FieldCounts()
    for result in results:
        counts.add(result.counts)
    # the keys of trees are those of their messages
    records = sum(result.frame.height if result.has_trees else result.file.records for result in results)
    noun = "records" if conversations else "messages"
    reading = Reading(
        messages=pl.concat(messages) if messages else pl.DataFrame(schema=MESSAGES),
        conversations=conform(make_ids_unique(_concat_frames(conversations)), CONVERSATIONS)
        if conversations
        else pl.DataFrame(schema=CONVERSATIONS),
        fates=pl.concat(dropped(lost.filter(pl.col("kind") == kind), kind, "read") for kind in ("line", "message")),
        files=[result.file for result in results],
        notes=[
            *notes,
            *(result.file.note for result in results if result.file.note),
            *(note for result in results for note in result.notes),
            *unused_notes(counts.unused, records, noun, counts.turns),
        ],
        unused_fields=dict(sorted(counts.unused.items())),
    )
    _check_language(reading, options)
    return reading


def _check_language(reading: Reading, options: ReadOptions) -> None:
    """Refuse to select languages if no record states one: all of them would be dropped.

    Raises:
        InputError: names the option that would work.
    """
    frames = [frame["lang"] for frame in (reading.messages, reading.conversations) if not frame.is_empty()]
    if options.lang and frames and all(langs.null_count() == len(langs) for langs in frames):
        tag = options.lang[0]
        raise InputError(
            f"No record has a language tag, so --lang {','.join(options.lang)} would drop all of them: if they are in "
            f"that language, add --assume-lang {tag}; otherwise leave out --lang."
        )


def _concat_frames(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Concatenate frames of conversations whose message fields and optional columns may differ."""
    fields = [message_fields(frame) for frame in frames]
    if len(set(fields)) > 1:
        wanted = turns_type({name for names in fields for name in names})
        frames = [frame.with_columns(pl.col("messages").cast(wanted)) for frame in frames]
    if len({tuple(frame.columns) for frame in frames}) > 1:
        return pl.concat(frames, how="diagonal")
    return pl.concat(frames)


def _read_file(
    file: SourceFile, number: int, format: Format | None, limit: int | None, options: ReadOptions, advance: Advance
) -> _FileResult:
    stream, samples = with_samples(limited(iter_units(file.path, options.max_record_bytes), limit), file)
    samples = [rename_keys(sample, options.columns) for sample in samples]
    format = format or recognise(samples)
    if format is None:
        raise unknown_format(file, samples)
    if is_preference(format) and options.preference == "refuse":
        raise InputError(
            f"{file.path} holds preference records ('chosen' and 'rejected'), each with a better and a worse answer: "
            "--preference chosen trains on the better one."
        )
    results = list(_convert_units(stream, format, format.parsing(samples, options), options, advance))
    frames = [result.frame for result in results]
    lost = pl.concat(result.rejects for result in results).sort("line", maintain_order=True)
    counted = replace(file, format=format.name, records=sum(result.records for result in results))
    counts = FieldCounts()
    for result in results:
        counts.add(result.counts)
    notes = uncoercible_notes(file, counts)
    if options.unknown_fields == "error":
        refuse_unused(file, counts, format.schema.metadata)
    file_number, source = pl.lit(number, pl.Int32).alias("file"), pl.lit(file.name).alias("source")
    if format.has_trees:
        frame = pl.concat(frames).with_columns(file_number, source)
        frame = conform(oasst.fill_tree_ids(_assume_language(frame, options)), MESSAGES)
    else:
        frame = _assume_language(_concat_frames(frames).with_columns(file_number, source), options)
        frame, other_split = held_out_rows(frame, file.split, file.split_stated, options.keep_split)
        lost = pl.concat([lost, other_split]).sort("line", maintain_order=True)
        notes += _unknown_role_notes(counted, frame, counts)
    return _FileResult(counted, format.has_trees, frame, lost.with_columns(source), notes, counts)


def _assume_language(frame: pl.DataFrame, options: ReadOptions) -> pl.DataFrame:
    """Fill in the language of rows that state none, if `--assume-lang` is given."""
    if options.assume_lang is None:
        return frame
    return frame.with_columns(pl.col("lang").fill_null(options.assume_lang))


def _unknown_role_notes(file: SourceFile, frame: pl.DataFrame, counts: FieldCounts) -> list[str]:
    """Name the roles that are not known.

    Raises:
        InputError: every conversation of the file has such a role.
    """
    if not counts.unknown_roles:
        return []
    sentence = unknown_role_sentence(file, counts.unknown_roles)
    roles = pl.col("messages").list.eval(pl.element().struct.field("role").is_in([*ROLES, TOOL])).list.all()
    if not frame.select(roles.any()).item():
        raise InputError(sentence)
    return [sentence]


def _convert_units(
    stream: Iterable[Unit], format: Format, parsing: Parsing, options: ReadOptions, advance: Advance
) -> Iterator[_UnitResult]:
    """Convert the units on `WORKERS` threads (Arrow and NumPy release the GIL) and yield the results in order."""
    pending: deque[tuple[int, Future[_UnitResult]]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for unit in stream:
            pending.append((unit.done, pool.submit(_convert_unit, unit, format, parsing, options)))
            if len(pending) > WORKERS:
                yield _wait(*pending.popleft(), advance)
        while pending:
            yield _wait(*pending.popleft(), advance)


def _convert_unit(unit: Unit, format: Format, parsing: Parsing, options: ReadOptions) -> _UnitResult:
    parts = parse_unit(unit, format, parsing)
    converted = [convert_rows(rows, format, options) for rows in parts]
    counts = FieldCounts()
    for rows in parts:
        counts.add(rows.counts)
    frames = [frame for frame, _ in converted]
    frame = pl.concat(frames) if format.has_trees else _concat_frames(frames)
    return _UnitResult(frame, pl.concat(lost for _, lost in converted), counts, count_records(unit))


def _wait(done: int, future: Future[_UnitResult], advance: Advance) -> _UnitResult:
    result = future.result()
    advance(done)
    return result
