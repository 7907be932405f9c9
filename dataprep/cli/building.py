"""`dataprep build`: arguments and output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dataprep.cli.common import DEFAULT_STORE, Json, Store, Switch, app, print_json
from dataprep.options import parse_size
from dataprep.recipe import Recipe

if TYPE_CHECKING:
    from dataprep.build import Outcome

_SAMPLE_NOTICE = """\
No --source: this builds the bundled sample, which is SYNTHETIC (written by a script) and for trying dataprep only.
For real data: dataprep build --source FILE, FOLDER or Hub id, such as OpenAssistant/oasst1.
"""


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
    """Build a version: read, choose threads, apply rules, deduplicate, sample, split, render, check and write.

    Parameters
    ----------
    recipe
        A TOML file with any of these options, or the manifest.json of a build; flags take precedence over it.
    store
        Folder that holds the builds.
    name
        The build's name; default: that of the first source (a file's stem, a glob's folder, a build's own name).
    force
        Build even if the version exists; the shards must come out identical.
    max_memory
        Memory that near-duplicate detection may use above the text itself, such as 4GB; default: half of the machine's.
    dry_run
        Print what would be kept and dropped, and write nothing.
    """
    from dataprep.build import build as build_version
    from dataprep.common.bundled import default_name
    from dataprep.common.progress import Progress
    from dataprep.common.terminal import ProgressDisplay, stderr_console

    chosen = options or Recipe()
    console = stderr_console()
    if not chosen.source:
        console.print(_SAMPLE_NOTICE, style="yellow", soft_wrap=True)
    with ProgressDisplay(console) as display:
        outcome = build_version(
            chosen,
            store,
            name or default_name(chosen.source),
            force=force,
            dry_run=dry_run,
            max_memory=parse_size(max_memory) if max_memory else None,
            progress=Progress(display.show),
        )
    if as_json:
        print_json(_as_json(outcome))
    else:
        _print_outcome(outcome, dry_run)


def _as_json(outcome: Outcome) -> dict[str, Any]:
    keys = ("rows", "splits", "fates", "repairs", "languages", "funnel", "notes")
    return {
        "name": outcome.name,
        "version": outcome.version,
        "path": str(outcome.path) if outcome.path else None,
        "built": outcome.built,
        **{key: outcome.summary[key] for key in keys},
        "seconds": outcome.seconds,
    }


def _print_outcome(outcome: Outcome, dry_run: bool) -> None:
    from dataprep.cli.views import funnel_table
    from dataprep.common.terminal import stderr_console, stdout_console

    console = stderr_console()
    console.print(funnel_table(outcome.summary))
    for note in outcome.summary["notes"]:
        console.print(f"note: {note}", style="yellow", soft_wrap=True)
    if dry_run:
        console.print("Dry run: nothing was written.")
    elif outcome.built:
        console.print(f"Built {outcome.name}@{outcome.version} in {sum(outcome.seconds.values()):.1f} s:")
    else:
        console.print(
            f"{outcome.name}@{outcome.version} exists already; its files are intact, and it is now the latest:"
        )
    if outcome.path:
        stdout_console().print(str(outcome.path), soft_wrap=True)
