"""Fills the HTML pages: Jinja with autoescaping, one style sheet, one script, and a policy that allows nothing else."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dataprep.common import charts
from dataprep.common.text import visible

_FOLDER = Path(__file__).parent


def page(template: str, view: Mapping[str, Any]) -> str:
    """The page `template` of this folder, filled with `view`; all texts are escaped."""
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(_FOLDER),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "number": lambda value: f"{value:,}", "percent": percent}
    script = (_FOLDER / "report.js").read_text(encoding="utf-8")
    style = (_FOLDER / "report.css").read_text(encoding="utf-8") + charts.STYLE
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    fixed = {
        "style": Markup(style),  # our own files: not to be escaped
        "script": Markup(script),
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
    }
    return environment.get_template(template).render(**view, **fixed)


def percent(share: float | None) -> str:
    """A share in percent: 0.8129 becomes `81.3 %`; None becomes a dash."""
    return "–" if share is None else f"{100 * share:.1f} %"
