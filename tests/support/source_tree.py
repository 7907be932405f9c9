"""The tree of source files in ARCHITECTURE.md, made from the modules' docstrings: `make docs` writes it, a test compares it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.support.paths import ROOT

ARCHITECTURE = ROOT / "ARCHITECTURE.md"
BEGIN, END = "<!-- tree: made by `make docs` -->", "<!-- end of tree -->"
WIDTH = 28  # of the column of file names


def source_tree() -> str:
    """Both packages as an indented list: a line for each module with the first sentence of its docstring."""
    lines = []
    for package in ("dataprep", "training"):
        lines += _folder(ROOT / package, 0)
    return "\n".join(["```text", *lines, "```"])


def _folder(folder: Path, depth: int) -> list[str]:
    lines = [f"{'  ' * depth}{folder.name}/"]
    modules = [file for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
    for module in modules:
        name = "  " * (depth + 1) + module.name
        lines.append(f"{name:{WIDTH}}  {_summary(module)}")
    for child in sorted(path for path in folder.iterdir() if (path / "__init__.py").exists()):
        lines += _folder(child, depth + 1)
    return lines


def _summary(module: Path) -> str:
    """The first sentence of a module's docstring, on one line and without its full stop."""
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=[^.])\.(?=\s|$)", paragraph)[0].rstrip(".")


def with_tree(text: str) -> str:
    """`text` with the tree between its two marks."""
    return re.sub(
        f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n{source_tree()}\n{END}", text, flags=re.DOTALL
    )


if __name__ == "__main__":
    ARCHITECTURE.write_text(with_tree(ARCHITECTURE.read_text(encoding="utf-8")), encoding="utf-8")
