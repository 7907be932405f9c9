"""`dataprep build`: arguments and output."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from dataprep.cli.common import Json, Store, Switch, app, print_json
from dataprep.cli.option_groups import BUILD_GROUPS, BUILD_USUAL
from dataprep.common.help_text import GroupedHelp
from dataprep.common.lookup import DEFAULT_STORE, SHORT_VERSION
from dataprep.common.text import next_steps
from dataprep.recipe import Recipe
from dataprep.resources import Resources

if TYPE_CHECKING:
    from dataprep.build import Outcome

_SAMPLE_NOTICE = """\
No FILE: this builds the bundled sample, which is SYNTHETIC (written by a script) and for trying dataprep only.
For real data: dataprep build FILE, where FILE is a file, a folder or a Hub id such as OpenAssistant/oasst1.
"""


@app.command(
    help_formatter=GroupedHelp("dataprep build", BUILD_GROUPS, BUILD_USUAL),
    usage="Usage: dataprep build [FILE...] [OPTIONS]",
)
def build(
    *files: Annotated[str, Parameter(name="FILE")],
    options: Annotated[Recipe | None, Parameter(name="*")] = None,
    resources: Annotated[Resources | None, Parameter(name="*")] = None,
    recipe: Path | None = None,
    store: Store = DEFAULT_STORE,
    name: str | None = None,
    force: Annotated[bool, Switch] = False,
    dry_run: Annotated[bool, Switch] = False,
    as_json: Json = False,
) -> None:
    """Build a version: read, choose threads, apply rules, deduplicate, sample, split, render, check and write.

    Parameters
    ----------
    files
        Files, folders, globs or Hub ids (org/name[@revision][:split]) to read; default: the bundled synthetic sample.
    recipe
        A TOML file with any of these options, or the manifest.json of a build; flags take precedence over it.
    store
        Folder that holds the builds.
    name
        The build's name; default: that of the first source (a file's stem, a glob's folder, a build's own name).
    force
        Build even if the version exists; the shards must come out identical.
    dry_run
        Print what would be kept and dropped, and write nothing.
    """
    from dataprep.common.bundled import default_name
    from dataprep.common.progress import Progress
    from dataprep.common.terminal import ProgressDisplay, stderr_console
    from dataprep.sources.hashing import hash_ahead

    chosen, resources = options or Recipe(), resources or Resources()
    if files:
        chosen = replace(chosen, source=(*files, *chosen.source))
    hash_ahead(chosen.source, resources.partition_size)  # while the next line imports what reads them
    from dataprep.build import build as build_version

    console = stderr_console()
    if not chosen.source:
        console.print_sentence(_SAMPLE_NOTICE, style="yellow")
    with ProgressDisplay(console) as display:
        outcome = build_version(
            chosen,
            store,
            name or default_name(chosen.source),
            force=force,
            dry_run=dry_run,
            resources=resources,
            progress=Progress(display.show),
        )
    if as_json:
        print_json(_as_json(outcome))
    else:
        _print_outcome(outcome, store, dry_run)


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


def _print_outcome(outcome: Outcome, store: Path, dry_run: bool) -> None:
    from dataprep.cli.views import funnel_lines
    from dataprep.common.terminal import stderr_console, stdout_console

    console = stderr_console()
    console.print(funnel_lines(outcome.summary, console.width))
    for note in outcome.summary["notes"]:
        console.print_sentence(f"note: {note}", style="yellow")
    if dry_run:
        console.print("Dry run: nothing was written.")
        return
    name = f"{outcome.name}@{outcome.version[:SHORT_VERSION]}"
    if outcome.built:
        console.print(f"Built {name} in {sum(outcome.seconds.values()):.1f} s:")
    else:
        console.print(f"{name} exists already; its files are intact, and it is now the latest:")
    stdout_console().print(str(outcome.path), soft_wrap=True)
    console.print(next_steps(_next_commands(outcome, store)), soft_wrap=True)


def _next_commands(outcome: Outcome, store: Path) -> list[tuple[str, str]]:
    """Return what to run after a build: what each command does, and the command."""
    from dataprep.common.conversation_funnel import conversation_funnel

    name, funnel = outcome.name, conversation_funnel(outcome.summary)
    where = "" if store == DEFAULT_STORE else f" --store {shlex.quote(str(store))}"
    steps = [
        ("see a conversation", f"dataprep show {name}{where}"),
        ("open the report", f"dataprep report {name} --open{where}"),
    ]
    if reasons := (*funnel.lost, *funnel.before):
        steps.append(("list a rule's rows", f"dataprep why {name} --rule {reasons[0].rule}{where}"))
    return [*steps, ("try a training run", f"training run --data {name} --model tiny{where}")]
