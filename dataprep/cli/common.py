"""What the commands share: the program, common options, opening a build, printing JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, ArgumentCollection, Parameter
from cyclopts.config import Dict

from dataprep import __version__
from dataprep.common.text import json_text
from dataprep.recipe_file import read_recipe

if TYPE_CHECKING:
    from dataprep.contract import Build

DEFAULT_STORE = Path("data/builds")

BuildName = Annotated[str, Parameter(name="build", help="A build: its path, its name, or name@version.")]
Store = Annotated[Path, Parameter(help="Folder of builds.")]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object on stdout.")]
Switch = Parameter(negative="")  # a flag without a --no-… form


def _apply_recipe_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Take the options that are not given as flags from the file given with --recipe."""
    for argument in arguments:
        if argument.name == "--recipe" and argument.tokens:
            path = Path(argument.tokens[0].value)
            options = {
                key.replace("_", "-"): list(value) if isinstance(value, tuple) else value
                for key, value in read_recipe(path).items()
            }
            Dict(options, use_commands_as_keys=False, source=str(path))(app, commands, arguments)


app = App(
    name="dataprep",
    help="Turn conversations into a versioned, checked, documented build for fine-tuning.",
    help_format="plaintext",
    version=__version__,
    config=_apply_recipe_file,
    suppress_keyboard_interrupt=False,
    # consume_multiple: --source chats/*.jsonl, as a shell expands it
    default_parameter=Parameter(negative_iterable=(), consume_multiple=True),
)


def locate_build(store: Path, reference: str) -> Path:
    """Return the folder of the build that `reference` names."""
    from dataprep.store.lookup import locate

    return locate(store, reference)


def open_named(store: Path, reference: str) -> Build:
    """Open the build that `reference` names; its bytes are verified if they have changed since they last were."""
    from dataprep.contract import open_build

    return open_build(locate_build(store, reference))


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Print a value as one line of JSON on stdout."""
    print(json_text(value))
