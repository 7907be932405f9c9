"""The audit of a data set: every row is read back to messages and checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dataprep.audit.comparison import benchmark_leaks, duplicates, leaks, match_sources
from dataprep.audit.faults import CONTROL_TOKEN_KINDS, KINDS, Fault
from dataprep.audit.message_faults import message_faults, source_differences
from dataprep.audit.rows import AuditedRows, read_rows, row_name
from dataprep.audit.text_reader import Message
from dataprep.common.errors import InputError
from dataprep.common.text import plural
from dataprep.dedup.benchmarks import read_benchmark
from dataprep.rendering import Template, load_template
from dataprep.report import audit_report
from dataprep.sources.files import SourceFile, find_files
from dataprep.sources.formats import AUTO

_NAMED_ROWS = 20  # rows that a note names


@dataclass(frozen=True)
class Audit:
    """The result of an audit. Rows are numbered from 0 over all files; `faults` has an entry for faulty rows only."""

    file: Path
    rows: AuditedRows
    faults: dict[int, list[Fault]]
    notes: list[str]  # faults that all rows share, and what was not compared
    template: Template  # the template of a file of rendered texts
    all_misframed: bool  # whether all rows share a fault of their control tokens
    sources: dict[int, list[Message]]  # row: the source's messages, where a source was given and has the row
    not_in_source: list[int]  # rows that the given source does not have
    compared_files: list[SourceFile]  # the files of `against`

    @property
    def row_count(self) -> int:
        return len(self.rows.read)

    @property
    def messages(self) -> list[list[Message]]:
        return self.rows.messages

    def to_json(self) -> dict[str, Any]:
        """What `--json` prints: `rows` (faulty rows: file if there are several, row in it, faults) and `summary`."""
        places = self.rows.references()
        rows = [{**places[row], "faults": [asdict(fault) for fault in faults]} for row, faults in self.faults.items()]
        return {"rows": rows, "summary": self.summary}

    @property
    def summary(self) -> dict[str, Any]:
        """Numbers of rows, of faulty rows and of rows with each kind of fault, and the notes."""
        counts = Counter(kind for faults in self.faults.values() for kind in {fault.kind for fault in faults})
        places = self.rows.references()
        return {
            "file": str(self.file),
            "rows": self.row_count,
            "faulty": len(self.faults),
            "kinds": {kind: counts[kind] for kind in KINDS if counts[kind]},
            "every_row": self.notes,
            "not_in_source": [places[row] for row in self.not_in_source],
        }

    def page(self) -> str:
        """The audit as an HTML page."""
        places = self.rows.references()
        rows = [
            {
                "name": row_name(places[row]),
                "faults": [asdict(fault) for fault in faults],
                "messages": self.messages[row],
            }
            for row, faults in self.faults.items()
        ]
        return audit_report(self.summary, rows, KINDS)


def audit_file(
    path: Path, template: str = "llama2", format: str = "auto", against: Path | None = None, source_format: str = "auto"
) -> Audit:
    """Read the rows of `path` back to messages and check each.

    Args:
        path: JSONL, JSON, Parquet or Arrow with a column `text` (rendered), or in a format that `dataprep build` reads;
            a file, a folder or a glob.
        template: the template that rendered the column `text`.
        format: the format of files with messages.
        against: data that must not be in `path` (conversations or a benchmark); where `source_format` is given, the
            source that the conversations of `path` were made from.
        source_format: the format of the source `against`.

    Raises:
        InputError: a file is missing, empty or of no known format.
        TemplateError: the template is unknown, or its texts cannot be read back.
    """
    loaded = load_template(template)
    rows = read_rows(find_files([str(path)]), loaded, format)
    faults = [[*row.faults, *message_faults(row.messages)] for row in rows.read]
    places = rows.references()
    for row, first in duplicates(rows.messages, [row.tools for row in rows.read]):
        faults[row].append(Fault("duplicate", f"same conversation as {row_name(places[first])}"))
    shared = _take_shared_faults(faults)
    notes = [f"All rows have the fault {fault.kind}: {fault.detail}." for fault in shared]
    if rows.texts and loaded.bos_token and all(text.startswith(loaded.bos_token) for text in rows.texts):
        notes.append(f"All texts begin with {loaded.bos_token}: a tokenizer that adds it too will double it.")
    others = find_files([str(against)]) if against else []
    sources: dict[int, list[Message]] = {}
    not_in_source: list[int] = []
    if against and source_format == AUTO:
        notes += _add_leaks(faults, rows, others, loaded, against)
    elif against:
        sources = match_sources(rows.messages, read_rows(others, loaded, source_format).messages)
        _add_source_differences(faults, rows, sources)
        not_in_source = [row for row, _ in enumerate(faults) if row not in sources]
        notes += _source_notes(not_in_source, places, against)
    faulty = {row: row_faults for row, row_faults in enumerate(faults) if row_faults}
    return Audit(path, rows, faulty, notes, loaded, bool(shared), sources, not_in_source, others)


def _take_shared_faults(faults: Sequence[list[Fault]]) -> list[Fault]:
    """Remove the kinds of control token faults that all of several rows have; return the first fault of each kind."""
    shared = []
    for kind in CONTROL_TOKEN_KINDS if len(faults) > 1 else ():
        of_kind = [[fault for fault in row_faults if fault.kind == kind] for row_faults in faults]
        if all(of_kind):
            shared.append(of_kind[0][0])
            for row_faults in faults:
                row_faults[:] = [fault for fault in row_faults if fault.kind != kind]
    return shared


def _add_leaks(
    faults: Sequence[list[Fault]], rows: AuditedRows, files: list[SourceFile], template: Template, against: Path
) -> list[str]:
    """Add the rows that overlap with the conversations or the benchmark in `files`; return notes on what was not compared."""
    try:
        others = read_rows(files, template, AUTO)
    except InputError:  # no format of conversations: a benchmark can have any columns
        others = None
    if others is None or not any(others.messages):
        for row, fault in benchmark_leaks(rows.messages, pl.concat(read_benchmark(file.path) for file in files)):
            faults[row].append(fault)
        return []
    for row, fault in leaks(rows.messages, others):
        faults[row].append(fault)
    unread = sum(not messages for messages in others.messages)
    total = plural(len(others.read), "row")
    return [f"{unread:,} of {total} of {against} could not be read, so not compared."] if unread else []


def _add_source_differences(
    faults: Sequence[list[Fault]], rows: AuditedRows, sources: Mapping[int, list[Message]]
) -> None:
    """Add how rows differ from their source, except for kinds of faults that they have already."""
    for row, source in sources.items():
        kinds = {fault.kind for fault in faults[row]}
        faults[row] += [fault for fault in source_differences(rows.messages[row], source) if fault.kind not in kinds]


def _source_notes(not_in_source: Sequence[int], places: Sequence[Mapping[str, Any]], against: Path) -> list[str]:
    """How many rows the source has, and which rows it does not have."""
    notes = [f"{len(places) - len(not_in_source):,} of {plural(len(places), 'row')} found in the source {against}."]
    if not_in_source:
        named = ", ".join(row_name(places[row]) for row in not_in_source[:_NAMED_ROWS])
        more = f" and {len(not_in_source) - _NAMED_ROWS} more" if len(not_in_source) > _NAMED_ROWS else ""
        notes.append(f"Not compared, because no conversation of the source begins with their question: {named}{more}.")
    return notes
