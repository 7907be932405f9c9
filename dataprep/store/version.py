"""The version of a build, computed from all that decides its bytes, and the head of its manifest."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

from dataprep import __version__
from dataprep.contract import CONTRACT, sha256_of
from dataprep.recipe import PATHS, Recipe, normalised

LIBRARIES = ("polars", "pyarrow", "jinja2")  # a new version of these can change a build's bytes

# Modules and packages (with a slash) of dataprep that a build imports: those that decide its shards, fates and verdict
# are part of the version, the others (documents, errors, what is printed, where a build is put) are not.
# tests/store/test_version.py fails when a build imports a module that is in neither list.
DECIDING_CODE = (
    "build",
    "cached_tasks",
    "writing",
    "common/arrow",
    "common/frames",
    "common/funnel",
    "common/personal_data",
    "contract",
    "curate/",
    "dedup/",
    "options",
    "quality/",
    "recipe",
    "rendering/",
    "sources/",
    "store/fates",
    "store/shards",
    "store/splits",
    "store/version",
    "tables",
    "tasks",
)
OTHER_CODE = (
    "__init__",
    "common/__init__",
    "common/bundled",
    "common/charts",
    "common/checksums",
    "common/conversation_funnel",
    "common/errors",
    "common/executor",
    "common/files",
    "common/html",
    "common/hub",
    "common/hub_repository",
    "common/jsonfile",
    "common/lookup",
    "common/markup",
    "common/progress",
    "common/rules",
    "common/terminal",
    "common/text",
    "engine/",
    "execution",
    "report/",
    "resources",
    "store/__init__",
    "store/commit",
    "store/manifest",
)

# Text without influence on what a module does: strings that stand as statements (docstrings), comments, blank lines.
# The test also proves on every deciding module that nothing else matches.
_DOCSTRING = re.compile(r'^([ \t]*)[rR]?"""(?:[^"\\]|\\.|"(?!""))*"""[ \t]*$', re.MULTILINE | re.DOTALL)
_COMMENT = re.compile(r"(?:^[ \t]*|  )# [^\n]*$", re.MULTILINE)
_BLANK_LINE = re.compile(r"^[ \t]*\n", re.MULTILINE)


def version_of(
    recipe: Recipe, sources: Sequence[tuple[str, str]], template_digest: str, gate_digests: Sequence[str] = ()
) -> str:
    """Return the first 12 hex digits of SHA-256 over all that decides a build's bytes.

    That is: the sources' bytes and file names (names are part of the rows, folders are not), the recipe without its
    paths, the benchmarks, the template, the gate's expectations, the contract's number, the code of dataprep that decides
    bytes, and the versions of `LIBRARIES`.

    Args:
        recipe: the options.
        sources: (name, digest) of each source file.
        template_digest: of the chat template.
        gate_digests: of the expectations and of the tokenizer with which the gate counts.
    """
    options = {key: value for key, value in normalised(recipe).items() if key not in PATHS}
    decisive = {
        "contract": CONTRACT,
        "sources": sources,
        "recipe": options,
        "benchmarks": [[Path(file).name, sha256_of(Path(file))] for file in recipe.decontaminate],
        "template": template_digest,
        "gate": gate_digests,
        "code": code_digest(),
        "libraries": library_versions(),
    }
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:12]


def code_digest(package: Path = Path(__file__).parent.parent) -> str:
    """Return SHA-256 over the code of `DECIDING_CODE` in the folder `package`, by path, without docstrings and comments."""
    digest = hashlib.sha256()
    for path in deciding_files(package):
        code = significant_code(path.read_text(encoding="utf-8"))
        digest.update(f"{path.relative_to(package).as_posix()}\0{code}\0".encode())
    return digest.hexdigest()


def deciding_files(package: Path) -> Iterator[Path]:
    """The files of `DECIDING_CODE` in the folder `package`, in a fixed order."""
    for entry in DECIDING_CODE:
        yield from sorted((package / entry).glob("*.py")) if entry.endswith("/") else [package / f"{entry}.py"]


def significant_code(source: str) -> str:
    """Return a module's source without comments and blank lines, and with `...` in place of each docstring."""
    return _BLANK_LINE.sub("", _COMMENT.sub("", _DOCSTRING.sub(r"\1...", source)))


def library_versions() -> dict[str, str]:
    """Return the versions of `LIBRARIES` that are installed."""
    return {library: installed_version(library) for library in LIBRARIES}


def provenance(recipe: Recipe, name: str, version: str) -> dict[str, Any]:
    """Return the head of a manifest: what was built, under which contract, by which programs, from which recipe."""
    return {
        "contract": CONTRACT,
        "name": name,
        "version": version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "dataprep": __version__,
        "libraries": library_versions(),
        "recipe": normalised(recipe),
    }
