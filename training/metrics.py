"""metrics.jsonl: one JSON line for each logged step of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataprep.common.text import excerpt
from training.errors import RunError
from training.run_folder import write_atomically
from training.run_record import Metrics

Line = dict[str, Any]  # step, and loss or eval_loss, among others


def read_metrics(path: Path) -> list[Line]:
    """All lines; an empty list if the file does not exist.

    Raises:
        RunError: a line is not a JSON object with a step.
    """
    lines: list[Line] = []
    if not path.exists():
        return lines
    for number, text in enumerate(path.read_text("utf-8", "replace").splitlines(), start=1):
        line = _parse(text)
        if line is None:
            raise RunError(f"Line {number} of {path} is not a line of metrics ({excerpt(text, 60)}): delete it.")
        lines.append(line)
    return lines


def truncate_metrics(path: Path, step: int) -> None:
    """Remove the lines after `step`, and everything from the first unreadable line on (a killed run leaves half a line)."""
    if not path.exists():
        return
    kept = []
    for text in path.read_text("utf-8", "replace").splitlines():
        line = _parse(text)
        if line is None:
            break
        if line["step"] <= step:
            kept.append(text + "\n")
    write_atomically(path, "".join(kept))


def _parse(text: str) -> Line | None:
    """The line's JSON object if it is one with a step."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) and type(line.get("step")) is int else None


def summarise(lines: list[Line]) -> Metrics:
    """The first and last losses of a run."""
    losses = [line["loss"] for line in lines if "loss" in line]
    held_out = [line["eval_loss"] for line in lines if "eval_loss" in line]
    return {
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "held_out_before": held_out[0] if held_out else None,
        "held_out_after": held_out[-1] if held_out else None,
    }
