"""What a build is called by, and what its manifest says of how it came about."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path
from typing import Any

from dataprep import __version__
from dataprep.contract import CONTRACT, sha256_of
from dataprep.recipe import PATHS, Recipe, normalised

LIBRARIES = ("polars", "pyarrow", "jinja2")  # the ones whose versions may change a build's bytes


def version_of(recipe: Recipe, sources: Sequence[tuple[str, str]], template: str, judges: Sequence[str] = ()) -> str:
    """The first 12 hex digits of SHA-256 over all that decides a build's bytes.

    These are the sources' bytes and file names (which stand in the rows; their folders do not), the recipe less its
    paths, the benchmarks, the template, the contract, dataprep's own code, and the libraries that could change a byte.

    Args:
        recipe: the options.
        sources: (name, digest) of each source file.
        template: digest of the chat template.
        judges: digests of what the gate asks, never of what it finds.
    """
    options = {key: value for key, value in normalised(recipe).items() if key not in PATHS}
    facts = {
        "contract": CONTRACT,
        "sources": sources,
        "recipe": options,
        "benchmarks": [[Path(file).name, sha256_of(Path(file))] for file in recipe.decontaminate],
        "template": template,
        "judges": judges,
        "code": _code_digest(),
        "libraries": _libraries(),
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]


def _code_digest() -> str:
    """SHA-256 over dataprep's own source files, by their paths inside the package."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _libraries() -> dict[str, str]:
    return {library: installed(library) for library in LIBRARIES}


def provenance(recipe: Recipe, name: str, version: str) -> dict[str, Any]:
    """The head of a manifest: what was built, under which contract, by what, from which recipe."""
    return {
        "contract": CONTRACT,
        "name": name,
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataprep": __version__,
        "libraries": _libraries(),
        "recipe": normalised(recipe),
    }
