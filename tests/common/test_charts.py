"""SVG charts: axes, escaping of labels, and values that cannot be drawn."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from dataprep.common.charts import Series, bar_chart, line_chart


def texts(svg: str | None) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg or "<svg/>").iter("text")]


@pytest.mark.parametrize(
    ("largest", "ticks"),
    [(0, ["0", "1"]), (1, ["0", "1"]), (3, ["0", "1", "2", "3"]), (90, ["0", "50", "100"])]
    + [(1539, ["0", "500", "1,000", "1,500", "2,000"])],
)
def test_the_axis_of_a_bar_chart_has_few_whole_numbers(largest: int, ticks: list[str]) -> None:
    assert texts(bar_chart([("name", largest)])) == [*ticks, "name"]


def test_bars_have_the_height_of_their_count() -> None:
    bars = ElementTree.fromstring(bar_chart([("a", 4), ("b", 2), ("c", 0)])).findall("rect")
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[0] == 2 * heights[1] > 0 == heights[2]


def test_labels_are_escaped_shortened_and_printable() -> None:
    drawn = bar_chart([("e\x01n", 3), ("x" * 300, 1), ("<b>", 1)])
    assert "e\ufffdn" in drawn and "x" * 16 not in drawn and "&lt;b&gt;" in drawn


def test_a_line_chart_draws_lines_and_dots() -> None:
    drawn = line_chart([Series([(0.0, 0.0), (0.5, 0.4), (1.0, 1.0)]), Series([(0.85, 0.9), (0.95, 1.0)], dots=True)])
    assert drawn and drawn.count("<polyline") == 1 and drawn.count("<circle") == 2
    assert texts(drawn) == ["0", "0.2", "0.4", "0.6", "0.8", "1"] * 2


def test_a_line_chart_without_finite_points_is_none() -> None:
    assert line_chart([]) is None
    assert line_chart([Series([(1, math.nan), (2, math.inf)])]) is None


def test_values_that_are_not_finite_are_left_out_of_a_line() -> None:
    drawn = line_chart([Series([(1, 3.0), (2, math.nan), (3, 1.0)])])
    assert drawn and "nan" not in drawn and drawn.count(",") == 2


def test_a_single_point_has_an_axis_of_its_own() -> None:
    assert texts(line_chart([Series([(1, 2.5)], dots=True)]))


def test_the_name_of_a_line_stands_at_its_end_in_its_colour() -> None:
    drawn = line_chart([Series([(0, 0), (1, 1)], name="<ours>"), Series([(0, 1), (1, 0)])]) or ""
    assert drawn.count('class="label s0"') == 1 and "&lt;ours&gt;</text>" in drawn
