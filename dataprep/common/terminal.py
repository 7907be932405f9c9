"""What a person sees in a terminal: progress, the funnel, a conversation in colour, a conversation's fate.

Texts come from strangers, and so do the names of files and columns that stand in notes and errors: control characters
and bidirectional overrides in them are shown by name, never sent to the terminal, and never read as markup. For strings,
whether printed or in a table, the consoles made here see to it; a `Text` is made of what `visible` gives.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from dataprep.common.text import visible

TRAINED = "green"
MASKED = "bright_black"
CONTROL = "bold black on yellow"
LONG = 2_000  # words of a text of which only those that are not frequent are looked up in the other


class _SafeConsole(Console):
    """A console to which a string is text: no markup, no emoji, no highlights, and all of it visible."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:  # handed on as they come
        return super().render_str(visible(text), **options)


class ProgressDisplay:
    """Shows a build's stages on stderr: a bar where that is a terminal, plain lines elsewhere, nothing when quiet."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._last = time.monotonic()

    def __enter__(self) -> ProgressDisplay:
        if self._console.is_terminal:
            columns = (
                TextColumn("{task.description:>8}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f} %"),
                TimeElapsedColumn(),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def show(self, stage: str, done: int, total: int) -> None:
        """A `progress.Show`."""
        if self._bar:
            if stage not in self._tasks:
                self._tasks[stage] = self._bar.add_task(stage)
            self._bar.update(self._tasks[stage], completed=done, total=total)
        elif 0 < done < total and time.monotonic() - self._last > 5:  # only what takes long is worth a line
            self._last = time.monotonic()
            self._console.print(f"{stage}: {100 * done // total} %")


def funnel(facts: Mapping[str, Any]) -> Table:
    """The way of the records through the stages, with the rules that dropped some."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    table.add_column("records", justify="right")
    table.add_column("why", style=MASKED, overflow="fold")
    kinds = ", ".join(f"{count:,} {kind}{'s' * (count != 1)}" for kind, count in facts["kinds"].items())
    table.add_row("read", f"{facts['funnel'][0]['in']:,}", kinds)
    for stage in facts["funnel"]:
        for rule, count in stage["rules"].items():
            table.add_row(f"  {stage['stage']}", f"-{count:,}", rule)
    splits = ", ".join(f"{name} {split['rows']:,}" for name, split in facts["splits"].items())
    table.add_row("kept", f"{facts['rows']:,}", splits, style="bold")
    for rule, count in facts["repairs"].items():
        table.add_row("  repaired", f"{count:,}", rule)
    return table


def conversation(text: str, spans: Sequence[Mapping[str, int]], controls: Sequence[Mapping[str, int]]) -> Text:
    """A rendered conversation: trained in green, the rest in grey, the template's control tokens marked."""
    cuts = sorted({0, len(text), *(edge for part in (*spans, *controls) for edge in (part["start"], part["end"]))})
    shown = Text()
    for start, end in zip(cuts, cuts[1:], strict=False):
        style = TRAINED if _within(start, spans) else MASKED
        if _within(start, controls):
            style = f"{CONTROL} underline" if _within(start, spans) else CONTROL
        shown.append(visible(text[start:end]), style)
    return shown


def _within(place: int, parts: Sequence[Mapping[str, int]]) -> bool:
    return any(part["start"] <= place < part["end"] for part in parts)


def plain_conversation(text: str, spans: Sequence[Mapping[str, int]]) -> str:
    """The same without colour: trained parts stand between ⟦ and ⟧."""
    shown, at = [], 0
    for span in spans:
        shown += [visible(text[at : span["start"]]), "⟦", visible(text[span["start"] : span["end"]]), "⟧"]
        at = span["end"]
    return "".join([*shown, visible(text[at:])])


def fate(facts: Mapping[str, Any], passed: Sequence[str]) -> Text:
    """One row of fates as a few lines a person reads; `passed` are the stages that the record came through."""
    shown = Text()
    where = (
        f"{facts['source'] or '?'}, line {facts['line']}" if facts["line"] is not None else str(facts["source"] or "")
    )
    shown.append(visible(f"{facts['kind']} {facts['id'] or ''}"), "bold")
    shown.append(visible(f"  ({where}" + (f", tree {facts['tree_id']}" if facts["tree_id"] else "") + ")\n"), MASKED)
    if passed:
        shown.append(f"  passed    {', '.join(passed)}\n", MASKED)
    for repair in facts["repairs"] or []:
        shown.append(f"  repaired  {repair['rule']}: ")
        shown.append(visible(repair["detail"] or "") + "\n", MASKED)
    colour = TRAINED if facts["fate"] == "kept" else "yellow"
    shown.append(f"  {facts['fate'].replace('_', ' ')}", colour)
    if facts["fate"] == "kept":
        shown.append(f"  in {facts['rule']}: it passed every stage\n")
    else:
        shown.append(f"  at stage {facts['stage']} by rule {facts['rule']}")
        shown.append(visible(f": {facts['detail']}\n" if facts["detail"] else "\n"))
    if facts["survivor"] and facts["rule"] != "on_path":
        alike = f" (similarity {facts['similarity']:.3f})" if facts["similarity"] is not None else ""
        shown.append(visible(f"  in its place {facts['survivor']}{alike}\n"))
    return shown


def side_by_side(
    left: Sequence[Mapping[str, str]], right: Sequence[Mapping[str, str]], name: str, other: str, plain: bool
) -> Table:
    """Two conversations beside each other; the words that they share in order are green (`plain`: in ⟦⟧)."""
    # Each word with the white space behind it; words alone are compared.
    pieces = [
        re.findall(r"\S+\s*", "\n\n".join(f"{m['role']}: {m['content']}" for m in side)) for side in (left, right)
    ]
    shown = (Text(), Text())
    for same, *parts in _shared([[piece.rstrip() for piece in side] for side in pieces]):
        for text, side, (start, end) in zip(shown, pieces, parts, strict=True):
            part = "".join(side[start:end])
            body, blank = visible(part.rstrip()), visible(part[len(part.rstrip()) :])
            text.append(
                f"⟦{body}⟧{blank}" if plain and same and body else body + blank, TRAINED if same else "bold yellow"
            )
    table = Table(padding=(0, 1))
    table.add_column(f"dropped: {name}", ratio=1, overflow="fold")
    table.add_column(f"stays: {other}", ratio=1, overflow="fold")
    table.add_row(*shown)
    return table


def _shared(words: Sequence[Sequence[str]]) -> Iterator[tuple[bool, tuple[int, int], tuple[int, int]]]:
    """Whether they are the same, and from where to where, of parts of two lists of words."""
    one, other = words
    least = min(len(one), len(other))
    start = next((at for at in range(least) if one[at] != other[at]), least)
    rest = least - start
    end = next((at for at in range(rest) if one[-1 - at] != other[-1 - at]), rest)
    a, b = one[start : len(one) - end], other[start : len(other) - end]
    yield True, (0, start), (0, start)
    # In long texts frequent words are no anchors, or the cost would grow with the square of the length.
    for kind, i, j, k, m in SequenceMatcher(None, a, b, autojunk=max(len(a), len(b)) > LONG).get_opcodes():
        yield kind == "equal", (start + i, start + j), (start + k, start + m)
    yield True, (len(one) - end, len(one)), (len(other) - end, len(other))


def survivors(chain: Sequence[Mapping[str, Any]]) -> Text:
    """What became of the one that stood in a record's place, where it does not stay itself, and of who stood in its."""
    shown = Text()
    for facts in chain:
        told = facts["fate"].replace("_", " ")
        where = (
            f"in {facts['rule']}" if facts["fate"] == "kept" else f"at stage {facts['stage']} by rule {facts['rule']}"
        )
        instead = f", in its place {facts['survivor']}" if facts["survivor"] else ""
        shown.append(visible(f"  {facts['id']}: {told} {where}{instead}\n"))
    return shown


def cluster_lines(cluster: Mapping[str, Any]) -> Text:
    """A cluster of near-duplicates: the survivor, why it stays, and the members with their similarity."""
    shown = Text()
    shown.append(visible(f"{cluster['survivor']}  {cluster['opening']}".replace("\n", " ").strip() + "\n"), "bold")
    shown.append(visible(f"  {cluster['why']}\n"), MASKED)
    for member in cluster["members"]:
        shown.append(visible(f"  {member['similarity']:.3f}  {member['id']}\n"))
    return shown


def stderr_console() -> Console:
    return _SafeConsole(stderr=True)


def stdout_console() -> Console:
    """Wide where stdout is a pipe, so that nothing is folded there."""
    return _SafeConsole(width=None if sys.stdout.isatty() else 200)
