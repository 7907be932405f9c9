"""Consoles print untrusted strings literally, and one bar shows the progress of a build."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.table import Table

from dataprep.common import terminal
from dataprep.common.progress import STAGE_SHARES, Progress
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


def test_one_bar_shows_the_stage_that_a_build_is_in() -> None:
    console = terminal.SafeConsole(file=io.StringIO(), force_terminal=True)
    with ProgressDisplay(console) as display:
        progress = Progress(display.show)
        shown = []
        for stage, total in (("read", 100), ("gate", 1)):
            with progress.stage(stage, total) as advance:
                for done in range(total):
                    advance(done)
                assert display._bar
                (bar,) = display._bar.tasks
                shown.append((bar.description, bar.total, bar.fields["share"]))
    assert shown == [("reading", 100, "99 %"), ("checking quality", None, "")]


def test_every_stage_of_a_build_has_an_activity_that_fits() -> None:
    assert terminal._ACTIVITIES.keys() == STAGE_SHARES.keys()
    assert max(map(len, terminal._ACTIVITIES.values())) <= 19


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_stage_without_rows_is_shown(is_terminal: bool) -> None:
    console = terminal.SafeConsole(file=io.StringIO(), force_terminal=is_terminal)
    with ProgressDisplay(console) as display, Progress(display.show).stage("render", 0) as advance:
        advance(0)
