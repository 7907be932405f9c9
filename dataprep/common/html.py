"""The frame of the HTML pages of dataprep and training: one style sheet, a content security policy, no external resource.

This module imports the standard library only, so that `training` may use it too.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from dataprep.common import charts

_FOLDER = Path(__file__).parent


def document(title: str, body: str, script: str = "") -> str:
    """A whole page.

    Args:
        title: plain text.
        body: HTML; every untrusted text in it is escaped.
        script: JavaScript of ours, the only one that the page's policy allows.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    scripts = f"script-src 'sha256-{digest}'; " if script else ""
    policy = f"default-src 'none'; style-src 'unsafe-inline'; {scripts}base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style()}</style>\n</head>\n<body>\n"
        '<a class="skip" href="#main">Skip to the content</a>\n'
        f"{body}\n" + (f"<script>{script}</script>\n" if script else "") + "</body>\n</html>\n"
    )


def style() -> str:
    """The style sheet of all pages."""
    return (_FOLDER / "page.css").read_text(encoding="utf-8") + charts.STYLE


def figures(pairs: Iterable[tuple[str, str]]) -> str:
    """The figures at the top of a page, given as (value, name)."""
    return (
        '<dl class="figures">'
        + "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for value, name in pairs)
        + "</dl>"
    )


def contents(sections: Iterable[tuple[str, str, str]]) -> str:
    """The table of contents, given as (id, title, count); an empty count is not shown."""
    links = "".join(
        f'<li><a href="#{escape(id)}">{escape(title)}{f"<small>{escape(count)}</small>" if count else ""}</a></li>'
        for id, title, count in sections
    )
    return f'<nav aria-label="Contents"><ul>{links}</ul></nav>'


def notes(lines: Sequence[str]) -> str:
    """Notes as a list; nothing without a note."""
    return f'<ul class="notes">{"".join(f"<li>{escape(line)}</li>" for line in lines)}</ul>' if lines else ""


def section(id: str, title: str, body: str) -> str:
    """A section with its heading; `body` is HTML."""
    return f'<section id="{id}" aria-labelledby="{id}-title"><h2 id="{id}-title">{escape(title)}</h2>{body}</section>'


def options_list(options: Iterable[tuple[str, str]]) -> str:
    """Names and values, in two columns where there is space."""
    pairs = "".join(
        f"<div><dt><code>{escape(name)}</code></dt><dd>{escape(value)}</dd></div>" for name, value in options
    )
    return f'<dl class="box options">{pairs}</dl>'


def fragment(body: str) -> str:
    """A part of a page with its style, for the output of a notebook's cell: readable on light and dark themes."""
    return f'<div class="dataprep"><style>{(_FOLDER / "notebook.css").read_text("utf-8")}{charts.STYLE}</style>{body}</div>'
