"""The direction of imports between packages, and the one home of each heavy library."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

# Each layer imports the layers before it and never a later one. The packages of `STAGES` do not import each other:
# build.py hands each its input.
FOUNDATION = ("common", "contract", "options", "recipe", "recipe_file", "resources", "tables")
STAGES = ("sources", "curate", "dedup", "rendering", "quality", "store", "report")
COMPOSITIONS = ("cached_tasks", "execution", "tasks", "writing", "build", "audit", "publish")
LAYERS = {
    **dict.fromkeys(FOUNDATION, 0),
    **dict.fromkeys(STAGES, 1),
    "engine": 1,
    **dict.fromkeys(COMPOSITIONS, 2),
    "api": 3,
    "cli": 3,
    "__init__": 4,
    "__main__": 4,
}
HOMES = {
    "cyclopts": ("cli", "common/command_line"),
    "datasets": ("api",),
    "great_expectations": ("quality/worker",),
    "huggingface_hub": ("common/hub", "common/hub_repository", "sources/hub"),
    "jinja2": ("rendering", "report"),
    "pandas": ("quality/worker",),
    "ray": ("engine/ray_cluster",),
    "rich": ("cli", "common/terminal"),
    "tokenizers": ("quality/tokens",),
}
NEVER = ("torch", "transformers", "trl", "peft", "bitsandbytes")


def imported_modules(file: Path) -> Iterator[str]:
    """The full names of the modules and members that `file` imports, wherever the import stands."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def modules_of(package: str) -> dict[str, list[str]]:
    """For each module of a package, as a path without suffix, what it imports."""
    root = ROOT / package
    return {
        file.relative_to(root).with_suffix("").as_posix(): list(imported_modules(file)) for file in root.rglob("*.py")
    }


def parts_of_dataprep(imported: list[str]) -> set[str]:
    """The packages and top-level modules of dataprep among the imported names."""
    names = {name.split(".")[1] for name in imported if name.startswith("dataprep.")}
    return names & set(LAYERS)


def test_dataprep_never_imports_the_libraries_of_training() -> None:
    for module, imported in modules_of("dataprep").items():
        assert not {name.split(".")[0] for name in imported} & set(NEVER), module


@pytest.mark.parametrize("library", HOMES)
def test_each_heavy_library_is_imported_in_its_home_only(library: str) -> None:
    for module, imported in modules_of("dataprep").items():
        if library in {name.split(".")[0] for name in imported}:
            assert any(module == home or module.startswith(f"{home}/") for home in HOMES[library]), module


def test_every_part_of_dataprep_belongs_to_a_layer() -> None:
    assert {module.split("/")[0] for module in modules_of("dataprep")} == set(LAYERS)


def test_imports_go_from_the_command_line_to_the_foundation() -> None:
    for module, imported in modules_of("dataprep").items():
        own = LAYERS[module.split("/")[0]]
        assert all(LAYERS[part] <= own for part in parts_of_dataprep(imported)), module


def test_stages_do_not_import_each_other() -> None:
    for module, imported in modules_of("dataprep").items():
        own = module.split("/")[0]
        if own in STAGES:
            assert not parts_of_dataprep(imported) & set(STAGES) - {own}, module


def test_the_contract_needs_nothing_but_pyarrow() -> None:
    assert libraries_behind("dataprep.contract") <= set(sys.stdlib_module_names) | {"pyarrow"}


@pytest.mark.parametrize("arguments", [["--help"], ["build", "--help"], ["templates", "check", "--help"]])
def test_help_loads_no_heavy_library(arguments: list[str]) -> None:
    code = (
        "import sys; from dataprep.cli.main import main; sys.argv = ['dataprep', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\nprint('loaded:', *sys.modules)"
    )
    command = [sys.executable, "-c", code, *arguments]
    process = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    help_text, _, loaded = process.stdout.rpartition("loaded:")
    assert "Usage" in help_text
    heavy = {"polars", "pyarrow", "datasets", "numpy", "jinja2", "great_expectations", "huggingface_hub", *NEVER}
    assert not heavy & set(loaded.split())


def libraries_behind(module: str) -> set[str]:
    """The libraries that a module of dataprep imports, also by way of other modules of dataprep."""
    file = ROOT / "/".join(module.split(".")[:3])
    libraries: set[str] = set()
    for name in imported_modules(file.with_suffix(".py")):
        top = name.split(".")[0]
        libraries |= libraries_behind(name) if top == "dataprep" else {top}
    return libraries


def test_training_imports_the_contract_and_modules_without_heavy_libraries_only() -> None:
    for module, imported in modules_of("training").items():
        for name in imported:
            if name.split(".")[0] == "dataprep" and not name.startswith("dataprep.contract"):
                assert name.startswith("dataprep.common."), (module, name)
                # the Hub's client and the parser of arguments, which both packages need
                allowed = {*sys.stdlib_module_names, "huggingface_hub", "cyclopts"}
                assert libraries_behind(name) <= allowed, (module, name)
