"""Consoles for untrusted text, and the progress of a build.

Texts of conversations, and names of files and columns in notes and errors, come from strangers. The consoles made here
print strings as they are, without markup, and with control characters and bidirectional overrides written out. A
`rich.Text` is printed unchanged, so it must be made of what `dataprep.common.text.visible` returns.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from dataprep.common.progress import RemainingTime
from dataprep.common.text import visible

_PIPE_WIDTH = 200  # columns of tables where stdout is no terminal
_SECONDS_BETWEEN_LINES = 5

# What a build does in each stage, in at most 19 characters.
_ACTIVITIES = {
    "hash": "hashing the sources",
    "verify": "verifying the build",
    "read": "reading",
    "threads": "choosing threads",
    "rules": "applying rules",
    "dedup": "finding duplicates",
    "select": "sampling",
    "split": "splitting",
    "render": "rendering",
    "gate": "checking quality",
    "write": "writing",
}


class SafeConsole(Console):
    """A console that prints strings literally: no markup, emoji or highlighting, and unsafe characters written out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)

    def print_sentence(self, text: str, style: str = "") -> None:
        """Print a sentence: wrapped between words in a terminal, on one line elsewhere."""
        self.print(text, style=style, soft_wrap=not self.is_terminal)


def stderr_console() -> SafeConsole:
    """Return a console on stderr."""
    return SafeConsole(stderr=True)


def stdout_console() -> SafeConsole:
    """Return a console on stdout, wide enough for tables where that is a pipe."""
    return SafeConsole(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


class ProgressDisplay:
    """Shows the stage that a build is in: one bar with one estimate in a terminal, a line every few seconds elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._stage = ""
        self._last_line = time.monotonic()
        self._remaining = RemainingTime()

    def __enter__(self) -> ProgressDisplay:
        if self._console.is_terminal:
            columns = (
                TextColumn("Now: {task.description:<19}"),
                BarColumn(bar_width=18),  # all of it fits into 80 columns
                TextColumn("{task.fields[share]:>5}"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[left]}"),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage has come; a `dataprep.common.progress.Show`."""
        left = self._remaining.text(stage, done, total)
        if total <= 1:  # a stage without steps to count, of which an estimate would not move, or without rows
            share = left = ""
        else:
            share = f"{100 * done // total} %"
        activity = _ACTIVITIES.get(stage, stage)
        if self._bar:
            if self._task is None or stage != self._stage:
                if self._task is not None:
                    self._bar.remove_task(self._task)
                self._task = self._bar.add_task(activity, total=total if total > 1 else None, share="", left="")
                self._stage = stage
            self._bar.update(self._task, completed=done, share=share, left=left)
        elif 0 < done < total and time.monotonic() - self._last_line > _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self._console.print(f"Now: {activity}, {share}" + (f", {left}" if left else ""))
