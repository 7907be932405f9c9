"""How a build shows itself in a notebook: its funnel, and a few conversations with the trained text marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dataprep.common.conversation_funnel import conversation_funnel
from dataprep.common.html import fragment
from dataprep.report.page import filled
from dataprep.report.sample import conversations_to_browse
from dataprep.report.texts import TextBudget

_CONVERSATION_BYTES = 900


def build_fragment(manifest: Mapping[str, Any], split: str, rows: Sequence[dict[str, Any]]) -> str:
    """HTML for the output of a notebook's cell; personal data in the texts is hidden, as in the report.

    Args:
        manifest: the content of manifest.json.
        split: the split of `rows`.
        rows: the first rows of it (columns of `contract.SHARD_SCHEMA`).
    """
    drawn = [(split, number, row) for number, row in enumerate(rows)]
    view = {
        "name": manifest["name"],
        "version": manifest["version"],
        "funnel": conversation_funnel(manifest),
        "sample": conversations_to_browse(drawn, TextBudget(mask=True), _CONVERSATION_BYTES),
    }
    return fragment(filled("notebook.html.jinja", view))
