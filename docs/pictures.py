"""Make the pictures of README and docs from real output: the report of a build, two figures of docs/figures.md, and the
curves of docs/qlora.md.

    python docs/pictures.py --source ../shared/real/oasst/oasst1_en_validation_messages.jsonl \
        --tokenizer ../shared/real/llama2/tokenizer.json
    python docs/pictures.py --only figures          # one chart alone, after docs/figures.md has changed
    python docs/pictures.py --only curves           # after docs/qlora.md has changed

Writes docs/images/report-{light,dark}.png (needs Chromium), figures-{light,dark}.svg and smollm2-{light,dark}.svg.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from dataprep.common.charts import AxisNames, Series, line_chart, svg_file  # noqa: E402

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
MOST_BYTES = 300_000  # of one picture

# Colours of the variables of `dataprep.common.charts.STYLE`, and of the paper, on a light and on a dark page.
LIGHT = {
    "paper": "#ffffff", "ink": "#15181e", "muted": "#59616d", "line": "#e4e7eb", "edge": "#c9ced6",
    "accent": "#0b6b57", "second": "#b4530a", "warn": "#865500",
}  # fmt: skip
DARK = {
    "paper": "#0d1117", "ink": "#e8eaed", "muted": "#9ba4b1", "line": "#262c35", "edge": "#434c58",
    "accent": "#4fc3a1", "second": "#f0a35e", "warn": "#f1c56f",
}  # fmt: skip
SCHEMES = {"light": LIGHT, "dark": DARK}

_WINDOW, _SCALE = "1180,1040", "1.4"  # pixels of the browser's window, and of the picture for each of them
# Pixels: the chart, above the bars, names, what is written after the longest bar, a bar, between bars.
_WIDTH, _TOP, _NAME, _VALUE, _BAR, _GAP = 840, 48, 105, 115, 20, 9


@dataclass(frozen=True)
class Panel:
    """Horizontal bars, given as (name, length, what is written beside it); the first is ours."""

    title: str
    subtitle: str
    bars: Sequence[tuple[str, float, str]]


def main() -> None:
    """Make the pictures that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", help="what to build; default: the bundled sample")
    parser.add_argument("--tokenizer", help="a tokenizer.json, for lengths in tokens")
    parser.add_argument("--only", choices=("report", "figures", "curves"))
    arguments = parser.parse_args()
    IMAGES.mkdir(exist_ok=True)
    if arguments.only in (None, "curves"):
        chart = curves_chart((DOCS / "qlora.md").read_text(encoding="utf-8"))
        for scheme, colors in SCHEMES.items():
            (IMAGES / f"smollm2-{scheme}.svg").write_text(svg_file(chart, colors), encoding="utf-8")
    if arguments.only in (None, "figures"):
        panels = headline_panels((DOCS / "figures.md").read_text(encoding="utf-8"))
        for scheme, colors in SCHEMES.items():
            (IMAGES / f"figures-{scheme}.svg").write_text(figures_svg(panels, colors), encoding="utf-8")
    if arguments.only in (None, "report"):
        photograph_report(arguments.source, arguments.tokenizer)
    for picture in sorted(IMAGES.iterdir()):
        size = picture.stat().st_size
        assert size <= MOST_BYTES, f"{picture} has {size:,} bytes, more than {MOST_BYTES:,}"
        print(f"{picture.relative_to(DOCS.parent)}: {size:,} bytes")


def headline_panels(figures: str) -> list[Panel]:
    """The two headline figures, read from the table of docs/figures.md.

    Raises:
        SystemExit: the table has no such row.
    """
    near = r"([\d.]+) s: ([\d.]+) times as fast as datasketch.*?([\d.]+) times as rensa"
    seconds, datasketch, rensa = _numbers(figures, "near-duplicates", near)
    peers = r"([\d,]+) tokens/s; on the same machine trl at its best ([\d,]+), unsloth ([\d,]+)"
    training, trl, unsloth = _numbers(figures, "QLoRA of a 7B model", peers)
    return [
        Panel(
            "Near-duplicates of 200,000 conversations",
            "time, shorter is better",
            [
                ("dataprep", 1, f"{seconds:g} s"),
                ("rensa", rensa, f"{rensa:g} times as long"),
                ("datasketch", datasketch, f"{datasketch:g} times as long"),
            ],
        ),
        Panel(
            "QLoRA of a 7B model on one H100",
            "tokens a second, longer is better",
            [
                ("training", training, f"{training:,.0f}"),
                ("unsloth", unsloth, f"{unsloth:,.0f}"),
                ("trl at its best", trl, f"{trl:,.0f}"),
            ],
        ),
    ]


def curves_chart(page: str) -> str:
    """The held-out losses in the table of docs/qlora.md whose first column is the number of tokens processed.

    Raises:
        SystemExit: the table has no such rows.
    """
    rows = re.findall(r"^\| ([\d,]+) \| ([\d.]+) \| ([\d.]+) \| \**([\d.]+)\** \|$", page, flags=re.MULTILINE)
    if not rows:
        raise SystemExit("docs/qlora.md has no table of losses by tokens: change docs/pictures.py with the table.")
    numbers = [[float(value.replace(",", "")) for value in row] for row in rows]
    curves = [[(row[0], row[column]) for row in numbers] for column in (1, 2, 3)]
    chart = line_chart(
        [
            Series(curves[2], name="training, steps of 2,048 tokens"),
            Series(curves[1], name="training, steps of 16,384 tokens"),
            Series(curves[0], name="trl as the notebook uses it"),
        ],
        width=840,
        height=320,
        names=AxisNames("tokens processed", "held-out loss, nats per token"),
        label="Green: steps of 2,048 tokens; orange: steps of 16,384 tokens; grey: trl as the notebook uses it",
    )
    assert chart is not None
    return chart


def _numbers(figures: str, row: str, pattern: str) -> list[float]:
    line = next((line for line in figures.splitlines() if line.startswith(f"| {row}")), "")
    match = re.search(pattern, line)
    if not match:
        raise SystemExit(f"docs/figures.md has no row '{row}' with {pattern}: change docs/pictures.py with the table.")
    return [float(number.replace(",", "")) for number in match.groups()]


def figures_svg(panels: Sequence[Panel], colors: dict[str, str]) -> str:
    """The panels beside each other as an SVG file."""
    width = _WIDTH // len(panels)
    height = _TOP + max(len(panel.bars) for panel in panels) * (_BAR + _GAP) + 4
    drawn = "".join(_panel(panel, number * width, width - 24, colors) for number, panel in enumerate(panels))
    label = "; ".join(f"{one.title}: " + ", ".join(f"{name} {shown}" for name, _, shown in one.bars) for one in panels)
    font = "-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" '
        f'role="img" aria-label="{escape(label)}" font-family="{font}" font-size="13">{drawn}</svg>\n'
    )


def _panel(panel: Panel, left: int, width: int, colors: dict[str, str]) -> str:
    longest = max(length for _, length, _ in panel.bars)
    parts = [
        f'<text x="{left}" y="16" font-weight="600" fill="{colors["ink"]}">{escape(panel.title)}</text>',
        f'<text x="{left}" y="34" font-size="12" fill="{colors["muted"]}">{escape(panel.subtitle)}</text>',
    ]
    for number, (name, value, shown) in enumerate(panel.bars):
        top = _TOP + number * (_BAR + _GAP)
        length = max(2.0, (width - _NAME - _VALUE) * value / longest)
        weight, color = ("600", colors["accent"]) if number == 0 else ("400", colors["edge"])
        parts += [
            f'<text x="{left}" y="{top + 15}" font-weight="{weight}" fill="{colors["ink"]}">{escape(name)}</text>',
            f'<rect x="{left + _NAME}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="3" fill="{color}"/>',
            f'<text x="{left + _NAME + 8 + length:.1f}" y="{top + 15}" font-weight="{weight}" fill="{colors["ink"]}">'
            f"{escape(shown)}</text>",
        ]
    return "".join(parts)


def photograph_report(source: str | None, tokenizer: str | None) -> None:
    """Build `source`, and take pictures of the top of its report in both colour schemes.

    Raises:
        SystemExit: Chromium is missing.
    """
    import dataprep

    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not browser:
        raise SystemExit("Chromium is missing: apt-get install chromium, or --only figures.")
    with tempfile.TemporaryDirectory() as folder:
        name = "oasst1-en" if source and "oasst1" in source else None
        options: dict[str, Any] = {"tokenizer": tokenizer} if tokenizer else {}
        built = dataprep.build(source or (), name=name, store=folder, split="test=20", **options)
        for number, scheme in enumerate(("dark", "light")):  # the numbers by which Chromium knows them
            command = [
                browser, "--headless", "--no-sandbox", "--hide-scrollbars", f"--force-device-scale-factor={_SCALE}",
                f"--window-size={_WINDOW}", f"--blink-settings=preferredColorScheme={number}",
                f"--screenshot={IMAGES / f'report-{scheme}.png'}", built.report().as_uri(),
            ]  # fmt: skip
            subprocess.run(command, check=True, capture_output=True, timeout=300)


if __name__ == "__main__":
    main()
