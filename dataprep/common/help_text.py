"""Help of a command as plain text: grouped, at most as wide as the terminal, and short unless --help-all asks for all.

cyclopts calls a `GroupedHelp` for each part of a help page. This module imports the standard library only.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

HELP_ALL = "--help-all"
SHOW_ALL: ContextVar[bool] = ContextVar("SHOW_ALL", default=False)  # whether --help-all was given

_COMMAND_COLUMNS, _OPTION_COLUMNS = 14, 26  # where descriptions begin; longer names stand on a line of their own
_MAX_WIDTH = 100
_METAVARS = {"STR": "TEXT", "CHOICE": "NAME", "FLOAT": "NUMBER", "INT": "N"}
_NO_DEFAULTS = ("", "()", "[]", "None", "False", "True")  # defaults that say nothing, or that the text says


@dataclass(frozen=True)
class GroupedHelp:
    """Prints the options or commands of a help page in groups; see `cyclopts.help.HelpFormatter`.

    `groups` has the names (`--sample`, `FILE`, `build`) by heading, in order; names in no group come last. `usual` are
    those that --help shows (None: all of them), and `rest` says what the others are. `note` ends a page of commands.
    """

    command: str = ""  # as typed: `dataprep build`
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    usual: Sequence[str] | None = None
    rest: str = "more options"
    note: str = ""

    def render_usage(self, console: Any, options: Any, usage: Any) -> None:
        """Print the usage line."""
        line = _plain(usage).removeprefix("Usage: ").replace(" STR", " TEXT").replace(" INT", " N")
        start, options_mark, positions = line.partition(" [OPTIONS]")
        words = start.split()
        command = list(
            takewhile(lambda word: word.islower() and word[0] != "-", words)
        )  # what stands by position follows the command, as it is typed
        parts = [*command, *positions.split(), *words[len(command) :], options_mark.strip()]
        _print(console, f"Usage: {' '.join(parts)}".rstrip() + "\n")

    def render_description(self, console: Any, options: Any, description: Any) -> None:
        """Print what the command does."""
        _print(console, "\n".join(textwrap.wrap(_plain(description), _width(console))) + "\n")

    def __call__(self, console: Any, options: Any, panel: Any) -> None:
        """Print the entries of a panel, group by group."""
        if not panel.entries:
            return
        entries = {_names(entry)[0]: entry for entry in panel.entries}
        usual = set(entries if self.usual is None or SHOW_ALL.get() else self.usual)
        grouped = {name for names in self.groups.values() for name in names}
        other = [name for name in entries if name not in grouped]
        alone = "Commands" if panel.format == "command" else "Options"
        heading_of_other = "Other" if len(other) < len(entries) else alone
        for heading, names in {**self.groups, heading_of_other: other}.items():
            shown = [entries[name] for name in names if name in entries and name in usual]
            if shown:
                rows = "\n".join(_row(entry, panel.format, _width(console)) for entry in shown)
                _print(console, f"{heading}:", style="bold")
                _print(console, f"{rows}\n")
        hidden = len(entries.keys() - usual)
        if hidden:
            _print(console, f"{self.command} {HELP_ALL} shows {hidden} {self.rest}.")
        if self.note and panel.format == "command":
            _print(console, self.note)


def _row(entry: Any, kind: str, width: int) -> str:
    """Return the lines of an option or command: its name, and its description in a column of its own."""
    metavar = "" if entry.positional_label else _METAVARS.get(entry.metavar or "", entry.metavar or "")
    metavar = metavar.replace("STR", "TEXT").replace("INT", "N")
    head = f"  {', '.join(_names(entry))} {metavar}".rstrip()
    column = _COMMAND_COLUMNS if kind == "command" else _OPTION_COLUMNS
    lines = textwrap.wrap(_description(entry, kind), width - column, break_long_words=False, break_on_hyphens=False)
    if len(head) <= column - 2 and lines:
        head = head.ljust(column) + lines.pop(0)
    return "\n".join([head, *(" " * column + line for line in lines)])


def _names(entry: Any) -> list[str]:
    """Return how an option is typed; a flag that is on by default is typed to switch it off."""
    if entry.positional_label:
        return [entry.positional_label]
    names = entry.negative_names if entry.default == "True" else entry.positive_names
    return [name for name in (*(names or entry.positive_names), *entry.positive_shorts) if name != HELP_ALL]


def _description(entry: Any, kind: str) -> str:
    text = _plain(entry.description).strip()
    if kind == "command":  # what follows the colon is for the command's own page
        return text.partition(":")[0].rstrip(".") + "."
    if entry.default == "True":
        text += f" On by default; {_names(entry)[0]} switches it off."
    if entry.choices:
        text += f" One of {', '.join(entry.choices)}."
    if entry.default not in (None, *_NO_DEFAULTS) and "default" not in text.lower():
        text += f" Default: {entry.default}."
    return text + (" (required)" if entry.required else "")


def _plain(text: Any) -> str:
    """Return the characters of a text of rich or cyclopts."""
    text = getattr(text, "primary_renderable", text)
    return " ".join(str(getattr(text, "plain", text) or "").split())


def _width(console: Any) -> int:
    return min(int(console.width), _MAX_WIDTH)


def _print(console: Any, text: str, style: str | None = None) -> None:
    console.print(text, style=style, markup=False, highlight=False, emoji=False, soft_wrap=True)
