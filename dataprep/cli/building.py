"""`dataprep build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dataprep.cli.common import DEFAULT_STORE, Json, Store, Switch, app, print_json
from dataprep.recipe import Recipe, parse_size

if TYPE_CHECKING:
    from dataprep.build import Outcome


@app.command
def build(
    options: Annotated[Recipe | None, Parameter(name="*")] = None,
    *,
    recipe: Path | None = None,
    store: Store = DEFAULT_STORE,
    name: str | None = None,
    force: Annotated[bool, Switch] = False,
    dry_run: Annotated[bool, Switch] = False,
    max_memory: str | None = None,
    as_json: Json = False,
) -> None:
    """Build a version: read, thread, apply rules, deduplicate, sample, render, write.

    Parameters
    ----------
    recipe
        A TOML file with any of these options, or the manifest.json of a build; flags given as well win.
    store
        Folder to put builds into.
    name
        The build's name; by default that of the first source: a file's stem, a glob's folder, a build's own name.
    force
        Build again although the version is there; the shards must come out the same.
    max_memory
        What the search for near-duplicates may take above the text itself, such as 4GB; by default half of the machine's.
    dry_run
        Show what would become of the input, and write nothing.
    """
    from dataprep.build import build as run
    from dataprep.common.bundled import default_name
    from dataprep.common.progress import Progress
    from dataprep.common.terminal import ProgressDisplay, stderr_console

    chosen = options or Recipe()
    console = stderr_console()
    if not chosen.source:
        console.print(
            "No --source: this builds the bundled sample, which is SYNTHETIC (made by a script, nobody said it) and only "
            "shows the way.\nFor real data: dataprep build --source FILE, FOLDER or Hub id, such as OpenAssistant/oasst1.\n",
            style="yellow",
            soft_wrap=True,
        )
    with ProgressDisplay(console) as display:
        outcome = run(
            chosen,
            store,
            name or default_name(chosen.source),
            force=force,
            dry_run=dry_run,
            max_memory=parse_size(max_memory) if max_memory else None,
            progress=Progress(display.show),
        )
    if as_json:
        print_json(_summary(outcome))
    else:
        _tell_build(outcome, dry_run)


def _summary(outcome: Outcome) -> dict[str, Any]:
    shown = ("rows", "splits", "fates", "repairs", "languages", "funnel", "notes")
    return {
        "name": outcome.name,
        "version": outcome.version,
        "path": str(outcome.path) if outcome.path else None,
        "built": outcome.built,
        **{key: outcome.summary[key] for key in shown},
        "seconds": outcome.seconds,
    }


def _tell_build(outcome: Outcome, dry_run: bool) -> None:
    from dataprep.common.terminal import funnel, stderr_console, stdout_console

    console = stderr_console()
    console.print(funnel(outcome.summary))
    for note in outcome.summary["notes"]:
        console.print(f"note: {note}", style="yellow", soft_wrap=True)
    if dry_run:
        console.print("A dry run: nothing was written.")
    elif outcome.built:
        console.print(f"Built {outcome.name}@{outcome.version} in {sum(outcome.seconds.values()):.1f} s:")
    else:
        console.print(f"{outcome.name}@{outcome.version} was there already, is whole, and is now latest:")
    if outcome.path:
        stdout_console().print(str(outcome.path), soft_wrap=True)
