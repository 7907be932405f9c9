"""Bar and line charts as inline SVG, for the build report and for a training run's loss.html.

Standard library only, so that training can use it. A chart carries classes, not colours: the page that shows it includes
`STYLE`, which takes its colours from CSS variables where the page defines them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

STYLE = """
.chart { width: 100%; height: auto; display: block; font: 11px system-ui, sans-serif; fill: var(--muted, #625e57); }
.chart .grid { stroke: var(--line, #e4dfd4); } .chart .bar, .chart .dot.s0 { fill: var(--accent, #0f6e56); }
.chart .curve { fill: none; stroke-width: 2; stroke-linejoin: round; } .chart .curve.s0 { stroke: var(--accent, #0f6e56); }
.chart .curve.s1 { stroke: var(--warn, #b45309); } .chart .dot.s1 { fill: var(--warn, #b45309); }
"""

_CHARACTER = 6.2  # pixels of width of a label's character at 11 px, about
_LABEL = 15  # characters of a label under a bar
_BAR_STEPS, _LINE_STEPS = 4, 5  # most steps of an axis
_TOP, _BOTTOM = 8, 20  # pixels above and below the plotting area


@dataclass(frozen=True)
class Series:
    """Points (x, y) that a line chart draws as one line, or as separate dots."""

    points: Sequence[tuple[float, float]]
    dots: bool = False


@dataclass(frozen=True)
class _Axes:
    """The plotting area of a chart in pixels, and the ranges of values that it covers."""

    width: int
    height: int
    left: float
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]

    def x(self, value: float) -> float:
        low, high = self.x_ticks[0], self.x_ticks[-1]
        return self.left + (self.width - self.left - 8) * (value - low) / (high - low)

    def y(self, value: float) -> float:
        low, high = self.y_ticks[0], self.y_ticks[-1]
        return self.height - _BOTTOM - (self.height - _TOP - _BOTTOM) * (value - low) / (high - low)


def bar_chart(rows: Sequence[tuple[str, int]], width: int = 340, height: int = 190) -> str:
    """An SVG of vertical bars in the given order; `rows` are (label, count)."""
    ticks = _ticks(0, max((count for _, count in rows), default=0), _BAR_STEPS, whole=True)
    slots = max(len(rows), 1)
    axes = _Axes(width, height, _margin(ticks), (0, slots), ticks)
    slot = axes.x(1) - axes.x(0)
    parts = []
    for at, (name, count) in enumerate(rows):
        left, top = axes.x(at) + 0.15 * slot, axes.y(count)
        parts += [
            f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" width="{0.7 * slot:.1f}" height="{axes.y(0) - top:.1f}" rx="2"/>',
            _text(axes.x(at) + slot / 2, height - 5, _shortened(name), "middle"),
        ]
    return _svg(axes, parts)


def line_chart(
    series: Sequence[Series],
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    width: int = 340,
    height: int = 190,
) -> str | None:
    """An SVG with the lines and dots of `series`; None if no point is finite.

    The classes s0, s1, … number the series in the order given. A range is that of the finite points unless it is given.
    """
    finite = [[(x, y) for x, y in one.points if math.isfinite(x) and math.isfinite(y)] for one in series]
    points = [point for one in finite for point in one]
    if not points:
        return None
    x_low, x_high = x_range or (min(x for x, _ in points), max(x for x, _ in points))
    y_low, y_high = y_range or (min(y for _, y in points), max(y for _, y in points))
    y_ticks = _ticks(y_low, y_high, _LINE_STEPS)
    axes = _Axes(width, height, _margin(y_ticks), _ticks(x_low, x_high, _LINE_STEPS), y_ticks)
    parts = [_text(axes.x(tick), height - 5, f"{tick:,.12g}", "middle") for tick in axes.x_ticks]
    for number, (one, drawn) in enumerate(zip(series, finite, strict=True)):
        places = [(f"{axes.x(x):.1f}", f"{axes.y(y):.1f}") for x, y in drawn]
        if one.dots:
            parts += [f'<circle class="dot s{number}" cx="{x}" cy="{y}" r="4"/>' for x, y in places]
        elif places:
            path = " ".join(f"{x},{y}" for x, y in places)
            parts.append(f'<polyline class="curve s{number}" points="{path}"/>')
    return _svg(axes, parts)


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


def _margin(ticks: Sequence[float]) -> float:
    """Pixels to the left of the plotting area, for the labels of the vertical axis."""
    return 8 + _CHARACTER * max(len(f"{tick:,.12g}") for tick in ticks)


def _svg(axes: _Axes, parts: Sequence[str]) -> str:
    grid = []
    for tick in axes.y_ticks:
        y = axes.y(tick)
        grid.append(f'<line class="grid" x1="{axes.left:.1f}" x2="{axes.width}" y1="{y:.1f}" y2="{y:.1f}"/>')
        grid.append(_text(axes.left - 5, y + 4, f"{tick:,.12g}", "end"))
    body = "".join([*grid, *parts])
    return f'<svg class="chart" viewBox="0 0 {axes.width} {axes.height}">{body}</svg>'


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _shortened(name: str) -> str:
    name = "".join(character if character.isprintable() else "\ufffd" for character in name)
    return name if len(name) <= _LABEL else name[: _LABEL - 1] + "…"
