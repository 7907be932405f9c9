"""The pictures of the README: present, small, and the chart has the numbers of docs/figures.md."""

from __future__ import annotations

import runpy
from types import SimpleNamespace

import pytest

from tests.support.paths import ROOT

IMAGES = ROOT / "docs/images"


@pytest.fixture(scope="module")
def pictures() -> SimpleNamespace:
    """docs/pictures.py, which is a program and no part of a package."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "docs/pictures.py")))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_chart_is_what_the_figures_of_today_give(pictures: SimpleNamespace, scheme: str) -> None:
    panels = pictures.headline_panels((ROOT / "docs/figures.md").read_text())
    drawn = pictures.figures_svg(panels, pictures.SCHEMES[scheme])
    assert drawn == (IMAGES / f"figures-{scheme}.svg").read_text(), "run: python docs/pictures.py --only figures"


def test_every_picture_is_below_300_kilobytes(pictures: SimpleNamespace) -> None:
    sizes = {picture.name: picture.stat().st_size for picture in IMAGES.iterdir()}
    assert {"report-light.png", "report-dark.png"} <= sizes.keys()
    assert max(sizes.values()) <= pictures.MOST_BYTES


def test_figures_without_a_row_that_the_chart_needs_are_refused(pictures: SimpleNamespace) -> None:
    with pytest.raises(SystemExit, match="has no row 'near-duplicates'"):
        pictures.headline_panels("| rendering | fast |")
