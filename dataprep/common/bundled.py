"""What comes with dataprep: the sample and the templates, beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

import glob
import hashlib
import json
import re
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent

SAMPLE_NAME = "sample"


def sample_file() -> Path:
    """The synthetic sample: trees in OASST's nested format."""
    return _first(_PACKAGE.parent / "data" / "sample", _PACKAGE / "sample") / "oasst_sample.trees.jsonl.gz"


def templates_folder() -> Path:
    """The folder of bundled .jinja templates."""
    return _first(_PACKAGE.parent / "templates", _PACKAGE / "templates")


def _first(*folders: Path) -> Path:
    """The checkout's folder where there is a checkout, else the wheel's."""
    in_checkout = (_PACKAGE.parent / "pyproject.toml").is_file()
    return folders[0] if in_checkout else folders[1]


def default_name(sources: tuple[str, ...]) -> str:
    """A build's name by default: that of the first source, without its extensions; `sample` for the bundled one.

    A build's name is the one in its manifest, and a glob's that of the folder in which it looks.
    """
    if not sources:
        return SAMPLE_NAME
    stem = re.sub(r"(\.(jsonl|ndjson|json|parquet|arrow|gz))+$", "", _last_part(sources[0]))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:80]
    if stem.isascii():
        return name or "build"
    # what is left of other scripts may be the same for different names
    return f"{name or 'build'}-{hashlib.blake2b(stem.encode(errors='replace'), digest_size=4).hexdigest()}"


def _last_part(source: str) -> str:
    path = Path(source).expanduser()
    with suppress(OSError, ValueError, LookupError, TypeError):
        return str(json.loads((path / "manifest.json").read_bytes())["name"])
    if glob.has_magic(source) and not path.exists():
        path = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    if path.exists():
        return path.resolve().name if path.name in ("", "..") else path.name
    return re.split("[@:]", path.name)[0]  # a revision and a split of the Hub's
