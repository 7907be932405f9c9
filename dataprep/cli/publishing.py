"""Hand a build to other programs and people: `export`, `publish`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from dataprep.cli.common import BuildName, Json, Store, Switch, app, locate_build, open_named, print_json
from dataprep.common.errors import PublishError, StoreError
from dataprep.common.lookup import DEFAULT_STORE
from dataprep.common.text import json_text, next_steps, plural, size_text

if TYPE_CHECKING:
    from dataprep.common.hub_repository import Published

Layout = Literal["text", "messages", "sharegpt", "full"]  # as in publish.layouts, which is slow to import
Trainer = Literal["axolotl", "llamafactory", "trl", "unsloth"]  # as in publish.trainers


@app.command
def export(
    reference: BuildName,
    *,
    to: Path,
    trainer: Annotated[Trainer | None, Parameter(name="--for")] = None,
    format: Literal["parquet", "jsonl"] | None = None,
    layout: Literal[Layout, "prompt-completion", "tokens"] | None = None,
    tokenizer: str | None = None,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Write a build's rows for another program: Parquet or JSON lines in the layout that it reads.

    Parameters
    ----------
    to
        A new or empty folder.
    trainer
        A trainer: its configuration is written beside the data, in the layout and format that it reads.
    format
        File format; default: parquet.
    layout
        text (default): the rendered conversation; messages: role and content; sharegpt: from and value; full: all columns;
        prompt-completion: a row for each trained answer, with all text before it; tokens: input_ids and labels.
    tokenizer
        Folder or Hub name of the model whose tokenizer makes the ids of tokens.
    """
    from dataprep.common.terminal import stderr_console, stdout_console
    from dataprep.publish.export import export as write_export

    if trainer is not None and (layout is not None or format is not None):
        raise StoreError(f"--for {trainer} chooses the layout and the format: omit --layout and --format.")
    if tokenizer is not None and layout != "tokens" and trainer not in ("trl", "unsloth"):
        raise StoreError("--tokenizer is for --layout tokens, --for trl and --for unsloth: omit it here.")
    files = write_export(
        open_named(store, reference), to, layout or "text", format or "parquet", tokenizer=tokenizer, trainer=trainer
    )
    if as_json:
        chosen = {"for": trainer} if trainer else {"layout": layout or "text", "format": format or "parquet"}
        print_json({"path": str(to), **chosen, "files": files})
        return
    for name, count in files.items():
        stdout_console().print(f"{to / name}  {size_text(count)}", soft_wrap=True)
    stderr_console().print(next_steps([_use_export(to, trainer)]), soft_wrap=True)


def _use_export(to: Path, trainer: Trainer | None) -> tuple[str, str]:
    """Return what to do with an export, and the command."""
    inside = f"cd {shlex.quote(str(to))} && "
    match trainer:
        case "axolotl":
            return "set base_model, then train", f"{inside}axolotl train axolotl.yml"
        case "llamafactory":
            return "set model_name_or_path, then train", f"{inside}llamafactory-cli train llamafactory.yaml"
        case "trl" | "unsloth":
            return "train", f"{inside}python train_{trainer}.py MODEL"
    code = f"from datasets import load_dataset; print(load_dataset({json_text(str(to))}))"
    return "look into it", f"python -c {shlex.quote(code)}"


@app.command
def publish(
    reference: BuildName,
    *,
    to: str,
    layout: Layout = "text",
    with_report: Annotated[bool, Switch] = False,
    private: Annotated[bool, Switch] = False,
    dry_run: Annotated[bool, Switch] = False,
    store: Store = DEFAULT_STORE,
    as_json: Json = False,
) -> None:
    """Verify and publish a build: rows as Parquet, card, manifest and fates, in one commit with a tag.

    Parameters
    ----------
    to
        A data set on the Hugging Face Hub (org/name), or a folder, written as ./name, ../name, /name or ~/name.
    layout
        text: the rendered conversation; messages: role and content; sharegpt: from and value; full: all columns.
    with_report
        Publish report.html too, which shows texts of many conversations.
    private
        Create a private data set; a data set that is public already is refused.
    dry_run
        List what would be sent, with sizes, or why it would be refused; write and send nothing.
    """
    from dataprep.contract import open_build
    from dataprep.publish.contents import is_folder
    from dataprep.publish.publishing import publish as publish_build
    from dataprep.store.verification import verify_build

    if private and is_folder(to):
        raise PublishError(f"--private is for a data set on the Hub, and {to} is a folder.")
    folder = locate_build(store, reference)  # resolved once: `latest` may move
    verify_build(folder, record=not dry_run)
    published = publish_build(
        open_build(folder, check=False), to, layout, with_report=with_report, private=private, dry_run=dry_run
    )
    if as_json:
        print_json({**vars(published), "dry_run": dry_run, "bytes": sum(published.files.values())})
    else:
        _print_published(published, dry_run)


def _print_published(published: Published, dry_run: bool) -> None:
    from dataprep.common.terminal import stderr_console, stdout_console

    out, err = stdout_console(), stderr_console()
    if published.there_already:
        err.print(f"{published.tag} is in {published.place} already: nothing was done.", soft_wrap=True)
        return
    for name, count in published.files.items():
        out.print(f"{name}  {size_text(count)}", soft_wrap=True)
    for name in published.removed:
        out.print(f"{name}  {'would be removed' if dry_run else 'removed'}", soft_wrap=True)
    total = f"{plural(len(published.files), 'file')}, {size_text(sum(published.files.values()))}"
    if dry_run:
        unasked = f" What {published.place} has is not known: {published.unasked}." if published.unasked else ""
        err.print(f"Dry run: {total} would go to {published.place}; nothing was sent.{unasked}", soft_wrap=True)
    else:
        err.print(f"Published {published.tag} to {published.place}: {total}.", soft_wrap=True)
