"""Builds for other programs and people: `export`, `publish`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from dataprep.cli.common import DEFAULT_STORE, BuildName, Json, Store, Switch, app, locate_build, open_named, print_json
from dataprep.cli.history import size
from dataprep.common.errors import PublishError

if TYPE_CHECKING:
    from dataprep.publish.publishing import Published

Layout = Literal["text", "messages", "sharegpt", "full"]  # as in dataprep.export, which is heavy to import


@app.command
def export(
    reference: BuildName,
    *,
    to: Path,
    format: Literal["parquet", "jsonl"] = "parquet",
    layout: Layout = "text",
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Write a build's rows as Parquet or JSON lines, in the shape that another program reads.

    Parameters
    ----------
    to
        A folder that is not there yet, or is empty.
    format
        Kind of file.
    layout
        text: the rendered conversation alone; messages: role and content; sharegpt: from and value; full: all columns.
    """
    from dataprep.common.terminal import stdout_console
    from dataprep.publish.export import export as run

    files = run(open_named(store, reference, check=True), to, layout, format)
    if as_json:
        print_json({"path": str(to), "layout": layout, "format": format, "files": files})
        return
    for name, count in files.items():
        stdout_console().print(f"{to / name}  {size(count)}", soft_wrap=True)


@app.command
def publish(
    reference: BuildName,
    *,
    to: str,
    layout: Layout = "text",
    private: Annotated[bool, Switch] = False,
    dry_run: Annotated[bool, Switch] = False,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Publish a build, after verifying it: rows as Parquet, card, manifest and fates, in one commit and under a tag.

    Parameters
    ----------
    to
        A data set on the Hugging Face Hub (org/name), or a folder, written as ./name, ../name, /name or ~/name.
    layout
        text: the rendered conversation alone; messages: role and content; sharegpt: from and value; full: all columns.
    private
        A data set that is made for it is seen by its owners only; one that is public already is refused.
    dry_run
        List what would be sent, with sizes, and send nothing; what a publication would be refused for is told.
    """
    from dataprep.publish import publishing
    from dataprep.store.verification import verify_build

    if private and publishing.is_folder(to):
        raise PublishError(f"--private is for a data set on the Hub, and {to} is a folder.")
    folder = locate_build(store, reference)  # once: `latest` may move
    verify_build(folder)
    opened = open_named(store, str(folder))
    if dry_run:
        done = publishing.preview(opened, to, layout, private=private)
    elif publishing.is_folder(to):
        done = publishing.to_folder(opened, to, layout)
    else:
        done = publishing.to_hub(opened, to, layout, private=private)
    if as_json:
        print_json({**vars(done), "dry_run": dry_run, "bytes": sum(done.files.values())})
    else:
        _tell(done, dry_run)


def _tell(done: Published, dry_run: bool) -> None:
    from dataprep.common.terminal import stderr_console, stdout_console

    out, told = stdout_console(), stderr_console()
    if done.there_already:
        told.print(f"{done.tag} is in {done.place} already: nothing was done.", soft_wrap=True)
        return
    for name, count in done.files.items():
        out.print(f"{name}  {size(count)}", soft_wrap=True)
    for name in done.removed:
        out.print(f"{name}  {'would be removed' if dry_run else 'removed'}", soft_wrap=True)
    total = f"{len(done.files)} files, {size(sum(done.files.values()))}"
    if dry_run:
        unasked = f" What {done.place} has is not known: {done.unasked}." if done.unasked else ""
        told.print(f"A dry run: {total} would go to {done.place}; nothing was sent.{unasked}", soft_wrap=True)
    else:
        told.print(f"Published {done.tag} to {done.place}: {total}.", soft_wrap=True)
