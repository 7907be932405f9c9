"""The rows of a data set that others made: of one file or of many, each with its place, read back to messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from dataprep.audit.reading import Message, ReadRow, TextReader
from dataprep.common.errors import InputError
from dataprep.rendering import Template
from dataprep.sources.containers import Unit, iter_units
from dataprep.sources.files import SourceFile, hash_files
from dataprep.sources.formats import AUTO, recognise
from dataprep.sources.jsonlines import Block, decode_record, iter_lines
from dataprep.sources.reader import read

Place = tuple[int, int]  # number of the file, from 0, and of the line or the row in it, from 1
Record = tuple[Place, dict[str, Any] | None, str]  # None: it cannot be read, and why


@dataclass(frozen=True)
class Rows:
    """What was read of each row of `files`, in their order. `texts`: the rendered ones; none where the files have messages."""

    files: list[SourceFile]
    places: list[Place]
    read: list[ReadRow]
    texts: list[str]

    @property
    def messages(self) -> list[list[Message]]:
        return [row.messages for row in self.read]

    def numbers(self) -> list[dict[str, Any]]:
        """`row` of each row, from 0 in its file, as in `datasets` and Parquet; and `file`, where there are several."""
        counted: list[dict[str, Any]] = []
        for number, places in groupby(self.places, key=lambda place: place[0]):
            named = {"file": self.files[number].name} if len(self.files) > 1 else {}
            counted += [{**named, "row": row} for row, _ in enumerate(places)]
        return counted


def told(number: Mapping[str, Any], file: str = "") -> str:
    """One of `Rows.numbers` as words; `file`: the name to give where there is one file."""
    name = number.get("file", file)
    return f"row {number['row']}" + (f" of {name}" if name else "")


def rows_of(files: list[SourceFile], template: Template, format: str) -> Rows:
    """The rows of `files`, which have rendered texts, or messages in a format of `dataprep build`.

    Raises:
        InputError: files of no known format, or with message trees.
    """
    texts = _texts(files) if format == AUTO else None
    if texts is None:
        return _conversations(files, format)
    reader = TextReader(template)
    read = [ReadRow([], [("unparsable", why)]) if text is None else reader.read(text) for _, text, why in texts]
    return Rows(files, [place for place, _, _ in texts], read, [text for _, text, _ in texts if text is not None])


def records(files: list[SourceFile]) -> Iterator[Record]:
    """Every record of `files`, whole, and in the order of `Rows`."""
    for number, file in enumerate(files):
        for unit in iter_units(file.path, None):
            for line, record, why in _of_unit(unit):
                yield (number, line), record, why
            if unit.fault:
                yield (number, unit.line), None, unit.fault


def _of_unit(unit: Unit) -> Iterator[tuple[int, dict[str, Any] | None, str]]:
    if isinstance(unit, Block):
        for line, data in iter_lines(unit):
            record, _, why = decode_record(data)
            yield line, record, why and f"the line {why}"
        return
    for row in range(len(unit.data)):  # one by one, so that a broken one takes no other along
        try:
            yield unit.line + row, unit.data.slice(row, 1).to_pylist()[0], ""
        except UnicodeDecodeError:
            yield unit.line + row, None, "the row is no UTF-8"


def _texts(files: list[SourceFile]) -> list[tuple[Place, str | None, str]] | None:
    """The column `text` of rendered rows, or why it cannot be read; None where the files have something else."""
    texts: list[tuple[Place, str | None, str]] = []
    for place, record, why in records(files):
        if record is not None and _has_messages(record):
            return None
        text = (record or {}).get("text")
        texts.append((place, text, "") if isinstance(text, str) else (place, None, why or "it has no text"))
    found = [text for _, text, _ in texts if text is not None]
    guanaco = sum("### Human:" in text for text in found)
    return texts if found and guanaco < len(found) / 2 else None


def _has_messages(record: dict[str, Any]) -> bool:
    form = recognise([record])
    rendered = isinstance(record.get("text"), str) and not (form and form.has_trees)
    return record.get("messages") is not None or (form is not None and not rendered)


def _conversations(files: list[SourceFile], format: str) -> Rows:
    """Rows of a format of `dataprep build`; a record that it would refuse is unparsable."""
    reading = read(hash_files(files), format)
    if not reading.messages.is_empty():
        raise InputError(f"{files[0].path} holds message trees: build them first, and audit the build.")
    number = {file.name: at for at, file in enumerate(files)}
    found = {
        (file, line): ReadRow(messages)
        for file, line, messages in reading.conversations.select("file", "line", "messages").iter_rows()
    }
    for source, line, rule, detail in reading.fates.select("source", "line", "rule", "detail").iter_rows():
        why = detail if rule == "truncated" else f"the record {detail}"
        found.setdefault((number[source], line), ReadRow([], [("unparsable", why)]))
    return Rows(files, sorted(found), [found[place] for place in sorted(found)], [])
