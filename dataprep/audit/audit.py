"""The audit of a file: each row read back and judged, and what can be put right without guessing."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import polars as pl
import xxhash

from dataprep.audit.reading import Message, ReadRow, TextReader
from dataprep.audit.signs import CERTAIN, differences, signs
from dataprep.errors import InputError
from dataprep.personal import masked
from dataprep.rendering import Template, load_template, render
from dataprep.report import page
from dataprep.sources import find_files, hash_files, read
from dataprep.sources.containers import units
from dataprep.sources.formats import as_json
from dataprep.sources.jsonlines import Block, decoded, lines

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
_MENDED = {"missing_control_token", "doubled_control_token"}  # the frame alone: rendering again puts it right
_KEY = 40  # code points of a question by which a conversation is looked up in its source
_LEAK = 20  # fewer code points of a question say nothing


@dataclass(frozen=True)
class Fault:
    """One thing wrong with one row; `sure` is certain or likely."""

    kind: str
    detail: str
    sure: str = CERTAIN


@dataclass(frozen=True)
class Audit:
    """What an audit found. Rows count from 0, as in `datasets` and Parquet; `faults` has the faulty ones only."""

    file: Path
    row_count: int
    faults: dict[int, list[Fault]]
    notes: list[str]  # what holds for every row
    messages: list[list[Message]]
    template: Template | None  # of a file of rendered texts
    sources: dict[int, list[Message]]  # by row, the source's own messages, where one was given

    def facts(self) -> dict[str, Any]:
        """`rows` (faulty ones: row, faults) and `summary`, as `--json` prints them."""
        rows = [{"row": row, "faults": [asdict(fault) for fault in faults]} for row, faults in self.faults.items()]
        return {"rows": rows, "summary": self.summary}

    @property
    def summary(self) -> dict[str, Any]:
        kinds = Counter(kind for faults in self.faults.values() for kind in {fault.kind for fault in faults})
        counted = {kind: kinds[kind] for kind in KINDS if kinds[kind]}
        return {
            "file": str(self.file),
            "rows": self.row_count,
            "faulty": len(self.faults),
            "kinds": counted,
            "every_row": self.notes,
        }

    def write_repaired(self, out: Path) -> dict[str, Any]:
        """Write sound and mended rows as JSON lines: `text` where the file had texts, else `messages`.

        A row is mended where only its control tokens are wrong, or where the source has it. Others are left out.
        """
        written, repaired, left_out = 0, 0, []
        with _writing(out) as file:
            for row, messages in enumerate(self.messages):
                kinds = {fault.kind for fault in self.faults.get(row, [])}
                if kinds & {"duplicate", "leak"} or (kinds - _MENDED and row not in self.sources):
                    left_out.append(row)
                    continue
                messages = _answered(self.sources[row]) if kinds - _MENDED else messages
                record: dict[str, Any] = (
                    {"text": render(self.template, messages)} if self.template else {"messages": messages}
                )
                file.write(json.dumps(record, ensure_ascii=False) + "\n")
                written, repaired = written + 1, repaired + bool(kinds)
        return {"path": str(out), "written": written, "repaired": repaired, "left_out_rows": left_out}

    def page(self) -> str:
        """The same as an HTML page."""
        shown = [
            {
                "row": row,
                "faults": [{**asdict(fault), "detail": masked(fault.detail)} for fault in faults],
                "messages": [{**turn, "content": masked(turn["content"][:2_000])} for turn in self.messages[row]],
            }
            for row, faults in list(self.faults.items())[:500]
        ]
        return page("audit.html.jinja", {"summary": self.summary, "shown": shown})


def _writing(out: Path) -> Any:
    try:
        return out.open("w", encoding="utf-8")
    except OSError as fault:
        raise InputError(f"{out} cannot be written: {fault.strerror}.") from None


def _answered(messages: Sequence[Message]) -> list[Message]:
    """Up to the last answer."""
    last = max((at for at, message in enumerate(messages) if message["role"] == "assistant"), default=-1)
    return list(messages[: last + 1])


def audit_file(
    path: Path, template: str = "llama2", format: str = "auto", against: Path | None = None, source_format: str = "auto"
) -> Audit:
    """Read `path` back and judge each row.

    Args:
        path: JSONL, JSON, Parquet or Arrow with `text` (rendered), or of a format that `dataprep build` reads.
        template: what a text column was rendered with.
        format: of the file, where it has messages.
        against: what must not be in here; or the source of these conversations, where `source_format` is named.
        source_format: format of `against`.

    Raises:
        InputError: a file that is missing, empty or of no known format.
    """
    known = load_template(template)
    rows, texts = _rows(path, known, format)
    faults: dict[int, list[Fault]] = {}
    for row, read_row in enumerate(rows):
        found = [Fault(*fault) for fault in read_row.faults]
        found += [Fault(*sign) for sign in signs(read_row.messages)]
        faults[row] = found
    messages = [row.messages for row in rows]
    for row, first in _repeats(messages):
        faults[row].append(Fault("duplicate", f"the same as row {first}"))
    sources: dict[int, list[Message]] = {}
    if against is not None:
        others = [row.messages for row in _rows(against, known, source_format)[0]]
        if source_format == "auto":
            _add_leaks(faults, messages, others, against)
        else:
            sources = _add_differences(faults, messages, others)
    notes = _everywhere(faults, len(rows))
    if texts and known.bos_token and all(text.startswith(known.bos_token) for text in texts):
        notes.append(f"Every row begins with a typed {known.bos_token}: a tokenizer that adds its own doubles it.")
    if sources:
        notes.append(f"{len(sources)} of {len(rows)} rows were found in the source {against}.")
    template_of = known if texts else None
    return Audit(
        path, len(rows), {row: told for row, told in faults.items() if told}, notes, messages, template_of, sources
    )


def _rows(path: Path, template: Template, format: str) -> tuple[list[ReadRow], list[str]]:
    """What was read of each row of a file, and its rendered texts (none where it has messages)."""
    texts = _texts(path) if format == "auto" else None
    if texts is None:
        return [ReadRow(messages) for messages in _conversations(path, format)], []
    reader = TextReader(template)
    return [reader.read(text) for text in texts], texts


def _texts(path: Path) -> list[str] | None:
    """The column `text` of rendered rows; None where the file has messages, or texts of another kind."""
    files = find_files([str(path)])
    texts: list[str] = []
    for unit in units(files[0].path, None):
        block = unit if isinstance(unit, Block) else as_json(unit.data, unit.line)
        for line, data in lines(block):
            record, _, detail = decoded(data)
            if record is None:
                raise InputError(f"{path} has a line {line} that {detail}: mend it, or give an intact file.")
            if not isinstance(record.get("text"), str) or record.get("messages") is not None:
                return None
            texts.append(record["text"])
    guanaco = sum("### Human:" in text for text in texts)
    return texts if texts and guanaco < len(texts) / 2 else None


def _conversations(path: Path, format: str) -> list[list[Message]]:
    """The conversations of a file in one of the formats of `dataprep build`, in its order."""
    reading = read(hash_files(find_files([str(path)])), format)
    if not reading.messages.is_empty():
        raise InputError(f"{path} holds message trees: build them first, and audit the build.")
    if reading.bad:
        first = reading.fates.row(0, named=True)
        raise InputError(
            f"{path} has {reading.bad} records that cannot be read; line {first['line']} {first['detail']}."
        )
    return reading.conversations.select(pl.col("messages")).to_series().to_list()


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()


def _repeats(rows: Sequence[Sequence[Message]]) -> Iterator[tuple[int, int]]:
    """(row, first row with the same messages)."""
    first: dict[str, int] = {}
    for row, messages in enumerate(rows):
        if messages:
            key = xxhash.xxh3_128_hexdigest(json.dumps([[m["role"], _normal(m["content"])] for m in messages]).encode())
            if key in first:
                yield row, first[key]
            first.setdefault(key, row)


def _question(messages: Sequence[Message]) -> str:
    return next((message["content"] for message in messages if message["role"] == "user"), "")


def _add_leaks(
    faults: dict[int, list[Fault]], rows: Sequence[Sequence[Message]], others: Sequence[Sequence[Message]], path: Path
) -> None:
    asked = {_normal(_question(other)): at for at, other in enumerate(others)}
    for row, messages in enumerate(rows):
        for place, message in enumerate(messages, 1):
            key = _normal(message["content"])
            if message["role"] == "user" and len(key) >= _LEAK and key in asked:
                faults[row].append(Fault("leak", f"message {place} is the question of row {asked[key]} of {path.name}"))
                break


def _add_differences(
    faults: dict[int, list[Fault]], rows: Sequence[Sequence[Message]], others: Sequence[Sequence[Message]]
) -> dict[int, list[Message]]:
    """Add how rows differ from their source; gives the source's messages by row."""
    by_key: dict[str, list[Sequence[Message]]] = {}
    for other in others:
        by_key.setdefault(_normal(_question(other))[:_KEY], []).append(other)
    found: dict[int, list[Message]] = {}
    for row, messages in enumerate(rows):
        near = by_key.get(_normal(_question(messages))[:_KEY]) or []
        if near:
            source = max(near, key=lambda other: _agreement(messages, other))
            found[row] = list(source)
            told = [Fault(*sign) for sign in differences(messages, source)]
            faults[row] += [fault for fault in told if fault.kind not in {known.kind for known in faults[row]}]
    return found


def _agreement(messages: Sequence[Message], other: Sequence[Message]) -> int:
    """Messages that are the same, and the beginning of the next one."""
    same = 0
    for mine, theirs in zip(messages, other, strict=False):
        if mine["content"].strip() != theirs["content"].strip():
            return same * 1000 + sum(
                a == b for a, b in zip(mine["content"][:900], theirs["content"][:900], strict=False)
            )
        same += 1
    return same * 1000


def _everywhere(faults: Mapping[int, list[Fault]], rows: int) -> list[str]:
    """Kinds of faulty frames that all rows have, as sentences; they are taken out of `faults`."""
    notes = []
    for kind in ("missing_control_token", "doubled_control_token") if rows > 1 else ():
        having = [next((fault for fault in told if fault.kind == kind), None) for told in faults.values()]
        if having and all(having):
            notes.append(f"Every row has the fault {kind}: {having[0].detail}." if having[0] else kind)
            for told in faults.values():
                told[:] = [fault for fault in told if fault.kind != kind]
    return notes
