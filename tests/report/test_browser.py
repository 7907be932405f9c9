"""The pages in a browser: no request leaves, no foreign script runs, the filters work, and the pages are accessible."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dataprep.audit import audit_file
from dataprep.build import Outcome
from tests.support.pages import (
    ATTACKS,
    assert_page_is_safe_and_accessible,
    metric_lines,
    open_in_browser,
    run_record,
    sample_answer,
)
from training.after.loss_page import loss_page

PAGES = ("build", "audit", "loss")
SIZES = [f"{scheme}-{size}" for scheme in ("light", "dark") for size in ("wide", "phone")]


@pytest.fixture(scope="module")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the screenshots."""
    return tmp_path_factory.mktemp("screens")


@pytest.fixture(scope="module")
def observed(
    attacked: Outcome, screenshots: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What a browser observed of each of `PAGES`."""
    assert attacked.path
    pages = {
        "build": attacked.path / "report.html",
        "audit": write_audit_page(tmp_path_factory.mktemp("audit")),
        "loss": write_loss_page(tmp_path_factory.mktemp("loss")),
    }
    return open_in_browser(pages, screenshots)


def write_audit_page(folder: Path) -> Path:
    """The report of an audit of hostile rows in a folder with a long name."""
    folder = folder / ("long-" * 40) / ("deep" * 50)
    folder.mkdir(parents=True)
    file = folder / "<i>evil & co.jsonl"
    texts = [f"<s>[INST] {attack} [/INST] {attack} answered </s>" for attack in ATTACKS]
    texts += [f"<s><s>[INST] ask {attack} [/INST] {attack} answered </s>" for attack in ATTACKS]
    texts += [
        "<s>[INST] what is a zebrafish? [/INST]  </s>",
        "<s>[INST] a [/INST] b </s>",
        "<s>[INST] a [/INST] b </s>",
    ]
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    page = folder / "r.html"
    page.write_text(audit_file(file).page())
    return page


def write_loss_page(folder: Path) -> Path:
    """The page of a run whose name, options and answers are hostile."""
    page = folder / "loss.html"
    answers = [sample_answer(attack) for attack in ATTACKS]
    page.write_text(loss_page(ATTACKS[0], run_record(ATTACKS[1]), metric_lines(), answers))
    return page


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_safe_accessible_and_fits_a_phone(observed: dict[str, dict[str, Any]], page: str) -> None:
    assert_page_is_safe_and_accessible(observed[page])


@pytest.mark.parametrize("page", PAGES)
def test_screenshots_are_taken_in_both_widths_and_colour_schemes(
    observed: dict[str, dict[str, Any]], screenshots: Path, page: str
) -> None:
    assert {file.stem.removeprefix(f"{page}-") for file in screenshots.glob(f"{page}-*.png")} == set(SIZES)


def test_search_and_filters_of_a_build_report_show_the_matching_conversations(
    observed: dict[str, dict[str, Any]],
) -> None:
    shown = observed["build"]["shown"]
    assert shown["search"] == 1 and shown["status"].startswith("1 of ")
    assert shown["all"] == shown["again"] > 40
    for name in ("lang", "split", "length"):
        assert sum(shown[name].values()) == shown["all"] and len(shown[name]) > 1
    assert shown["lang"]["de"] == 20 and 0 < shown["length"]["long"] < 5
    assert len(set(observed["build"]["heights"])) == 1


def test_a_long_list_is_shown_in_parts(observed: dict[str, dict[str, Any]]) -> None:
    shown = observed["build"]["shown"]
    assert shown["visible"] == 20 and shown["whole"] == shown["all"]


def test_search_and_filters_of_an_audit_report_show_the_matching_rows(observed: dict[str, dict[str, Any]]) -> None:
    shown = observed["audit"]["shown"]
    assert shown["search"] == 1 and shown["all"] == shown["again"] > 8
    assert shown["kind"]["duplicate"] == 1 and shown["kind"]["doubled_control_token"] == len(ATTACKS)
    assert shown["sure"]["certain"] > 0
