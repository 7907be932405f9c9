"""The versions of a store: `list`, `diff`, `gc`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dataprep.cli.common import Json, Store, Switch, app, complete_build, open_named, print_json
from dataprep.common.lookup import DEFAULT_STORE, short_versions
from dataprep.common.text import plural, size_text, time_ago
from dataprep.options import parse_size

if TYPE_CHECKING:
    from dataprep.store.diff import Difference

CompletedBuild = Annotated[str, Parameter(completer=complete_build)]
_ROWS_SHOWN = 5  # of each kind, by `diff`; --json has all


@app.command(name="list")
def list_builds(*, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """List builds and their versions: rows, size, template, gate, creation time, and which version is latest."""
    from rich.table import Table

    from dataprep.common.terminal import stderr_console, stdout_console
    from dataprep.store.history import listing

    versions = listing(store)
    if as_json:
        print_json(versions)
        return
    if not versions:
        stderr_console().print(f"There is no build in {store}: make one with dataprep build.", soft_wrap=True)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("build", "rows", "size", "template", "gate", "built", ""):
        # what must be typed is never cut or wrapped
        table.add_column(column, justify="right" if column in ("rows", "size") else "left", no_wrap=column == "build")
    rows = list(_list_rows(versions))
    for row in rows:
        table.add_row(*row)
    console = stdout_console()
    if console.measure(table, options=console.options.update(max_width=1_000)).maximum <= console.width:
        console.print(table)
        return
    for reference, *details in rows:  # a long name has a line of its own
        console.print(reference, style="bold", soft_wrap=True)
        console.print(f"  {'  '.join(filter(None, details))}")


def _list_rows(versions: Sequence[Mapping[str, Any]]) -> Iterator[list[str]]:
    """Yield the cells of each version; versions are shortened to unique prefixes."""
    now = datetime.now(UTC)
    for name, of_name in groupby(versions, key=lambda version: str(version["name"])):
        entries = list(of_name)
        short = short_versions([entry["version"] for entry in entries if "version" in entry])
        for entry in entries:
            reference = f"{name}@{short[entry['version']]}" if "version" in entry else name
            if "problem" in entry:
                yield [reference, "", "", "", "", "", entry["problem"]]
                continue
            rows = " + ".join(f"{count:,}" for count in entry["splits"].values())
            built = _age(entry["created"], now)
            latest = "latest" if entry["latest"] else ""
            yield [reference, rows, size_text(entry["bytes"]), str(entry["template"]), entry["gate"], built, latest]


def _age(created: str, now: datetime) -> str:
    """Return how long ago a version was built; the text itself where it is no time."""
    try:
        return time_ago(datetime.fromisoformat(created), now)
    except (TypeError, ValueError):  # not a time, or one without a time zone
        return created


@app.command
def diff(before: CompletedBuild, after: CompletedBuild, *, store: Store = DEFAULT_STORE, as_json: Json = False) -> None:
    """Compare two versions: recipe, rows added, removed and changed, each with the rule that caused it, and languages.

    Parameters
    ----------
    before
        A build: its path, its name, or name@version.
    after
        Another build, of the same or of another name.
    """
    from dataprep.store.diff import diff as compare

    old, new = (open_named(store, reference) for reference in (before, after))
    difference = compare(old, new)
    if as_json:
        builds = {side: f"{b.manifest.name}@{b.manifest.version}" for side, b in (("before", old), ("after", new))}
        print_json(builds | difference.to_json())
    else:
        _print_difference(difference)


def _print_difference(difference: Difference) -> None:
    from rich.table import Table

    from dataprep.common.terminal import stdout_console
    from dataprep.store.diff import rows_by_rule

    out = stdout_console()
    for key, (old, new) in difference.recipe.items():
        out.print(f"{key}: {_value(old)} -> {_value(new)}", soft_wrap=True)
    out.print(f"rows: {difference.rows[0]:,} -> {difference.rows[1]:,}", style="bold")
    for sign, (kind, frame) in zip("+-~", difference.frames().items(), strict=True):
        rules = "; ".join(f"{count:,} by {rule}" for rule, count in rows_by_rule(frame).items())
        out.print(f"{sign} {frame.height:,} {kind}" + (f": {rules}" if rules else ""), soft_wrap=True)
        for row in frame.head(_ROWS_SHOWN).to_dicts():
            line = "  ".join(str(row[key]) for key in ("id", "lang", "rule", "detail") if row[key])
            out.print(f"    {line}", soft_wrap=True)
        if frame.height > _ROWS_SHOWN:
            out.print(f"    and {frame.height - _ROWS_SHOWN:,} more: --json lists them")
    changed = {lang: counts for lang, counts in difference.languages.items() if counts[0] != counts[1]}
    if changed:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("language", "before", "after", "change"):
            table.add_column(column, justify="left" if column == "language" else "right")
        for lang, (old_count, new_count) in changed.items():
            table.add_row(lang, f"{old_count:,}", f"{new_count:,}", f"{new_count - old_count:+,}")
        out.print(table)


def _value(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return "none" if value in (None, []) else text


@app.command
def gc(
    *,
    keep: int = 3,
    dry_run: Annotated[bool, Switch] = False,
    cache_size: str = "10GB",
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Remove old versions and leftovers: the latest version and those that runs were trained on stay.

    Parameters
    ----------
    keep
        Number of the newest versions of each name that stay.
    dry_run
        Show what would be removed, and remove nothing.
    cache_size
        Size of the cache of partitions and fingerprints that stays; 1B clears it.
    """
    from dataprep.common.terminal import stderr_console, stdout_console
    from dataprep.store.history import gc as collect

    removed = collect(store, keep, dry_run=dry_run, cache_bytes=parse_size(cache_size))
    total = sum(count for _, count in removed)
    if as_json:
        print_json({"removed": not dry_run, "bytes": total, "folders": [_folder(*entry) for entry in removed]})
        return
    for path, count in removed:
        stdout_console().print(f"{path}  {size_text(count)}", soft_wrap=True)
    verb = "Would free" if dry_run else "Freed"
    summary = f"{verb} {size_text(total)} in {plural(len(removed), 'folder')}."
    stderr_console().print(summary if removed else "There is nothing to remove.")


def _folder(path: Path, count: int) -> dict[str, Any]:
    return {"path": str(path), "bytes": count}
