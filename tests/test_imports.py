"""Who may know whom, and the one home of each heavy library."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

STAGES = ("threads", "rules", "dedup", "selection", "rendering", "sources", "quality", "report", "store", "publish")
HOMES = {
    "jinja2": ("rendering", "report"),
    "great_expectations": ("quality/worker",),
    "pandas": ("quality/worker",),
    "pygal": ("report",),
    "tokenizers": ("facts",),
    "huggingface_hub": ("hub", "sources/hub", "publish"),
    "datasets": ("sources/hub",),
    "cyclopts": ("cli",),
    "rich": ("cli", "terminal"),
}
NEVER = ("torch", "transformers", "trl", "peft", "bitsandbytes")


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def files(package: str) -> dict[str, list[str]]:
    root = ROOT / package
    return {file.relative_to(root).with_suffix("").as_posix(): list(imports(file)) for file in root.rglob("*.py")}


def test_dataprep_never_imports_torch_and_each_heavy_library_has_one_home() -> None:
    for name, imported in files("dataprep").items():
        tops = {module.split(".")[0] for module in imported}
        assert not tops & set(NEVER), name
        for library, homes in HOMES.items():
            assert library not in tops or any(name == home or name.startswith(f"{home}/") for home in homes), (
                name,
                library,
            )


def test_stages_do_not_import_each_other() -> None:
    for name, imported in files("dataprep").items():
        own = name.split("/")[0]
        if own in STAGES:
            others = {
                module.split(".")[1] for module in imported if module.startswith("dataprep.") and module.count(".")
            }
            assert not others & set(STAGES) - {own}, (name, others)


def test_the_contract_needs_nothing_but_pyarrow() -> None:
    tops = {module.split(".")[0] for module in imports(ROOT / "dataprep/contract.py")}
    assert tops <= set(sys.stdlib_module_names) | {"pyarrow"}


@pytest.mark.parametrize("asked", [["--help"], ["build", "--help"], ["templates", "check", "--help"]])
def test_help_loads_no_heavy_library(asked: list[str]) -> None:
    code = (
        "import sys; from dataprep.cli.main import main; sys.argv = ['dataprep', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\nprint('loaded:', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True, cwd=ROOT, check=True)
    told, _, loaded = done.stdout.rpartition("loaded:")
    assert "Usage" in told
    heavy = {"polars", "pyarrow", "datasets", "numpy", "jinja2", "great_expectations", "huggingface_hub", *NEVER}
    assert not heavy & set(loaded.split())


def test_training_knows_dataprep_by_its_contract_alone() -> None:
    for name, imported in files("training").items():
        known = {module for module in imported if module.split(".")[0] == "dataprep"}
        assert all(module.startswith("dataprep.contract") for module in known), (name, known)
