"""Charts as SVG inside the page, drawn by pygal: no browser, no network. Colours and fonts are the page's (report.css)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from pygal.graph.graph import Graph

_LOOK: dict[str, Any] = {"width": 340, "margin": 2, "rounded_bars": 3, "show_legend": False}
_NAME = 16  # characters of a label
_TICKS = 4
_NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'  # not needed inside HTML


def columns(rows: Sequence[tuple[str, int]]) -> Markup:
    """Upright bars in the order given: `rows` of (label, count)."""
    from pygal import Bar

    chart = Bar(height=190, y_labels=_ticks(max((count for _, count in rows), default=0)), **_LOOK)
    chart.x_labels = [_label(name) for name, _ in rows]
    chart.add("count", [count for _, count in rows])
    chart.value_formatter = lambda count: f"{count:,.0f}"
    return _svg(chart)


def curve(theory: Sequence[tuple[float, float]], measured: Sequence[tuple[float, float]]) -> Markup | None:
    """Shares (0..1) by similarity: a line, and the points that were measured; None where there is no line to draw."""
    if not theory:
        return None
    from pygal import XY

    steps = [0, 0.2, 0.4, 0.6, 0.8, 1]
    chart = XY(height=190, range=(0, 1), xrange=(0, 1), y_labels=steps, x_labels=steps, dots_size=4, **_LOOK)
    chart.add("theory", [tuple(point) for point in theory], show_dots=False)
    chart.add("measured", list(measured), stroke=False)
    return _svg(chart)


def _ticks(top: int) -> list[int]:
    """Whole numbers from 0 to `top` or just above, a one, two or five with zeros apart."""
    size = 10 ** (len(str(max(top // _TICKS, 1))) - 1)
    step = next(step for step in (size, 2 * size, 5 * size, 10 * size) if step * _TICKS >= top)
    return list(range(0, max(top, 1) + step, step))


def _svg(chart: Graph) -> Markup:
    """The drawing alone."""
    svg = ElementTree.fromstring(chart.render(is_unicode=True, disable_xml_declaration=True).replace(_NAMESPACE, ""))
    del svg.attrib["id"]  # random
    for group in list(svg.iter()):
        for part in list(group):
            if _is_for_a_page_of_its_own(part):
                group.remove(part)
    return Markup(ElementTree.tostring(svg, encoding="unicode"))  # labels are escaped by it


def _label(name: str) -> str:
    """A name as a chart can hold it."""
    name = _NOT_XML.sub("\ufffd", name)
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"


def _is_for_a_page_of_its_own(part: ElementTree.Element) -> bool:
    """Styles and scripts, tooltips and what they say: the page has its own, and the numbers in a table."""
    return part.tag in ("defs", "desc", "title") or "-overlay" in part.get("class", "")
