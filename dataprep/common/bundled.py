"""The bundled sample and templates: beside the package in a checkout, inside it in a wheel; and default names."""

from __future__ import annotations

import glob
import hashlib
import re
from contextlib import suppress
from itertools import takewhile
from pathlib import Path
from typing import TypedDict

from dataprep.common.jsonfile import read_json

_PACKAGE = Path(__file__).parent.parent

SAMPLE_NAME = "sample"


class _Named(TypedDict):
    name: str


def sample_file() -> Path:
    """Return the file of the synthetic sample: trees in OASST's nested format."""
    return _existing(_PACKAGE.parent / "data" / "sample", _PACKAGE / "sample") / "oasst_sample.trees.jsonl.gz"


def templates_folder() -> Path:
    """Return the folder of the bundled .jinja templates."""
    return _existing(_PACKAGE.parent / "templates", _PACKAGE / "templates")


def _existing(in_checkout: Path, in_wheel: Path) -> Path:
    return in_checkout if (_PACKAGE.parent / "pyproject.toml").is_file() else in_wheel


def default_name(sources: tuple[str, ...]) -> str:
    """Return the default name of a build: that of its first source without extensions, or `sample` without a source.

    For a source that is a build, that build's name; for a glob, the folder that it searches.
    """
    if not sources:
        return SAMPLE_NAME
    stem = re.sub(r"(\.(jsonl|ndjson|json|csv|tsv|parquet|arrow|gz|bz2|xz|zst))+$", "", _stem_source(sources[0]))
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._")[:80]
    if stem.isascii():
        return name or "build"
    # Without its letters of other scripts, one name may be left for several sources: a digest tells them apart.
    return f"{name or 'build'}-{hashlib.blake2b(stem.encode(errors='replace'), digest_size=4).hexdigest()}"


def _stem_source(source: str) -> str:
    path = Path(source).expanduser()
    with suppress(OSError, ValueError):
        return read_json(path / "manifest.json", _Named)["name"]
    if glob.has_magic(source) and not path.exists():
        path = Path(*takewhile(lambda part: not glob.has_magic(part), path.parts))
    if path.exists():
        return path.resolve().name if path.name in ("", "..") else path.name
    return re.split("[@:]", path.name)[0]  # without the revision and split of a Hub id
