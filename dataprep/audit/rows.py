"""The rows of an audited data set, of one file or of several, each with its place and read back to messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import polars as pl

from dataprep.audit.faults import Fault
from dataprep.audit.text_reader import Message, ReadRow, TextReader
from dataprep.common.errors import InputError
from dataprep.rendering import Template
from dataprep.sources.arrow_checks import python_row
from dataprep.sources.containers import Unit, iter_units
from dataprep.sources.files import SourceFile, hash_files
from dataprep.sources.formats import AUTO, recognise
from dataprep.sources.jsonlines import Block, decode_record, iter_lines
from dataprep.sources.options import ReadOptions
from dataprep.sources.reader import read

Place = tuple[int, int]  # number of the file, from 0, and of the line or row in it, from 1
Record = tuple[Place, dict[str, Any] | None, str]  # the record, or None and the reason why it cannot be read


@dataclass(frozen=True)
class AuditedRows:
    """The rows of `files` in their order; `texts` has the rendered texts and is empty where the files have messages."""

    files: list[SourceFile]
    places: list[Place]
    read: list[ReadRow]
    texts: list[str]

    @property
    def messages(self) -> list[list[Message]]:
        return [row.messages for row in self.read]

    def references(self) -> list[dict[str, Any]]:
        """For each row: `row`, its number in its file from 0, as in `datasets` and Parquet; `file` if there are several."""
        references: list[dict[str, Any]] = []
        for number, places in groupby(self.places, key=lambda place: place[0]):
            file = {"file": self.files[number].name} if len(self.files) > 1 else {}
            references += [{**file, "row": row} for row, _ in enumerate(places)]
        return references


def row_name(reference: Mapping[str, Any], file: str = "") -> str:
    """One of `AuditedRows.references` in words; `file` is the name to use where the reference has none."""
    name = reference.get("file", file)
    return f"row {reference['row']}" + (f" of {name}" if name else "")


def read_rows(files: list[SourceFile], template: Template, format: str) -> AuditedRows:
    """The rows of `files`, which have rendered texts, or messages in a format that `dataprep build` reads.

    Raises:
        InputError: the files are of no known format, or have message trees.
    """
    texts = _rendered_texts(files) if format == AUTO else None
    if texts is None:
        return _read_conversations(files, format)
    reader = TextReader(template)
    read = [ReadRow([], [Fault("unparsable", why)]) if text is None else reader.read(text) for _, text, why in texts]
    return AuditedRows(
        files, [place for place, _, _ in texts], read, [text for _, text, _ in texts if text is not None]
    )


def records(files: list[SourceFile]) -> Iterator[Record]:
    """Every record of `files`, complete and in the order of `AuditedRows`."""
    for number, file in enumerate(files):
        for unit in iter_units(file.path):
            for line, record, why in _records_of(unit):
                yield (number, line), record, why
            if unit.fault:
                yield (number, unit.line), None, unit.fault


def _records_of(unit: Unit) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    if isinstance(unit, Block):
        for line, data in iter_lines(unit):
            record, _, why = decode_record(data)
            yield line, record, why and f"the line {why}"
        return
    for row in range(len(unit.data)):  # one by one, so that a row with invalid bytes affects no other row
        try:
            yield unit.line + row, python_row(unit.data, row), ""
        except UnicodeDecodeError:
            yield unit.line + row, None, "the row is not valid UTF-8"


def _present(message: Message) -> Message:
    return {field: value for field, value in message.items() if value is not None}


def _rendered_texts(files: list[SourceFile]) -> list[tuple[Place, str | None, str]] | None:
    """Place and rendered text of each row, or the reason why it has none; None where the files have no rendered texts."""
    texts: list[tuple[Place, str | None, str]] = []
    for place, record, why in records(files):
        if record is not None and _has_messages(record):
            return None
        text = (record or {}).get("text")
        texts.append((place, text, "") if isinstance(text, str) else (place, None, why or "the row has no text"))
    present = [text for _, text, _ in texts if text is not None]
    guanaco = sum("### Human:" in text for text in present)
    return texts if present and guanaco < len(present) / 2 else None


def _has_messages(record: dict[str, Any]) -> bool:
    form = recognise([record])
    rendered = isinstance(record.get("text"), str) and not (form and form.has_trees)
    return record.get("messages") is not None or (form is not None and not rendered)


def _read_conversations(files: list[SourceFile], format: str) -> AuditedRows:
    """Rows in a format of `dataprep build`; a record that a build would drop when reading is unparsable."""
    reading = read(hash_files(files), ReadOptions(format=format))
    if not reading.messages.is_empty():
        raise InputError(f"{files[0].path} has message trees: build them with `dataprep build`, then audit the build.")
    file_numbers = {file.name: number for number, file in enumerate(files)}
    frame = reading.conversations
    tools = pl.col("tools") if "tools" in frame.columns else pl.lit(None, pl.String).alias("tools")
    rows = {
        (file, line): ReadRow([_present(message) for message in messages], tools=tools or "")
        for file, line, messages, tools in frame.select("file", "line", "messages", tools).iter_rows()
    }
    for source, line, rule, detail in reading.fates.select("source", "line", "rule", "detail").iter_rows():
        why = detail if rule == "truncated" else f"the record cannot be used: {detail}"
        rows.setdefault((file_numbers[source], line), ReadRow([], [Fault("unparsable", why)]))
    return AuditedRows(files, sorted(rows), [rows[place] for place in sorted(rows)], [])
