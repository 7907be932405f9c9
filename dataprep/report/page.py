"""Fills the HTML pages of dataprep: Jinja with autoescaping inside the frame of `common.html`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dataprep.common import html
from dataprep.common.text import visible

_FOLDER = Path(__file__).parent


def page(template: str, title: str, view: Mapping[str, Any]) -> str:
    """The page whose body is `template` of this folder, filled with `view`; all texts are escaped."""
    script = (_FOLDER / "report.js").read_text(encoding="utf-8")
    return html.document(title, filled(template, view), script)


def filled(template: str, view: Mapping[str, Any]) -> str:
    """`template` of this folder, filled with `view`; all texts are escaped."""
    return _environment().get_template(template).render(**view)


@functools.cache
def _environment() -> jinja2.Environment:
    """The environment of all pages, which keeps the compiled templates: compiling takes longer than filling."""
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "number": lambda value: f"{value:,}", "percent": percent}
    parts = (html.contents, html.figures, html.notes, html.options_list)
    environment.globals |= {part.__name__: _markup(part) for part in parts}
    return environment


def _markup(part: Callable[..., str]) -> Callable[..., Markup]:
    """A part of `common.html`, which escapes its texts itself, as a function for templates."""
    return lambda *arguments: Markup(part(*arguments))


def percent(share: float | None) -> str:
    """A share in percent: 0.8129 becomes `81.3 %`; None becomes a dash."""
    return "–" if share is None else f"{100 * share:.1f} %"
