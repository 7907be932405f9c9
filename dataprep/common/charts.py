"""Bar and line charts as SVG with named axes: for the HTML pages of dataprep and training, and as files for the docs.

Standard library only, so that training can use it. A chart inside a page carries classes, not colours: the page includes
`STYLE`, whose colours are CSS variables of the page (see page.css). `svg_file` makes a file with colours of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
.chart { width: 100%; height: auto; display: block; font-size: 11px; fill: var(--muted); }
.chart .grid { stroke: var(--line); } .chart .axis { stroke: var(--edge); }
.chart .mark { stroke: var(--warn); stroke-dasharray: 4 3; }
.chart .bar, .chart .dot.s0 { fill: var(--accent); } .chart .dot.s1 { fill: var(--second); } .chart .name { font-weight: 600; }
.chart .marked { fill: var(--warn); }
.chart .curve { fill: none; stroke-width: 2; stroke-linejoin: round; } .chart .thin { stroke-width: 1; opacity: 0.4; }
.chart .curve.s0 { stroke: var(--accent); } .chart .curve.s1 { stroke: var(--second); }
.chart .label.s0 { fill: var(--accent); } .chart .label.s1 { fill: var(--second); }
.chart .curve.s2 { stroke: var(--muted); } .chart .dot.s2 { fill: var(--muted); }
"""

_CHARACTER = 6.2  # pixels of width of a label's character at 11 px, about
_LABEL = 15  # characters of a label under a bar
_BAR_STEPS, _LINE_STEPS = 4, 5  # most steps of an axis
_TOP, _BOTTOM = 10, 20  # pixels above and below the plotting area
_AXIS_NAME = 16  # pixels of an axis' name


@dataclass(frozen=True)
class Series:
    """Points (x, y) that a line chart draws as one line, as a thin line in the background, or as separate dots."""

    points: Sequence[tuple[float, float]]
    dots: bool = False
    thin: bool = False
    color: int | None = None  # number of a colour; None: that of its place
    name: str = ""  # written at the end of a line, in its colour


@dataclass(frozen=True)
class AxisNames:
    """What the axes of a chart measure, with units; empty: the axis has no name."""

    x: str = ""
    y: str = ""


@dataclass(frozen=True)
class _Axes:
    """The plotting area of a chart in pixels, and the ranges of values that it covers."""

    width: int
    height: int
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    names: AxisNames

    @property
    def left(self) -> float:
        return 8 + _CHARACTER * max(len(_number(tick)) for tick in self.y_ticks)

    @property
    def right(self) -> float:
        return self.width - max(8, _CHARACTER * len(_number(self.x_ticks[-1])) / 2)

    @property
    def top(self) -> float:
        return _TOP + (_AXIS_NAME if self.names.y else 0)

    @property
    def bottom(self) -> float:
        return self.height - _BOTTOM - (_AXIS_NAME if self.names.x else 0)

    def x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return self.left + (self.right - self.left) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return self.bottom - (self.bottom - self.top) * (value - low) / (high - low)


def bar_chart(
    rows: Sequence[tuple[str, int]],
    width: int = 340,
    height: int = 200,
    *,
    names: AxisNames = AxisNames(),
    mark: tuple[int, str] | None = None,
    label: str = "",
) -> str:
    """An SVG of vertical bars in the given order.

    Args:
        rows: (label, count).
        width: pixels.
        height: pixels.
        names: of the axes.
        mark: a vertical line after this number of bars, with its label.
        label: what the chart shows, for those who cannot see it.
    """
    ticks = _ticks(0, max((count for _, count in rows), default=0), _BAR_STEPS, whole=True)
    axes = _Axes(width, height, (0, max(len(rows), 1)), ticks, names)
    slot = axes.x(1) - axes.x(0)
    parts = []
    for at, (name, count) in enumerate(rows):
        left, top = axes.x(at) + 0.12 * slot, axes.y(count)
        parts += [
            f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{0.76 * slot:.1f}" height="{axes.y(0) - top:.1f}"/>',
            _text(axes.x(at) + slot / 2, axes.bottom + 15, _shortened(name), "middle"),
        ]
    if mark:
        parts += _mark(axes, *mark)
    return _svg(axes, parts, label)


def line_chart(
    series: Sequence[Series],
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    width: int = 340,
    height: int = 200,
    *,
    names: AxisNames = AxisNames(),
    label: str = "",
) -> str | None:
    """An SVG with the lines and dots of `series`; None if no point is finite.

    The classes s0, s1, … number the series' colours. A range is that of the finite points unless it is given.
    """
    finite = [[(x, y) for x, y in one.points if math.isfinite(x) and math.isfinite(y)] for one in series]
    points = [point for one in finite for point in one]
    if not points:
        return None
    x_low, x_high = x_range or (min(x for x, _ in points), max(x for x, _ in points))
    y_low, y_high = y_range or (min(y for _, y in points), max(y for _, y in points))
    axes = _Axes(width, height, _ticks(x_low, x_high, _LINE_STEPS), _ticks(y_low, y_high, _LINE_STEPS), names)
    parts = [_text(axes.x(tick), axes.bottom + 15, _number(tick), "middle") for tick in axes.x_ticks]
    for place, (one, drawn) in enumerate(zip(series, finite, strict=True)):
        parts += _drawn(axes, one, drawn, place if one.color is None else one.color)
    return _svg(axes, parts, label)


def svg_file(chart: str, colors: dict[str, str]) -> str:
    """A chart as a file that shows itself: `colors` are those of the variables in `STYLE` (accent, line, …), and `paper`."""
    variables = " ".join(f"--{name}: {value};" for name, value in colors.items())
    style = (
        f"<style>:root {{ {variables} }} svg {{ background: var(--paper); font-family: sans-serif; }} {STYLE}</style>"
    )
    head, body = chart.split(">", 1)
    return f'{head} xmlns="http://www.w3.org/2000/svg">{style}{body}\n'


def _drawn(axes: _Axes, series: Series, points: Sequence[tuple[float, float]], color: int) -> list[str]:
    places = [(f"{axes.x(x):.1f}", f"{axes.y(y):.1f}") for x, y in points]
    if series.dots:
        return [f'<circle class="dot s{color}" cx="{x}" cy="{y}" r="3.5"/>' for x, y in places]
    if not places:
        return []
    kind = f"curve s{color}" + (" thin" if series.thin else "")
    line = f'<polyline class="{kind}" points="{" ".join(f"{x},{y}" for x, y in places)}"/>'
    return [line, _line_name(axes, series.name, points, color)] if series.name else [line]


def _line_name(axes: _Axes, name: str, points: Sequence[tuple[float, float]], color: int) -> str:
    """A name at the end of a line: below one that falls and above one that rises, where the line is not."""
    x, y = points[-1]
    offset = 14 if y < points[0][1] else -7
    return _text(axes.x(x), axes.y(y) + offset, name, "end", f"label s{color}")


def _mark(axes: _Axes, after: int, label: str) -> list[str]:
    """A dashed vertical line with a label on its left, at the top."""
    x = f"{axes.x(after):.1f}"
    line = f'<line class="mark" x1="{x}" x2="{x}" y1="{axes.top - 4:.1f}" y2="{axes.bottom:.1f}"/>'
    return [line, _text(axes.x(after) - 4, axes.top + 6, label, "end", "marked")]


def _ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """Values of an axis from `low` or just below to `high` or just above: at most `most` steps of 1, 2 or 5 times 10^n."""
    if high <= low:
        high = low + (1 if whole else abs(low) or 1)
    size = 10 ** math.floor(math.log10((high - low) / most))
    size = max(size, 1) if whole else size
    # a hundredth of a step too much is the rounding of floats, and needs no further step
    step = next(step for step in (size, 2 * size, 5 * size, 10 * size) if step * (most + 0.01) >= high - low)
    first, last = math.floor(low / step + 0.01), math.ceil(high / step - 0.01)
    return [number * step if step >= 1 else round(number * step, 12) for number in range(first, last + 1)]


def _number(tick: float) -> str:
    return f"{tick:,.12g}"


def _svg(axes: _Axes, parts: Sequence[str], label: str) -> str:
    grid = []
    for tick in axes.y_ticks:
        y = axes.y(tick)
        kind = "axis" if tick == axes.y_ticks[0] else "grid"
        grid.append(f'<line class="{kind}" x1="{axes.left:.1f}" x2="{axes.right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        grid.append(_text(axes.left - 5, y + 4, _number(tick), "end"))
    if axes.names.y:
        grid.append(_text(0, 11, axes.names.y, "start", "name"))
    if axes.names.x:
        grid.append(_text(axes.right, axes.height - 3, axes.names.x, "end", "name"))
    described = f'role="img" aria-label="{escape(label)}"' if label else 'aria-hidden="true"'
    body = "".join([*grid, *parts])
    return f'<svg class="chart" viewBox="0 0 {axes.width} {axes.height}" {described}>{body}</svg>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _shortened(name: str) -> str:
    name = "".join(character if character.isprintable() else "\ufffd" for character in name)
    return name if len(name) <= _LABEL else name[: _LABEL - 1] + "…"
