"""Check data and show reports: `report`, `audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dataprep.cli.common import BuildName, Json, Store, Switch, app, open_named, print_json
from dataprep.common.errors import DamagedBuild, InputError
from dataprep.common.lookup import DEFAULT_STORE
from dataprep.common.text import plural, visible

if TYPE_CHECKING:
    from rich.table import Table

    from dataprep.audit import Audit
    from dataprep.contract import Build

_ROWS_NAMED = 20  # of the rows that `audit --repaired` leaves out


@app.command
def report(
    reference: BuildName,
    *,
    open_it: Annotated[bool, Parameter(name="--open", negative="")] = False,
    show_personal_data: Annotated[bool, Switch] = False,
    out: Path | None = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Print the path of a build's report: one HTML file that works offline.

    Parameters
    ----------
    open_it
        Open it in the browser.
    show_personal_data
        Write a report that shows e-mail addresses, keys, card and phone numbers in the texts; needs --out.
    out
        Write a new report of the build to this file.
    """
    import webbrowser

    build = open_named(store, reference)
    path = build.path / "report.html"
    if show_personal_data and out is None:
        raise InputError("--show-personal-data needs --out FILE: a build's own report never shows personal data.")
    if out is not None:
        _write_report(build, out, show_personal_data)
        path = out.resolve()
    if not path.is_file():
        raise InputError(f"{build.path} has no report: write one with --out FILE.")
    if open_it:
        webbrowser.open(path.as_uri())
    if as_json:
        print_json({"path": str(path)})
    else:
        print(visible(str(path)))


def _write_report(build: Build, out: Path, show_personal_data: bool) -> None:
    from dataprep.common.files import disk_errors, write_file
    from dataprep.common.jsonfile import InvalidJson, read_json
    from dataprep.report import CollectedRows, build_report
    from dataprep.store.fates import read_duplicates, read_fates

    manifest = build.manifest.complete()
    fates, pairs = read_fates(build.path), read_duplicates(build.path)
    verdict_file = build.path / "quality.json"
    try:
        verdict = read_json(verdict_file, dict[str, Any])
        seed = manifest["recipe"].get("seed")
        collected = CollectedRows.of_splits(build.splits, seed if isinstance(seed, int) else 0, fates)
        page = build_report(manifest, collected, fates, pairs, verdict, show_personal_data)
    except FileNotFoundError:
        raise DamagedBuild(f"{verdict_file} is missing: the build is damaged, rebuild it with --force.") from None
    except InvalidJson as fault:
        raise DamagedBuild(f"{verdict_file} {fault}: the build is damaged, rebuild it with --force.") from None
    except (LookupError, TypeError, ValueError, AttributeError) as fault:
        raise DamagedBuild(
            f"{verdict_file} or {build.path / 'manifest.json'} is not what a build writes "
            f"({type(fault).__name__}: {fault}): the build is damaged, rebuild it with --force."
        ) from fault
    with disk_errors(InputError, str(out), "choose another --out", out.parent):
        write_file(out, page)


@app.command
def audit(
    file: Path,
    *,
    template: str = "llama2",
    format: str = "auto",
    against: Path | None = None,
    source_format: str = "auto",
    repaired: Path | None = None,
    report_file: Annotated[Path | None, Parameter(name="--report")] = None,
    as_json: Json = False,
) -> None:
    """Find the faults of a data set that is already formatted: read it back, and report those of each row.

    Parameters
    ----------
    file
        JSONL, JSON, Parquet or Arrow with a column text (rendered), messages or conversations; a folder or a glob of such.
    template
        The chat template that rendered a text column.
    format
        Format of a file with messages; auto detects it.
    against
        Another file: an evaluation set or a benchmark whose texts must not be in this one (leak), or the source that
        this one was made from, to find what was cut or lost.
    source_format
        Format of --against; if given, --against is the source of the same conversations.
    repaired
        Write the sound rows, and those that can be repaired without guessing, to this JSONL or Parquet file.
    report_file
        Write the result as an HTML page.
    """
    from rich.text import Text

    from dataprep.audit import audit_file, write_page, write_repaired
    from dataprep.common.terminal import stdout_console

    result = audit_file(file, template, format, against, source_format)
    repairs = write_repaired(result, repaired) if repaired else None
    if report_file:
        write_page(result, report_file)
    if as_json:
        print_json(result.to_json() | ({"repaired": repairs} if repairs else {}))
        return
    console = stdout_console()
    console.print(_fault_table(result))
    for note in result.notes:
        console.print(visible(note), style="yellow", markup=False, soft_wrap=True)
    faulty, rows = len(result.faults), result.row_count
    verb = "has" if faulty == 1 else "have"
    console.print(
        f"{faulty:,} of {plural(rows, 'row')} {verb} a fault." if faulty else f"No fault in {plural(rows, 'row')}."
    )
    if repairs:
        console.print(Text(visible(_repaired_sentence(repairs))), soft_wrap=True)


def _repaired_sentence(repairs: dict[str, Any]) -> str:
    """Return what `--repaired` wrote as a sentence, with the first of the rows that it left out."""
    left_out = repairs["left_out_rows"]
    rows = [f"{row['row']} of {row['file']}" if isinstance(row, dict) else str(row) for row in left_out[:_ROWS_NAMED]]
    more = f" and {len(left_out) - _ROWS_NAMED:,} more" if len(left_out) > _ROWS_NAMED else ""
    return (
        f"{repairs['path']}: {plural(repairs['written'], 'row')} written, {repairs['repaired']:,} of them repaired; "
        f"left out: {', '.join(rows) or 'none'}{more}"
    )


def _fault_table(result: Audit) -> Table:
    from rich.table import Table
    from rich.text import Text

    several = len(result.rows.files) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (*(["file"] if several else []), "row", "fault", "sure", "what and where"):
        table.add_column(column, overflow="fold", justify="right" if column == "row" else "left")
    for row in result.to_json()["rows"]:
        place = [Text(visible(str(row[key]))) for key in ("file", "row") if key in row]
        for fault in row["faults"]:
            table.add_row(*place, fault["kind"], fault["sure"], Text(visible(fault["detail"])))
    return table
