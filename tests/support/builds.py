"""Small builds from guanaco text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dataprep.build import Outcome, build
from dataprep.common.progress import Progress
from dataprep.recipe import Recipe


def guanaco_file(folder: Path, texts: list[str], name: str = "rows.jsonl") -> str:
    """The path of a JSON Lines file in `folder` with one guanaco record for each of `texts`."""
    file = folder / name
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(file)


def guanaco_text(*turns: str) -> str:
    """Turns of user and assistant as guanaco text."""
    return "".join(f"### {('Human', 'Assistant')[n % 2]}: {turn}" for n, turn in enumerate(turns))


def make_build(store: Path, **options: Any) -> Outcome:
    """Build the recipe of `options` into `store`; without the quality gate, which takes seconds to load, unless `gate` is given."""
    extra = {key: options.pop(key) for key in ("force", "dry_run") if key in options}
    name = options.pop("name", "n")
    options.setdefault("gate", "off")
    return build(Recipe(**options), store, name, progress=Progress(), **extra)


def built_path(outcome: Outcome) -> Path:
    """Return the folder of a build that was written."""
    assert outcome.path is not None
    return outcome.path


GUANACO_TEXTS = [
    guanaco_text("Hello", "Hi there"),
    guanaco_text("Multi", "one", "more", "two ### Step 1"),
    guanaco_text("Dangling", "answered", "and then?"),
    guanaco_text("Only asked"),
    guanaco_text("hello ", "HI  there"),  # an exact duplicate but for case and white space
    guanaco_text("typed", "a </s> token"),
    "no marker at all",
    *(guanaco_text(f"question {n}", f"answer {n} é 漢字 🙂") for n in range(30)),
]
