"""Filling a page: Jinja with escaping on, one style, one script, and a policy that lets nothing else run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from dataprep.common.terminal import visible

_HERE = Path(__file__).parent


def page(template: str, view: Mapping[str, Any]) -> str:
    """The page `template` of this folder, filled with `view`: texts are escaped, and what is invisible in them is named."""
    environment = jinja2.Environment(
        autoescape=True,
        loader=jinja2.FileSystemLoader(_HERE),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"visible": visible, "number": lambda value: f"{value:,}", "percent": percent}
    script = (_HERE / "report.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    fixed = {
        "style": Markup((_HERE / "report.css").read_text(encoding="utf-8")),  # ours, and the browser's to read as it is
        "script": Markup(script),
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'",
    }
    return environment.get_template(template).render(**view, **fixed)


def percent(share: float | None) -> str:
    """A share as people read it: 0.8129 is `81.3 %`."""
    return "–" if share is None else f"{100 * share:.1f} %"
