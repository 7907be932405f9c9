"""The versions of a store: `list`, `diff`, `gc`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from dataprep.cli.common import DEFAULT_STORE, Json, Store, Switch, app, open_named, print_json

if TYPE_CHECKING:
    from dataprep.store.history import Difference

_SHOWN = 5  # rows of a kind that `diff` shows to a person; --json has them all


@app.command(name="list")
def list_builds(*, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """List builds and their versions: rows, size, template, gate, when, and which is latest."""
    from rich.table import Table

    from dataprep.common.terminal import stderr_console, stdout_console
    from dataprep.store.history import listing

    found = listing(store)
    if as_json:
        print_json(found)
        return
    if not found:
        stderr_console().print(f"There is no build in {store}: make one with dataprep build.", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("build", "rows", "size", "template", "gate", "made (UTC)", ""):
        table.add_column(column, justify="right" if column in ("rows", "size") else "left")
    for facts in found:
        table.add_row(*_row(facts))
    stdout_console().print(table)


def _row(facts: dict[str, Any]) -> list[str]:
    named = f"{facts['name']}@{facts['version']}"
    if "problem" in facts:
        return [named, "", "", "", "", "", facts["problem"]]
    rows = " + ".join(f"{count:,}" for count in facts["splits"].values())
    made = facts["created"][:16].replace("T", " ")
    latest = "latest" if facts["latest"] else ""
    return [named, rows, size(facts["bytes"]), str(facts["template"]), facts["gate"], made, latest]


def size(count: int) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.1f} GB"


@app.command
def diff(before: str, after: str, *, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """Tell what changed between two versions: recipe, rows added, removed and changed and by which rule, languages.

    Parameters
    ----------
    before
        A build: its path, its name, or name@version.
    after
        Another one, of the same or of another name.
    """
    from dataprep.store.history import diff as compared

    old, new = (open_named(store, reference, check=True) for reference in (before, after))
    found = compared(old, new)
    if as_json:
        ends = {end: f"{b.manifest.name}@{b.manifest.version}" for end, b in (("before", old), ("after", new))}
        print_json(ends | found.as_json())
    else:
        _tell_difference(found)


def _tell_difference(found: Difference) -> None:
    from rich.table import Table

    from dataprep.common.terminal import stdout_console
    from dataprep.store.history import by_rule

    out = stdout_console()
    for key, (old, new) in found.recipe.items():
        out.print(f"{key}: {_told(old)} -> {_told(new)}", soft_wrap=True)
    out.print(f"rows: {found.rows[0]:,} -> {found.rows[1]:,}", style="bold")
    for sign, kind in (("+", "added"), ("-", "removed"), ("~", "changed")):
        frame = getattr(found, kind)
        rules = ", ".join(f"{rule} {count:,}" for rule, count in by_rule(frame).items())
        out.print(f"{sign} {frame.height:,} {kind}" + (f": {rules}" if rules else ""), soft_wrap=True)
        for row in frame.head(_SHOWN).to_dicts():
            told = "  ".join(str(row[key]) for key in ("id", "lang", "rule", "detail") if row[key])
            out.print(f"    {told}", soft_wrap=True)
        if frame.height > _SHOWN:
            out.print(f"    and {frame.height - _SHOWN:,} more: see --json")
    moved = {lang: counts for lang, counts in found.languages.items() if counts[0] != counts[1]}
    if moved:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("language", "before", "after", "change"):
            table.add_column(column, justify="left" if column == "language" else "right")
        for lang, (had, has) in moved.items():
            table.add_row(lang, f"{had:,}", f"{has:,}", f"{has - had:+,}")
        out.print(table)


def _told(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


@app.command
def gc(
    *,
    keep: int = 3,
    dry_run: Annotated[bool, Switch] = False,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Remove old versions and the remains of interrupted builds; never what is latest or what a run was trained on.

    Parameters
    ----------
    keep
        How many of the newest versions of each name stay.
    dry_run
        Show what would go, and remove nothing.
    """
    from dataprep.common.terminal import stderr_console, stdout_console
    from dataprep.store.history import gc as collect

    gone = collect(store, keep, dry_run=dry_run)
    total = sum(count for _, count in gone)
    if as_json:
        print_json({"removed": not dry_run, "bytes": total, "folders": [_folder(*one) for one in gone]})
        return
    for path, count in gone:
        stdout_console().print(f"{path}  {size(count)}", soft_wrap=True)
    what = "Would free" if dry_run else "Freed"
    stderr_console().print(f"{what} {size(total)} in {len(gone)} folders." if gone else "There is nothing to remove.")


def _folder(path: Path, count: int) -> dict[str, Any]:
    return {"path": str(path), "bytes": count}
