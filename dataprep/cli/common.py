"""What the commands share: the program, common options, opening a build, printing JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Dict

from dataprep import __version__
from dataprep.cli.option_groups import COMMAND_GROUPS
from dataprep.common.command_line import HELP_FLAGS, completion_note
from dataprep.common.help_text import GroupedHelp
from dataprep.common.lookup import DEFAULT_STORE, build_references, locate
from dataprep.common.text import json_text
from dataprep.recipe_file import read_recipe

if TYPE_CHECKING:
    from cyclopts.completion import CompletionContext

    from dataprep.contract import Build


def complete_build(context: CompletionContext) -> list[str]:
    """Return the builds of the store whose reference begins with what is typed so far."""
    store = context["--store"].value
    return build_references(store if isinstance(store, Path) else DEFAULT_STORE)


BuildName = Annotated[
    str, Parameter(name="build", help="A build: its path, its name, or name@version.", completer=complete_build)
]
Store = Annotated[Path, Parameter(help="Folder of builds.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object on stdout.")]
Switch = Parameter(negative="")  # a flag without a --no-… form


def _apply_recipe_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take the options that are not given as flags from the file given with --recipe."""
    given = {argument.name: argument for argument in arguments if argument.tokens}
    if "--recipe" not in given:
        return
    path = Path(given["--recipe"].tokens[0].value)
    stated = read_recipe(path)
    if "FILE" in given:  # sources by position replace those of the recipe
        stated.pop("source", None)
    options = {
        key.replace("_", "-"): list(value) if isinstance(value, tuple) else value for key, value in stated.items()
    }
    Dict(options, use_commands_as_keys=False, source=str(path))(app, commands, arguments)


app = App(
    name="dataprep",
    help="Turn conversations into a versioned, checked, documented build for fine-tuning.",
    help_format="plaintext",
    help_formatter=GroupedHelp(groups=COMMAND_GROUPS, note=completion_note("dataprep")),
    help_flags=HELP_FLAGS,
    version=__version__,
    config=_apply_recipe_file,
    suppress_keyboard_interrupt=False,
    # consume_multiple: --source chats/*.jsonl, as a shell expands it
    default_parameter=Parameter(negative_iterable=(), consume_multiple=(1, None)),
)


def locate_build(store: Path, reference: str) -> Path:
    """Return the folder of the build that `reference` names."""
    return locate(store, reference)


def open_named(store: Path, reference: str) -> Build:
    """Open the build that `reference` names; its bytes are verified if they have changed since they last were."""
    from dataprep.contract import open_build

    return open_build(locate_build(store, reference))


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print a value as one line of JSON on stdout."""
    print(json_text(value))
