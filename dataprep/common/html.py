"""The frame of the HTML pages of dataprep and training: one style sheet, a content security policy, no external resource.

This module imports the standard library only, so that `training` may use it too.
"""

from __future__ import annotations

import base64
import hashlib
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
