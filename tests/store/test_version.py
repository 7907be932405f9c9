"""The code that is part of a build's version: all that decides bytes, and nothing that people read only."""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dataprep.store.version import DECIDING_CODE, OTHER_CODE, code_digest, deciding_files, significant_code
from tests.support.paths import ROOT

PACKAGE = ROOT / "dataprep"


def imported_names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def modules_behind_a_build() -> set[str]:
    """The modules that dataprep.build imports, directly or not, as paths without suffix.

    The package itself is left out: it is the Python API, which imports what is asked of it.
    """
    found: set[str] = set()
    waiting = ["dataprep.build"]
    while waiting:
        path = PACKAGE.joinpath(*waiting.pop().split(".")[1:])
        file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        module = file.relative_to(PACKAGE).with_suffix("").as_posix()
        if file.is_file() and module not in found:
            found.add(module)
            waiting += [name for name in imported_names(file) if name.startswith("dataprep.")]
    return found


def is_listed(module: str, entries: tuple[str, ...]) -> bool:
    return any(module.startswith(entry) if entry.endswith("/") else module == entry for entry in entries)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(PACKAGE, tmp_path / "dataprep", ignore=shutil.ignore_patterns("__pycache__")))


def test_every_module_that_a_build_imports_is_listed_as_deciding_or_not() -> None:
    for module in modules_behind_a_build():
        assert is_listed(module, DECIDING_CODE) != is_listed(module, OTHER_CODE), module


def test_every_listed_file_exists() -> None:
    for entry in (*DECIDING_CODE, *OTHER_CODE):
        assert (PACKAGE / entry).is_dir() if entry.endswith("/") else (PACKAGE / f"{entry}.py").is_file(), entry


@pytest.mark.parametrize("file", list(deciding_files(PACKAGE)), ids=lambda file: file.relative_to(PACKAGE).as_posix())
def test_only_docstrings_and_comments_are_left_out(file: Path) -> None:
    class WithoutDocstrings(ast.NodeTransformer):
        def visit_Expr(self, node: ast.Expr) -> ast.Expr:
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                return ast.Expr(ast.Constant(...))
            return node

    source = file.read_text(encoding="utf-8")
    expected = ast.dump(WithoutDocstrings().visit(ast.parse(source)))
    assert ast.dump(ast.parse(significant_code(source))) == expected


@pytest.mark.parametrize("module", ["curate/rules.py", "rendering/renderer.py", "dedup/near.py", "recipe.py"])
def test_a_docstring_or_a_comment_does_not_change_the_version(copy: Path, module: str) -> None:
    file = copy / module
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")), clean=False)
    assert docstring
    source = file.read_text(encoding="utf-8").replace(docstring, "Another text.\n\nOf two paragraphs.")
    file.write_text(f"{source}\n\n# A comment.\n", encoding="utf-8")
    assert code_digest(copy) == code_digest(PACKAGE)


def test_the_help_text_of_an_option_does_not_change_the_version(copy: Path) -> None:
    file = copy / "recipe.py"
    source = file.read_text(encoding="utf-8")
    assert '"""Read at most this many records."""' in source
    file.write_text(source.replace("Read at most this many records.", "Limit."), encoding="utf-8")
    assert code_digest(copy) == code_digest(PACKAGE)


@pytest.mark.parametrize("module", ["cli/building.py", "report/build_report.py", "report/card.py", "store/commit.py"])
def test_code_that_people_see_only_does_not_change_the_version(copy: Path, module: str) -> None:
    with (copy / module).open("a", encoding="utf-8") as file:
        file.write("\nADDED = 1\n")
    assert code_digest(copy) == code_digest(PACKAGE)


@pytest.mark.parametrize(
    "module",
    [
        "sources/guanaco.py",
        "curate/threads.py",
        "dedup/exact.py",
        "rendering/columns.py",
        "quality/facts.py",
        "tables.py",
    ],
)
def test_the_code_of_a_stage_changes_the_version(copy: Path, module: str) -> None:
    with (copy / module).open("a", encoding="utf-8") as file:
        file.write("\nADDED = 1\n")
    assert code_digest(copy) != code_digest(PACKAGE)


def test_a_new_module_of_a_stage_changes_the_version(copy: Path) -> None:
    (copy / "curate/added.py").write_text("ADDED = 1\n", encoding="utf-8")
    assert code_digest(copy) != code_digest(PACKAGE)
