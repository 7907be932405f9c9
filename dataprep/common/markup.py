"""Write untrusted text into Markdown and YAML, such as cards, so that it is shown as it is and nothing else.

This module imports the standard library only, so that `training` may use it too.
"""

from __future__ import annotations

import re

from dataprep.common.text import json_text, visible

# Syntax of GitHub's Markdown: inline marks, HTML, entities and table cells; underscores at the edge of a word; URLs and
# addresses, which would become links; and headings, lists and rules at the start of a line.
_MARKDOWN_SYNTAX = re.compile(
    r"[\\`*{}\[\]<>|~&$@]|(?<!\w)_|_(?!\w)|:(?=//)|(?<=www)\.|^[#+=-]|(?<=^\d)[.)]|(?<=^\d\d)[.)]"
)
# Characters in JSON that YAML 1.1 does not allow in a text (https://yaml.org/spec/1.1/#printable%20character/).
_YAML_NONCHARACTERS = re.compile("[\ufffe\uffff]")


def markdown(text: str) -> str:
    r"""Return `text` as Markdown on one line: no HTML, link, image, table cell or list, as in `\<b\>`."""
    return _MARKDOWN_SYNTAX.sub(lambda match: f"\\{match[0]}", _one_line(text))


def code_span(text: str) -> str:
    r"""Return `text` as a Markdown code span, in a table too: its delimiter is longer than any run of backticks in it."""
    line = _one_line(text).replace("|", "\\|")
    runs = [len(run) for run in re.findall("`+", line)]
    delimiter = "`" * (max(runs, default=0) + 1)
    padding = " " if not line or runs or line != line.strip() else ""
    return f"{delimiter}{padding}{line}{padding}{delimiter}"


def code_block(code: str, language: str) -> str:
    """Return `code` as a fenced Markdown block; its fence is longer than any run of backticks in the code."""
    code = visible(code)
    fence = "`" * max(3, *(len(run) + 1 for run in re.findall("`+", code)), 3)
    return f"{fence}{language}\n{code}\n{fence}"


def yaml_value(value: object) -> str:
    """Return a value as JSON that is valid YAML 1.1 too, on one line and safe to print."""
    return _YAML_NONCHARACTERS.sub(lambda match: f"\\u{ord(match[0]):04x}", json_text(value))


def _one_line(text: str) -> str:
    return " ".join(visible(text).split())
