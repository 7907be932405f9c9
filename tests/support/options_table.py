"""The table of options in docs/options.md, generated from `Recipe`: `make docs` writes it, and a test compares it with the code."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from pathlib import Path

from dataprep.options import flag
from dataprep.recipe import Recipe

OPTIONS = Path(__file__).parents[2] / "docs" / "options.md"
BEGIN, END = "<!-- options: made by `make docs` -->", "<!-- end of options -->"


def options_table() -> str:
    """Markdown: flag, default and sentence of each field of `Recipe`."""
    (cls,) = ast.parse(inspect.getsource(Recipe)).body
    assert isinstance(cls, ast.ClassDef)
    sentences = {}
    for statement, after in zip(cls.body, cls.body[1:], strict=False):
        if (
            isinstance(statement, ast.AnnAssign)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            assert isinstance(statement.target, ast.Name)
            sentences[statement.target.id] = str(after.value.value)
    rows = [
        f"| `{flag(field.name)}` | {_shown(field.default)} | {sentences[field.name]} |"
        for field in dataclasses.fields(Recipe)
    ]
    return "\n".join(["| option | default | what it does |", "|---|---|---|", *rows])


def _shown(default: object) -> str:
    if default is None or default == () or default is False:
        return "off" if default is False else ""
    return f"`{default}`"


def with_table(text: str) -> str:
    """`text` with the table between its two marks."""
    return re.sub(
        f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: f"{BEGIN}\n{options_table()}\n{END}", text, flags=re.DOTALL
    )


if __name__ == "__main__":
    OPTIONS.write_text(with_table(OPTIONS.read_text()))
