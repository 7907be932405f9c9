"""Judging what is there: `report`, `audit`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dataprep.cli.common import DEFAULT_STORE, BuildName, Json, Store, Switch, app, open_named, print_json
from dataprep.common.errors import InputError

if TYPE_CHECKING:
    from dataprep.audit import Audit


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
    """Tell where a build's report is: one HTML file that works offline.

    Parameters
    ----------
    open_it
        Open it in the browser.
    show_personal_data
        Write a report with e-mail addresses, keys, card and phone numbers left in the texts; needs --out.
    out
        Write the report to this file, made anew from the build.
    """
    import webbrowser

    opened = open_named(store, reference)
    path = opened.path / "report.html"
    if show_personal_data and out is None:
        raise InputError("--show-personal-data needs --out FILE: a build's own report never shows personal data.")
    if out is not None:
        import json

        from dataprep.report import CollectedRows, build_report
        from dataprep.store.builds import telling_os_errors
        from dataprep.store.shards import read_duplicates, read_fates

        fates, pairs = read_fates(opened.path), read_duplicates(opened.path)
        quality = json.loads((opened.path / "quality.json").read_text(encoding="utf-8"))
        collected = CollectedRows.of_splits(opened.splits, opened.manifest.facts["recipe"]["seed"], fates)
        made = build_report(opened.manifest.facts, collected, fates, pairs, quality, show_personal_data)
        with telling_os_errors(out.parent, "choose another --out"):
            out.write_text(made, encoding="utf-8")
        path = out.resolve()
    if not path.is_file():
        raise InputError(
            f"{opened.path} has no report: it was built before there were reports; write one with --out FILE."
        )
    if open_it:
        webbrowser.open(path.as_uri())
    if as_json:
        print_json({"path": str(path)})
    else:
        from dataprep.common.text import visible

        print(visible(str(path)))


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
    """Read an already formatted data set back, and tell what is wrong with it, row by row.

    Parameters
    ----------
    file
        JSONL, JSON, Parquet or Arrow with a column text (rendered), messages or conversations; a folder or a glob of such.
    template
        The chat template that a text column was rendered with.
    format
        Format of the file where it has messages; auto recognises it.
    against
        Another file: an evaluation set or a benchmark whose texts must not be in here (leak), or the source that this
        was made from, to find what was cut or lost on the way.
    source_format
        Format of --against; naming it says that it is the source of the same conversations.
    repaired
        Write the sound rows, and those that can be put right without guessing, to this JSONL or Parquet file.
    report_file
        Write what was found as an HTML page.
    """
    from rich.text import Text

    from dataprep.audit import audit_file, write_page, write_repaired
    from dataprep.common.terminal import stdout_console
    from dataprep.common.text import visible

    found = audit_file(file, template, format, against, source_format)
    mended = write_repaired(found, repaired) if repaired else None
    if report_file:
        write_page(found, report_file)
    if as_json:
        print_json(found.to_json() | ({"repaired": mended} if mended else {}))
        return
    console = stdout_console()
    console.print(_table(found))
    for note in found.notes:
        console.print(visible(note), style="yellow", markup=False, soft_wrap=True)
    faulty, rows = len(found.faults), found.row_count
    console.print(f"{faulty:,} of {rows:,} rows have a fault." if faulty else f"No fault in {rows:,} rows.")
    if mended:
        console.print(Text(visible(_mended(mended))), soft_wrap=True)


def _mended(mended: dict[str, Any]) -> str:
    """What was written, as a sentence; of the rows left out, the first twenty."""
    left_out = mended["left_out_rows"]
    named = [f"{row['row']} of {row['file']}" if isinstance(row, dict) else str(row) for row in left_out[:20]]
    more = f" and {len(left_out) - 20:,} more" if len(left_out) > 20 else ""
    return (
        f"{mended['path']}: {mended['written']:,} rows, {mended['repaired']:,} of them put right; "
        f"left out: {', '.join(named) or 'none'}{more}"
    )


def _table(found: Audit) -> object:
    from rich.table import Table
    from rich.text import Text

    from dataprep.common.text import visible

    several = len(found.rows.files) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in (*(["file"] if several else []), "row", "fault", "sure", "what and where"):
        table.add_column(column, overflow="fold", justify="right" if column == "row" else "left")
    for row in found.to_json()["rows"]:
        place = [Text(visible(str(row[key]))) for key in ("file", "row") if key in row]
        for fault in row["faults"]:
            table.add_row(*place, fault["kind"], fault["sure"], Text(visible(fault["detail"])))
    return table
