"""The reports in a browser: no request leaves, no foreign script runs, the filters work, and the page is accessible."""

from __future__ import annotations

import json
from typing import Any

import pytest

from dataprep.build import Outcome
from tests.support.commands import dataprep
from tests.support.pages import ATTACKS, open_in_browser


@pytest.fixture(scope="module")
def build_page(attacked: Outcome, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a browser observed of a build's report."""
    assert attacked.path
    return open_in_browser(attacked.path / "report.html", tmp_path_factory.mktemp("screens"))


@pytest.fixture(scope="module")
def audit_page(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a browser observed of the report of an audit of hostile rows in a folder with a long name."""
    folder = tmp_path_factory.mktemp("audit") / ("long-" * 40) / ("deep" * 50)
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
    dataprep("audit", file, "--report", page)
    return open_in_browser(page, tmp_path_factory.mktemp("audit-screens"))


def assert_page_is_safe_and_accessible(observed: dict[str, Any]) -> None:
    assert [url for url in observed["requests"] if not url.startswith("file:")] == []
    assert (observed["errors"], observed["dialogs"], observed["pwned"]) == ([], [], None)
    assert set(observed["overflow"].values()) == {0}
    assert {name: violations for name, violations in observed["axe"].items() if violations} == {}


def test_a_build_report_is_safe_accessible_and_fits_a_phone(build_page: dict[str, Any]) -> None:
    assert_page_is_safe_and_accessible(build_page)


def test_an_audit_report_is_safe_accessible_and_fits_a_phone(audit_page: dict[str, Any]) -> None:
    assert_page_is_safe_and_accessible(audit_page)


def test_search_and_filters_of_a_build_report_show_the_matching_conversations(build_page: dict[str, Any]) -> None:
    shown = build_page["shown"]
    assert shown["search"] == 1 and shown["status"].startswith("1 of ")
    assert shown["all"] == shown["again"] > 40
    for name in ("lang", "split", "length"):
        assert sum(shown[name].values()) == shown["all"] and len(shown[name]) > 1
    assert shown["lang"]["de"] == 20 and 0 < shown["length"]["long"] < 5
    assert len(set(build_page["heights"])) == 1


def test_search_and_filters_of_an_audit_report_show_the_matching_rows(audit_page: dict[str, Any]) -> None:
    shown = audit_page["shown"]
    assert shown["search"] == 1 and shown["all"] == shown["again"] > 8
    assert shown["kind"]["duplicate"] == 1 and shown["kind"]["doubled_control_token"] == len(ATTACKS)
    assert shown["sure"]["certain"] > 0
