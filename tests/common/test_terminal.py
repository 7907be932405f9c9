"""Consoles print untrusted strings literally, and each stage has one progress bar."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.table import Table

from dataprep.common import terminal
from dataprep.common.progress import Progress
from dataprep.common.terminal import ProgressDisplay, stderr_console, stdout_console

UNTRUSTED = "a \x1b[31m[/nothing] [bold]b :smile: \u202e \x9b2J"
PRINTED = "a <U+001B>[31m[/nothing] [bold]b :smile: <U+202E> <U+009B>2J"


@pytest.mark.parametrize("console", [stderr_console, stdout_console])
def test_strings_are_printed_without_escapes_or_markup(console: Any) -> None:
    safe = console()
    safe._width = 200
    table = Table(title=UNTRUSTED, box=None)
    table.add_column(UNTRUSTED)
    table.add_row(UNTRUSTED)
    with safe.capture() as printed:
        safe.print(f"note: {UNTRUSTED}", style="yellow", soft_wrap=True)
        safe.print(table)
    assert printed.get().count(PRINTED) == 4
    assert not {"\x1b", "\x9b", "\u202e"} & set(printed.get())


def test_each_stage_has_one_progress_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    console = terminal.SafeConsole(file=io.StringIO(), force_terminal=True)
    with ProgressDisplay(console) as display:
        progress = Progress(display.show)
        for stage in ("read", "write"):
            with progress.stage(stage, 100) as advance:
                for done in range(100):
                    advance(done)
        bars = display._bar.tasks if display._bar else []
        assert [(bar.description, bar.completed, bar.total) for bar in bars] == [
            ("read", 100, 100),
            ("write", 100, 100),
        ]
