"""What the commands share: the program, its options, finding a build, printing JSON."""

from __future__ import annotations

from collections.abc import Mapping
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
Switch = Parameter(negative="")


def _recipe_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Where --recipe is given, its values stand in for the flags that are not."""
    for argument in arguments:
        if argument.name == "--recipe" and argument.tokens:
            path = Path(argument.tokens[0].value)
            stated = {
                key.replace("_", "-"): list(v) if isinstance(v, tuple) else v for key, v in read_recipe(path).items()
            }
            Dict(stated, use_commands_as_keys=False, source=str(path))(app, commands, arguments)


app = App(
    name="dataprep",
    help="Turn conversations into a versioned, checked, documented build for fine-tuning.",
    help_format="plaintext",
    version=__version__,
    config=_recipe_file,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(
        negative_iterable=(), consume_multiple=True
    ),  # --source chats/*.jsonl, as a shell gives it
)


def locate_build(store: Path, reference: str) -> Path:
    from dataprep.store.builds import locate

    return locate(store, reference)


def open_named(store: Path, reference: str, *, check: bool = False) -> Build:
    """The build that `reference` names; its sizes and columns are looked at, its checksums only by `verify`."""
    from dataprep.contract import open_build

    return open_build(locate_build(store, reference), check=check)


def print_json(value: Mapping[str, Any] | list[Any]) -> None:
    """Print a value as one line of JSON on stdout."""
    print(json_text(value))
