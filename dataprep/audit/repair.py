"""Writes an audit's results: the sound rows with those that can be repaired without guessing, and the HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dataprep.audit.audit import Audit
from dataprep.audit.faults import CONTROL_TOKEN_KINDS
from dataprep.audit.rows import records
from dataprep.audit.text_reader import Message, TextReader, without_system
from dataprep.common.errors import InputError, TemplateError
from dataprep.common.files import replace_file
from dataprep.rendering import render
from dataprep.tables import ASSISTANT

# Keys that `messages` replaces.
_CONVERSATION_KEYS = frozenset(
    ("conversations", "instruction", "input", "output", "text", "system", "history", "prompt", "completion")
)
_SUFFIXES = (".jsonl", ".parquet")


def write_repaired(audit: Audit, out: Path) -> dict[str, Any]:
    """Write sound and repaired rows, in their order and with all their other columns, as JSON Lines or Parquet.

    Conversations are in `text` where the files have rendered texts, else in `messages`. A row is repaired where only its
    control tokens are wrong, or where the source has it. All other faulty rows are left out.

    Returns:
        `path`, `written` and `repaired` (numbers of rows), and `left_out_rows`, named as in `Audit.to_json`.

    Raises:
        InputError: `out` has another suffix, cannot be written, or is one of the files that were read.
    """
    if out.suffix not in _SUFFIXES:
        raise InputError(f"Cannot write {out}: use a file name that ends in {' or '.join(_SUFFIXES)}.")
    places = audit.rows.references()
    reader = TextReader(audit.template) if audit.rows.texts else None
    left_out = [row for row in range(audit.row_count) if not _can_be_written(audit, row, reader)]
    with _output_file(out, audit) as file:
        repaired_records = _repaired_records(audit, set(left_out))
        written = (
            _write_parquet(file, repaired_records, out)
            if out.suffix == ".parquet"
            else _write_lines(file, repaired_records)
        )
    repaired = len(set(audit.faults) - set(left_out))
    names = [places[row] if "file" in places[row] else places[row]["row"] for row in left_out]
    return {"path": str(out), "written": written, "repaired": repaired, "left_out_rows": names}


def write_page(audit: Audit, out: Path) -> None:
    """Write the audit as an HTML page.

    Raises:
        InputError: `out` cannot be written, or is one of the files that were read.
    """
    with _output_file(out, audit) as file:
        file.write(audit.page().encode(errors="backslashreplace"))


@contextmanager
def _output_file(out: Path, audit: Audit) -> Iterator[IO[bytes]]:
    """A file to write that replaces `out` once it is complete; a device such as /dev/stdout is written directly."""
    if out.exists() and any(out.samefile(file.path) for file in (*audit.rows.files, *audit.compared_files)):
        raise InputError(f"Cannot write {out}: it is one of the files that were read. Choose another file.")
    is_device = out.exists() and not out.is_file() and not out.is_dir()
    try:
        with out.open("wb") if is_device else replace_file(out) as file:
            yield file
    except OSError as fault:
        raise InputError(f"Cannot write {out}: {fault.strerror or fault}.") from None


def _can_be_written(audit: Audit, row: int, reader: TextReader | None) -> bool:
    kinds = {fault.kind for fault in audit.faults.get(row, [])}
    if kinds & {"duplicate", "leak"}:
        return False
    if not kinds <= {*CONTROL_TOKEN_KINDS}:
        return row in audit.sources
    if reader is None or not (kinds or audit.all_misframed):
        return True
    messages = audit.messages[row]
    try:  # a template may not write all of a message: some strip reasoning
        return reader.read(render(audit.template, messages)).messages == messages
    except TemplateError:
        return False


def _repaired_records(audit: Audit, left_out: set[int]) -> Iterator[dict[str, Any]]:
    """The records to write. The files are read again, because all columns together could exceed the memory."""
    rows = {place: row for row, place in enumerate(audit.rows.places)}
    for place, record, _ in records(audit.rows.files):
        row = rows.get(place)
        if record is None or row is None or row in left_out:
            continue
        kinds = {fault.kind for fault in audit.faults.get(row, [])}
        messages = audit.messages[row]
        if not kinds <= {*CONTROL_TOKEN_KINDS}:
            messages = _up_to_last_answer(messages, audit.sources[row])
        if not audit.rows.texts:
            if "messages" in record and not kinds:
                yield record  # unchanged, with all fields of its messages
                continue
            others = {
                key: value for key, value in record.items() if "messages" in record or key not in _CONVERSATION_KEYS
            }
            yield others | {"messages": [_decoded(message) for message in messages]}
        elif kinds or audit.all_misframed:
            yield record | {"text": render(audit.template, messages)}
        else:
            yield record  # unchanged, including white space that the template would not write


def _decoded(message: Message) -> Message:
    """A message with its tool calls as objects, as data sets have them."""
    calls = message.get("tool_calls")
    return {**message, "tool_calls": json.loads(calls)} if calls else message


def _up_to_last_answer(messages: Sequence[Message], source: Sequence[Message]) -> list[Message]:
    """The source's messages up to its last answer, after the row's system text if the source has none."""
    turns = without_system(source)
    system_from = source if len(turns) < len(source) else messages
    system = system_from[: len(system_from) - len(without_system(system_from))]
    last = max((at for at, message in enumerate(turns) if message["role"] == ASSISTANT), default=-1)
    return [*system, *turns[: last + 1]]


def _write_lines(file: IO[bytes], rows: Iterable[dict[str, Any]]) -> int:
    written = 0
    for record in rows:
        line = json.dumps(record, ensure_ascii=False, default=str) + "\n"
        file.write(line.encode(errors="backslashreplace"))  # a lone surrogate becomes the escape that it was read from
        written += 1
    return written


def _write_parquet(file: IO[bytes], rows: Iterable[dict[str, Any]], out: Path) -> int:
    records = [*rows]
    names = dict.fromkeys(name for record in records for name in record)
    try:  # Arrow refuses values of several types in a column; Polars would replace them by nulls
        table = pa.table({name: pa.array([record.get(name) for record in records]) for name in names})
        pq.write_table(table, file)
    except (pa.ArrowException, OverflowError, TypeError, UnicodeEncodeError) as fault:
        reason = str(fault).splitlines()[0]
        raise InputError(
            f"Cannot write {out}: a column has values of several types ({reason}). Write .jsonl."
        ) from None
    return len(records)
