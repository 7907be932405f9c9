"""The audit of a data set: each row read back and judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dataprep.audit.comparing import found_in, leaks, repeats, shared_words
from dataprep.audit.reading import Message
from dataprep.audit.rows import Rows, rows_of, told
from dataprep.audit.signs import CERTAIN, differences, signs
from dataprep.common.errors import InputError
from dataprep.dedup.contamination import read_benchmark
from dataprep.rendering import Template, load_template
from dataprep.report import audit_report
from dataprep.sources.files import SourceFile, find_files
from dataprep.sources.formats import AUTO

KINDS = (
    "unparsable",
    "odd_roles",
    "empty_turn",
    "missing_control_token",
    "doubled_control_token",
    "cut_at_heading",
    "heading_in_user_turn",
    "unfinished",
    "duplicate",
    "leak",
)
FRAME = ("missing_control_token", "doubled_control_token")  # rendering again puts these right
_TOLD = 20  # rows in a sentence


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one row; `sure` is certain or likely."""

    kind: str
    detail: str
    sure: str = CERTAIN


@dataclass(frozen=True)
class Audit:
    """What an audit found. Its rows count from 0, over all files; `faults` has the faulty ones only."""

    file: Path
    rows: Rows
    faults: dict[int, list[Fault]]
    notes: list[str]  # what holds for every row, and what was not compared
    template: Template  # of a file of rendered texts
    misframed: bool  # whether a fault of the frame holds for every row
    sources: dict[int, list[Message]]  # by row, the source's own messages, where one was given
    strays: list[int]  # rows that the source has not
    others: list[SourceFile]  # what it was compared with

    @property
    def row_count(self) -> int:
        return len(self.rows.read)

    @property
    def messages(self) -> list[list[Message]]:
        return self.rows.messages

    def facts(self) -> dict[str, Any]:
        """`rows` (faulty ones: file where there are several, row in it, faults) and `summary`, as `--json` prints them."""
        numbers = self.rows.numbers()
        rows = [{**numbers[row], "faults": [asdict(fault) for fault in faults]} for row, faults in self.faults.items()]
        return {"rows": rows, "summary": self.summary}

    @property
    def summary(self) -> dict[str, Any]:
        kinds = Counter(kind for faults in self.faults.values() for kind in {fault.kind for fault in faults})
        counted = {kind: kinds[kind] for kind in KINDS if kinds[kind]}
        numbers = self.rows.numbers()
        return {
            "file": str(self.file),
            "rows": self.row_count,
            "faulty": len(self.faults),
            "kinds": counted,
            "every_row": self.notes,
            "not_in_source": [numbers[row] for row in self.strays],
        }

    def page(self) -> str:
        """The same as an HTML page."""
        numbers = self.rows.numbers()
        return audit_report(
            self.summary,
            [
                {"name": told(numbers[row]), "faults": [asdict(f) for f in faults], "messages": self.messages[row]}
                for row, faults in self.faults.items()
            ],
        )


def audit_file(
    path: Path, template: str = "llama2", format: str = "auto", against: Path | None = None, source_format: str = "auto"
) -> Audit:
    """Read `path` back and judge each row.

    Args:
        path: JSONL, JSON, Parquet or Arrow with `text` (rendered), or of a format that `dataprep build` reads; a folder
            or a glob of such.
        template: what a text column was rendered with.
        format: of the file, where it has messages.
        against: what must not be in here (conversations or a benchmark); or the source of these conversations, where
            `source_format` is named.
        source_format: format of `against`.

    Raises:
        InputError: a file that is missing, empty or of no known format.
    """
    known = load_template(template)
    rows = rows_of(find_files([str(path)]), known, format)
    found = [[Fault(*fault) for fault in (*row.faults, *signs(row.messages))] for row in rows.read]
    numbers = rows.numbers()
    for row, first in repeats(rows.messages):
        found[row].append(Fault("duplicate", f"the same as {told(numbers[first])}"))
    everywhere = _everywhere(found)
    notes = [f"Every row has the fault {fault.kind}: {fault.detail}." for fault in everywhere]
    if rows.texts and known.bos_token and all(text.startswith(known.bos_token) for text in rows.texts):
        notes.append(f"Every row begins with a typed {known.bos_token}: a tokenizer that adds its own doubles it.")
    others = find_files([str(against)]) if against else []
    sources: dict[int, list[Message]] = {}
    strays: list[int] = []
    if against and source_format == AUTO:
        notes += _add_leaks(found, rows, others, known, against)
    elif against:
        sources = found_in(rows.messages, rows_of(others, known, source_format).messages)
        _add_differences(found, rows, sources)
        strays = [row for row, _ in enumerate(found) if row not in sources]
        notes += _found_notes(strays, numbers, against)
    faults = {row: faults for row, faults in enumerate(found) if faults}
    return Audit(path, rows, faults, notes, known, bool(everywhere), sources, strays, others)


def _everywhere(found: Sequence[list[Fault]]) -> list[Fault]:
    """The first of each fault of the frame that all rows have; they are taken out of `found`."""
    everywhere = []
    for kind in FRAME if len(found) > 1 else ():
        having = [[fault for fault in faults if fault.kind == kind] for faults in found]
        if all(having):
            everywhere.append(having[0][0])
            for faults in found:
                faults[:] = [fault for fault in faults if fault.kind != kind]
    return everywhere


def _add_leaks(
    found: Sequence[list[Fault]], rows: Rows, files: list[SourceFile], template: Template, against: Path
) -> list[str]:
    """Add what rows share with the conversations or the benchmark in `files`; gives notes about what was not compared."""
    try:
        others = rows_of(files, template, AUTO)
    except InputError:  # it is of no format of conversations: a benchmark may be of any
        others = None
    if others and any(others.messages):
        for row, detail, sure in leaks(rows.messages, others):
            found[row].append(Fault("leak", detail, sure))
        lost = sum(not messages for messages in others.messages)
        return (
            [f"{lost} of {len(others.read)} rows of {against} cannot be read, and were compared with nothing."]
            if lost
            else []
        )
    for row, detail, sure in shared_words(rows.messages, pl.concat(read_benchmark(file.path) for file in files)):
        found[row].append(Fault("leak", detail, sure))
    return []


def _add_differences(found: Sequence[list[Fault]], rows: Rows, sources: Mapping[int, list[Message]]) -> None:
    """Add how rows differ from their `sources`."""
    for row, source in sources.items():
        kinds = {fault.kind for fault in found[row]}
        news = (Fault(*sign) for sign in differences(rows.messages[row], source))
        found[row] += [fault for fault in news if fault.kind not in kinds]


def _found_notes(strays: Sequence[int], numbers: Sequence[Mapping[str, Any]], against: Path) -> list[str]:
    """How many rows the source has, and which it has not."""
    notes = [f"{len(numbers) - len(strays)} of {len(numbers)} rows were found in the source {against}."]
    if strays:
        named = ", ".join(told(numbers[row]) for row in strays[:_TOLD])
        more = f" and {len(strays) - _TOLD} more" if len(strays) > _TOLD else ""
        notes.append(f"Not compared, for no conversation there begins with their question: {named}{more}.")
    return notes
