"""Small data sets for tests of the audit, and the kinds of faults that it finds in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dataprep.audit import audit_file

PAIR = "<s>[INST] {} [/INST] {} </s>"
ODD_SPACE = "<s>[INST] b [/INST]   c </s>"  # sound, although the template would write other white space


def write_texts(folder: Path, texts: Sequence[Any], key: str = "text") -> Path:
    """A file set.jsonl in `folder` with one record for each of `texts` under `key`."""
    folder.mkdir(exist_ok=True)
    return write_records(folder / "set.jsonl", [{key: text} for text in texts])


def write_records(file: Path, records: Sequence[dict[str, Any]]) -> Path:
    """`file` with each record on a line."""
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


def read_records(file: Path) -> list[dict[str, Any]]:
    """The records of a JSON Lines file."""
    return [json.loads(line) for line in file.read_text().splitlines()]


def rendered(chat: Sequence[str]) -> str:
    """Questions and answers in turn as Llama 2 text."""
    return "".join(PAIR.format(question, answer) for question, answer in zip(chat[::2], chat[1::2], strict=True))


def fault_kinds(file: Path, **options: Any) -> dict[int, list[str]]:
    """Row number and the kinds of its faults, for faulty rows."""
    return {row: [fault.kind for fault in faults] for row, faults in audit_file(file, **options).faults.items()}
