"""Small builds from guanaco text."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataprep.build import Outcome, build
from dataprep.common.progress import Progress
from dataprep.recipe import Recipe
from dataprep.resources import NAMES as RESOURCES
from dataprep.resources import Resources


@dataclass(frozen=True)
class Built(Outcome):
    """The outcome of a build that was written, so that its path is known (after a dry run it is None all the same)."""

    path: Path


def guanaco_file(folder: Path, texts: list[str], name: str = "rows.jsonl") -> str:
    """Write a JSON Lines file with one guanaco record for each of `texts`, and return its path."""
    file = folder / name
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


def guanaco_text(*turns: str) -> str:
    """Turns of user and assistant as guanaco text."""
    return "".join(f"### {('Human', 'Assistant')[n % 2]}: {turn}" for n, turn in enumerate(turns))


def make_build(store: Path, **options: Any) -> Built:
    """Build the recipe of `options` into `store`; without the quality gate, which takes seconds, unless `gate` is given."""
    arguments = {key: options.pop(key) for key in ("force", "dry_run") if key in options}
    resources = Resources(**{name: options.pop(name) for name in RESOURCES if name in options})
    name = options.pop("name", "n")
    options.setdefault("gate", "off")
    return Built(**vars(build(Recipe(**options), store, name, resources=resources, progress=Progress(), **arguments)))


GUANACO_TEXTS = [
    guanaco_text("Hello", "Hi there"),
    guanaco_text("Multi", "one", "more", "two ### Step 1"),
    guanaco_text("Dangling", "answered", "and then?"),
    guanaco_text("Only asked"),
    guanaco_text("hello ", "HI  there"),  # an exact duplicate except for case and white space
    guanaco_text("typed", "a </s> token"),
    "no marker at all",
    *(guanaco_text(f"question {n}", f"answer {n} é 漢字 🙂") for n in range(30)),
]
